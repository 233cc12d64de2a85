"""Cache of decoded training images: `--cache`, `--cache-memory` and `--scaled-decode`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from visionloop.datasets.cache.decoded import DecodedImageCache, DecodedImages, open_image_cache
from visionloop.datasets.cache.store_files import CacheError
from visionloop.engine.errors import UserError
from visionloop.tasks.splits import ImageIndex


class CacheConfig(Protocol):
    """The settings of a task that its image cache reads."""

    @property
    def cache(self) -> str:
        """Either "none", "ram" or "disk"."""
        ...

    @property
    def cache_memory(self) -> float:
        """GiB of memory for the decoded images of a split; read with "ram" alone."""
        ...

    @property
    def augment(self) -> str | None:
        """The user's function of images in full."""
        ...

    @property
    def scaled_decode(self) -> bool:
        """Decode large JPEGs at a reduced size."""
        ...


def training_images(
    index: ImageIndex, config: CacheConfig, min_side: int
) -> DecodedImages | DecodedImageCache:
    """Return the images of an index, decoded and cached as the settings ask.

    The pixels depend on --scaled-decode and --augment alone, never on where they are cached.

    Args:
        index: the images.
        config: settings of the task.
        min_side: shorter side in pixels that a reduced decoding keeps at least.

    Raises:
        UserError: the disk cannot take the cache.
    """
    side = min_side if config.scaled_decode and config.augment is None else None
    if config.cache != "disk":
        memory = int(config.cache_memory * 2**30) if config.cache == "ram" else 0
        return DecodedImages(index, side, memory)
    with cache_errors():
        return open_image_cache(index, side)


@contextmanager
def cache_errors() -> Iterator[None]:
    """Turn a CacheError inside the block into a UserError: the user can make room on the disk."""
    try:
        yield
    except CacheError as error:
        raise UserError(
            f"--cache: {error}", code="no_cache", file=error.path, field="cache"
        ) from None
