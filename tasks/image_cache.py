"""What the tasks share in keeping decoded images: `--cache`, `--cache-memory` and `--scaled-decode`."""

from contextlib import contextmanager

from visionloop.datasets.cache.decoded import DecodedImages, store_images
from visionloop.datasets.cache.store_files import CacheError
from visionloop.engine.errors import UserError


def training_images(index, config, least_side):
    """The images of an index as the settings want them read and kept. least_side: of the shorter side where they are scaled.

    Which pixels come out depends on --scaled-decode alone, never on where they are kept. Raises
    UserError where the disk cannot be written.
    """
    least_side = least_side if config.scaled_decode else None
    if config.cache != "disk":
        return DecodedImages(
            index, least_side, int(config.cache_memory * 2**30) if config.cache == "ram" else 0
        )
    with cache_errors():
        return store_images(index, least_side)


@contextmanager
def cache_errors():
    """A disk that cannot take the cache is the user's to mend: a CacheError inside becomes a UserError."""
    try:
        yield
    except CacheError as error:
        raise UserError(
            f"--cache: {error}", code="no_cache", file=error.path, field="cache"
        ) from None
