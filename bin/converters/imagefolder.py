"""Folders of images by class as detection: every image is one box."""

from tqdm import tqdm

from visionloop.bin.converters.columns import GrowingIndex
from visionloop.datasets.classification import image_folder
from visionloop.datasets.io.images import UnreadableImage, read_size
from visionloop.datasets.io.layout import DataLayoutError, find_split

SPLITS = ("train", "val", "test")


def read_image_folder(source, findings):
    """{split: DetectionIndex} of `<split>/<class>/*.jpg`: one box around each whole image, whose class is the folder's name.

    findings: takes the images that cannot be read. Raises DataLayoutError.
    """
    folders = {split: folder for split in SPLITS if (folder := find_split(source, split))}
    if not folders:
        raise DataLayoutError(
            source, "no train/, val/ or test/ in it; expected train/<class>/*.jpg"
        )
    classes, scanned = None, {}
    for split, folder in folders.items():
        scanned[split] = image_folder.scan(folder, classes)
        classes = classes or scanned[split].classes
    numbers = {kind: number for number, kind in enumerate(classes)}
    growing = {
        split: GrowingIndex(index.folder, index.folder, numbers) for split, index in scanned.items()
    }
    with tqdm(
        total=sum(map(len, scanned.values())),
        desc="reading sizes",
        unit="pic",
        disable=None,
        leave=False,
    ) as bar:
        for split, index in scanned.items():
            for i, label in enumerate(index.labels.tolist()):
                bar.update()
                try:
                    height, width = read_size(index.path(i))
                except UnreadableImage as error:
                    findings.problem(error.path, error.why)
                    continue
                growing[split].add(
                    index.name(i),
                    (height, width),
                    [(0, 0, width, height)],
                    [classes[label]],
                    [False],
                )
    return {split: rows.index() for split, rows in growing.items()}
