"""Which pictures are trained on and which are evaluated on, and how they are read."""

from tqdm import tqdm

from visionloop.datasets.small_pictures import too_small
from visionloop.datasets.super_resolution import open_pairs
from visionloop.datasets.super_resolution_layout import find_super_resolution_split, require_super_resolution_split
from visionloop.engine.errors import UserError
from visionloop.tasks import splits
from visionloop.tasks.picture_cache import cache_errors

NO_VALIDATION = splits.no_validation("val/HR/")


def index_split(data, split, scale):
    """The SuperResolutionIndex of a split. scale: 1 for restoration at the same size. Raises UserError."""
    require_data(data)
    with splits.layout_errors():
        return require_super_resolution_split(data, split, scale)


def require_data(data):
    """UserError when no data folder is given."""
    splits.require_data(data, "train/HR/ and val/HR/")


def training_splits(data, val_split, scale):
    """(training index, validation index): the val split, or a share of the training pictures set aside by hash of the path."""
    train = index_split(data, "train", scale)
    with splits.layout_errors():
        val = find_super_resolution_split(data, "val", scale)
    return splits.train_and_val(data, val_split, train, val, missing=NO_VALIDATION)


def open_pictures(index, cache, side=None):
    """The pairs of an index, see datasets/super_resolution.py. Raises UserError where the cache cannot be written.

    cache: "disk" or "none". side: of the training crops in pixels of the small pictures; a picture that holds none is an error here
    already, and not in the middle of a run. None: whole pictures.
    """
    with cache_errors():
        pairs = open_pairs(index, cache)
    if side is not None:
        _refuse_small(pairs, side)
    return pairs


def _refuse_small(pairs, side):
    """UserError when a crop of so many pixels a side does not fit into some picture."""
    small = []
    for row in tqdm(range(len(pairs.index)), desc="sizes of pictures", unit="picture", disable=None, leave=False):
        try:
            height, width = pairs.lr_size(row)
        except OSError:  # what cannot be read is told when its turn comes: --skip-unreadable passes over it
            continue
        if min(height, width) < side:
            small.append((pairs.index.path(row), too_small(height, width, side, pairs.index.scale)))
    if small:
        path, why = small[0]
        more = f" ({len(small)} of {len(pairs.index)} pictures are too small)" if len(small) > 1 else ""
        raise UserError(f"{path}: {why}, or take the picture out{more}", code="too_small", file=path, field="patch_size")
