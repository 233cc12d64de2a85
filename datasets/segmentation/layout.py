"""Places of the images and masks of a split.

Images are `images/train/x.jpg`, masks `masks/train/x.png`, with one `classes.json` for all splits.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from visionloop.datasets.io.folders import (
    IMAGE_SUFFIXES,
    describe_suffixes,
    no_images,
)
from visionloop.datasets.io.layout import (
    SPLIT_FOLDERS,
    DataLayoutError,
    find_split,
    is_hidden,
    require_folder,
    shorten,
    suggest_folder,
)
from visionloop.datasets.io.names import path_stem
from visionloop.datasets.io.paths import (
    files_below,
    join_paths,
    list_files,
    refuse_duplicate_stems,
)
from visionloop.datasets.segmentation.class_file import ClassFile, read_class_file
from visionloop.datasets.segmentation.dataset import SegmentationIndex
from visionloop.datasets.segmentation.masks import MASK_SUFFIXES

IMAGES, MASKS, CLASSES = "images", "masks", "classes.json"


def find_segmentation_split(
    data: str | os.PathLike[str], split: str, classes: Iterable[str] | None = None
) -> SegmentationIndex | None:
    """Read the SegmentationIndex of a split, or return None without the split.

    Args:
        data: the data folder.
        split: "train", "val" or "test".
        classes: names of a trained model, which then give the ids.

    Raises:
        DataLayoutError: one line with the first error.
    """
    data = Path(data)
    require_folder(data)
    folder = find_split(data / IMAGES, split) if (data / IMAGES).is_dir() else None
    if folder is None:
        return None
    mask_folder = find_split(data / MASKS, split) if (data / MASKS).is_dir() else None
    if mask_folder is None:
        raise DataLayoutError(
            data / MASKS / folder.name,
            f"no such folder; expected a mask x.png for every image of {folder}",
        )
    class_file = read_class_file(data / CLASSES)
    if classes is not None:
        class_file = class_file.with_classes(classes)
    return _match_masks(folder, mask_folder, class_file)


def require_segmentation_split(
    data: str | os.PathLike[str], split: str, classes: Iterable[str] | None = None
) -> SegmentationIndex:
    """Read the SegmentationIndex of a split; arguments as for find_segmentation_split.

    Raises:
        DataLayoutError: also without the split, with what is there instead.
    """
    index = find_segmentation_split(data, split, classes)
    if index is not None:
        return index
    name, images = SPLIT_FOLDERS[split][0], Path(data) / IMAGES
    folder = images if images.is_dir() else data
    present = sorted(entry.name for entry in os.scandir(folder) if not is_hidden(entry.name))
    where, hint = f" in {IMAGES}/", ""
    if not images.is_dir():
        where = ""
        hint = suggest_folder(data, lambda folder: find_split(folder / IMAGES, split))
    expected = f"{IMAGES}/{name}/x.jpg with {MASKS}/{name}/x.png and {CLASSES}"
    raise DataLayoutError(
        data, f"expected {expected}; found{where} {shorten(present) or 'nothing'}{hint}"
    )


def masks_without_image(index: SegmentationIndex) -> list[str]:
    """Return the paths of the masks of a split that belong to no image."""
    stems = {path_stem(index.name(i)) for i in range(len(index))}
    files = files_below(index.mask_folder, MASK_SUFFIXES)
    return [os.path.join(index.mask_folder, name) for name in files if path_stem(name) not in stems]


def _match_masks(folder: Path, mask_folder: Path, class_file: ClassFile) -> SegmentationIndex:
    """Return the index of two folders. A mask has the path of its image but for the suffix."""
    images, others = list_files(folder, IMAGE_SUFFIXES)
    masks, other_masks = list_files(mask_folder, MASK_SUFFIXES)
    if not images:
        raise DataLayoutError(folder, no_images(others, folder, IMAGE_SUFFIXES))
    refuse_duplicate_stems(folder, images, "have one mask")
    mask_of = refuse_duplicate_stems(mask_folder, masks, "are masks of one image")
    missing = [name for name in images if path_stem(name) not in mask_of]
    if missing:
        expected = os.path.join(mask_folder, path_stem(missing[0]) + ".png")
        present = shorten(sorted(masks), 2) if masks else f"no {' '.join(MASK_SUFFIXES)}"
        if other_masks:
            present += f", and {describe_suffixes(other_masks)}"
        many = (
            f"{len(missing)} of {len(images)} images have no mask; the first is"
            if len(missing) > 1
            else "no mask for the image"
        )
        raise DataLayoutError(
            mask_folder, f"{many} {missing[0]}, expected {expected}; it holds {present}"
        )
    matched = [mask_of[path_stem(name)] for name in images]
    mask_paths = join_paths([os.fsencode(name) for name in matched])
    return SegmentationIndex(
        folder=os.fspath(folder),
        mask_folder=os.fspath(mask_folder),
        class_file=class_file,
        sizes=np.fromiter(images.values(), dtype=np.int64, count=len(images)),
        mask_sizes=np.array([masks[name] for name in matched], dtype=np.int64),
        mask_paths=mask_paths["paths"],
        mask_starts=mask_paths["starts"],
        mask_stops=mask_paths["stops"],
        **join_paths([os.fsencode(name) for name in images]),
        passed_over=others,
    )
