"""Images sorted into folders by class: `train/<class>/*.jpg`."""

import hashlib
import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from visionloop.datasets.augmentation.function import UserFunction
from visionloop.datasets.augmentation.samples import augment_labeled
from visionloop.datasets.cache.decoded import DecodedImageCache, DecodedImages
from visionloop.datasets.io.folders import (
    IMAGE_SUFFIXES,
    conversion_hint,
    count_suffixes,
    describe_suffixes,
    walk_folder,
)
from visionloop.datasets.io.json_columns import repeated
from visionloop.datasets.io.layout import DataLayoutError, is_hidden, shorten
from visionloop.datasets.io.names import composed, is_unicode
from visionloop.datasets.io.paths import PathIndex, Rows, hash_columns, hash_paths

# called with an image, and only for reduced images with the size of the full one
Transform: TypeAlias = Callable[..., torch.Tensor]  # type: ignore[explicit-any]


@dataclass(frozen=True, eq=False)
class ImageFolderIndex(PathIndex):
    """The images of a split and their labels.

    Attributes:
        classes: names; the label is the position.
        labels: int64 [N].
        sizes: file sizes in bytes, int64 [N].
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def subset(self, rows: Rows) -> "ImageFolderIndex":
        """Return the index of these rows alone, in this order; the paths are shared."""
        return self.select(rows, ("starts", "stops", "labels", "sizes"))

    def fingerprint(self) -> str:
        """Return the SHA-256 of class names, relative paths, labels and file sizes, in order.

        Contents, times and the folder's own path are left out: a copy is the same data, an edit
        that keeps a file's size is not noticed.
        """
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        hash_columns(digest, (self.stops - self.starts, self.labels, self.sizes))
        hash_paths(digest, self.paths, self.starts, self.stops)
        return digest.hexdigest()


def scan(folder: str | os.PathLike[str], classes: Sequence[str] | None = None) -> ImageFolderIndex:
    """Index every image at any depth below the class folders of a split.

    The order is that of torchvision's ImageFolder. Hidden names are skipped, suffixes match in any
    case.

    Args:
        folder: of the split.
        classes: names of the training split, to give the same labels; a folder of another name is
            then an error, a missing or empty one is not.

    Raises:
        DataLayoutError: for a folder that is laid out otherwise.
    """
    folder = os.fspath(folder)
    class_folders = _class_folders(folder)
    valid_names = tuple(map(composed, class_folders)) if classes is None else tuple(classes)
    for position in repeated(valid_names):
        why = f"two folders have the name {valid_names[position]!r}, in two Unicode forms; keep one"
        raise DataLayoutError(folder, why)
    label_of = {composed(name): label for label, name in enumerate(valid_names)}
    unknown = [name for name in class_folders if composed(name) not in label_of]
    if unknown:
        raise DataLayoutError(
            os.path.join(folder, unknown[0]),
            f"not one of the {len(valid_names)} known classes ({shorten(valid_names)})",
        )

    paths, starts, sizes, labels, empty = bytearray(), [], [], [], []
    passed_over = Counter[str]()
    for name in class_folders:
        class_paths, class_sizes, others = _images_below(folder, name)
        passed_over += others
        if not class_paths:
            empty.append((name, others))
        # arrays class by class: Python objects for a million paths would not be small even for a
        # moment
        lengths = np.fromiter(map(len, class_paths), dtype=np.int64, count=len(class_paths))
        starts.append(len(paths) + lengths.cumsum() - lengths)
        sizes.append(np.array(class_sizes, dtype=np.int64))
        labels.append(np.full(len(class_paths), label_of[composed(name)], dtype=np.int64))
        paths += b"".join(class_paths)
    if empty and (classes is None or not paths):
        _refuse_empty(folder, empty)
    all_starts = np.concatenate(starts)
    return ImageFolderIndex(
        folder=folder,
        paths=bytes(paths),
        starts=all_starts,
        stops=np.append(all_starts[1:], len(paths)),
        classes=valid_names,
        labels=np.concatenate(labels),
        sizes=np.concatenate(sizes),
        passed_over=passed_over,
    )


def _class_folders(folder: str) -> list[str]:
    """Return the names of the class folders, sorted as strings, as torchvision does."""
    if not os.path.isdir(folder):
        raise DataLayoutError(folder, "no such folder; expected <class>/*.jpg in it")
    entries = [entry for entry in os.scandir(folder) if not is_hidden(entry.name)]
    # unlike entry.is_dir(), os.path.isdir raises no error for a link to itself
    names = sorted(entry.name for entry in entries if os.path.isdir(entry.path))
    if not names:
        loose = sum(_is_image(entry.name) for entry in entries)
        content = f"{loose} images lie directly in it" if loose else "no class folder in it"
        raise DataLayoutError(folder, f"{content}; expected one folder per class: <class>/*.jpg")
    undecodable = [name for name in names if not is_unicode(name)]
    if undecodable:
        raise DataLayoutError(
            folder,
            f"{len(undecodable)} of {len(names)} class folders have names that are not UTF-8, "
            f"first {os.fsencode(undecodable[0])!r}; rename them, for example with "
            f"convmv -f latin1 -t utf8 --notest {shlex.quote(folder)}/*",
        )
    return names


def _images_below(folder: str, class_name: str) -> tuple[list[bytes], list[int], Counter[str]]:
    """List the images of one class, sorted by folder, then by name.

    Returns:
        (paths relative to `folder`, file sizes, other files by suffix, see `count_suffixes`).
    """
    paths, sizes, others = [], [], Counter[str]()
    # torchvision's order: of whole paths, in which "a-b" comes before "a/b"
    for level, names in sorted(walk_folder(os.path.join(folder, class_name))):
        relative = os.path.relpath(level, folder)
        images = [name for name in names if _is_image(name)]
        for name in images:
            paths.append(os.fsencode(os.path.join(relative, name)))
            sizes.append(_file_size(os.path.join(level, name)))
        if len(images) < len(names):
            others += count_suffixes(set(names).difference(images))
    return paths, sizes, others


def _refuse_empty(folder: str, empty: Sequence[tuple[str, Counter[str]]]) -> NoReturn:
    """Raise DataLayoutError for classes without images.

    Args:
        folder: of the split.
        empty: (class name, other files by suffix) of each.
    """
    name, suffixes = empty[0]
    class_folder = os.path.join(folder, name)
    content = describe_suffixes(suffixes)
    hint = conversion_hint(suffixes, class_folder, ".jpg")
    others = [other for other, _ in empty[1:]]
    more = f"; so are {len(others)} more classes: {shorten(others)}" if others else ""
    raise DataLayoutError(
        class_folder,
        f"class without images, it holds {content or 'nothing'}{more}; "
        f"supported are {' '.join(IMAGE_SUFFIXES)}{hint}",
    )


def _file_size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1  # a dangling link stays in the index: reading it gives an error with its name


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


class ImageFolderDataset(Dataset[dict[str, torch.Tensor]]):
    """Samples {"pixel_values": uint8 [3, H, W], "label": int64 scalar} of an ImageFolderIndex."""

    def __init__(
        self,
        index: ImageFolderIndex,
        transform: Transform,
        images: DecodedImages | DecodedImageCache | None = None,
        user_function: UserFunction | None = None,
    ) -> None:
        """Make a dataset.

        Args:
            index: the images.
            transform: from an image, uint8 [3, H, W], to the pixel values; of a reduced image it
                also gets the size of the full one.
            images: reader of the images; None: from their files, in full.
            user_function: function of the user, applied before the transform to images in full.
        """
        self.index, self.transform, self.user_function = index, transform, user_function
        self.images = images or DecodedImages(index)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.index)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        """Read sample i. Raises UnreadableImage or AugmentError, an OSError, with the file."""
        image, *full_hw = self.images(i)
        label = int(self.index.labels[i])
        if self.user_function:
            image, label = augment_labeled(
                self.user_function, image, label, len(self.classes), self.name(i)
            )
        pixel_values = self.transform(image, *full_hw)
        return {"pixel_values": pixel_values, "label": torch.tensor(label)}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in order of label."""
        return self.index.classes

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels of all images, int64 [N]."""
        return self.index.labels

    def name(self, i: int) -> str:
        """Return the path of image i, for messages."""
        return self.index.path(i)

    def cached_bytes(self) -> tuple[int, int]:
        """Return (bytes of images cached in this process now, and once all were read)."""
        return self.images.cached_bytes()

    def fingerprint(self) -> str:
        """Return the fingerprint of the index."""
        return self.index.fingerprint()

    def subset(self, indices: NDArray[np.int64]) -> "ImageFolderDataset":
        """Return a dataset of these images alone, in this order, with the same transform."""
        return ImageFolderDataset(
            self.index.subset(indices),
            self.transform,
            self.images.subset(indices),
            self.user_function,
        )
