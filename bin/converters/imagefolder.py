"""Reader of image folders by class as detection data: every image is one box."""

from tqdm import tqdm

from visionloop.bin.converters.columns import DetectionIndexBuilder
from visionloop.bin.converters.conversion import ConversionReport
from visionloop.datasets.classification import image_folder
from visionloop.datasets.detection.index import DetectionIndex
from visionloop.datasets.io.images import UnreadableImage, read_size
from visionloop.datasets.io.layout import DataLayoutError, find_split

SPLITS = ("train", "val", "test")


def read_image_folder(source: str, report: ConversionReport) -> dict[str, DetectionIndex]:
    """Read `<split>/<class>/*.jpg` as one box around each whole image, of the folder's class.

    Args:
        source: the data folder.
        report: receives the images that cannot be read.

    Returns:
        {split: DetectionIndex}.

    Raises:
        DataLayoutError: for a folder that is laid out otherwise.
    """
    folders = {split: folder for split in SPLITS if (folder := find_split(source, split))}
    if not folders:
        why = "no train/, val/ or test/ in it; expected train/<class>/*.jpg"
        raise DataLayoutError(source, why)
    classes: tuple[str, ...] | None = None
    indexes: dict[str, image_folder.ImageFolderIndex] = {}
    for split, folder in folders.items():
        indexes[split] = image_folder.scan(folder, classes)
        classes = classes or indexes[split].classes
    class_numbers = {name: number for number, name in enumerate(classes or ())}
    builders = {
        split: DetectionIndexBuilder(index.folder, index.folder, class_numbers)
        for split, index in indexes.items()
    }
    total = sum(map(len, indexes.values()))
    with tqdm(
        total=total, desc="reading image sizes", unit="img", disable=None, leave=False
    ) as progress:
        for split, index in indexes.items():
            for i, label in enumerate(index.labels.tolist()):
                progress.update()
                try:
                    height, width = read_size(index.path(i))
                except UnreadableImage as error:
                    report.add_problem(error.path, error.why)
                    continue
                boxes = [(0, 0, width, height)]
                class_names = [index.classes[label]]
                builders[split].add(index.name(i), (height, width), boxes, class_names, [False])
    return {split: builder.build() for split, builder in builders.items()}
