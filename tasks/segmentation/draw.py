"""Class ids as colours: over a picture, beside the truth, in training batches and in answers."""

from functools import lru_cache

import numpy as np
from PIL import Image
from skimage.color import rgb2lab

from visionloop.datasets.mask_values import IGNORED
from visionloop.tasks.canvas import PLAIN, fit_to, grid, with_caption
from visionloop.tasks.segmentation.legend import with_legend

# far apart on any picture, the first ones most; classes beyond these get what is left between them. Dark ones come late: brown is what
# orange looks like over a dark part of a picture
COLORS = (
    (45, 125, 230), (255, 140, 40), (60, 180, 75), (225, 50, 70), (255, 220, 60), (150, 80, 210), (70, 215, 225), (250, 140, 190),
    (175, 230, 70), (220, 60, 190), (20, 130, 125), (190, 170, 255), (150, 90, 45), (255, 205, 160), (140, 25, 50), (40, 60, 150),
    (130, 130, 30), (150, 245, 190), (140, 145, 155), (15, 95, 45),
)  # fmt: skip
SIDE = 300  # longer side of a picture in a grid
MOST_TRAINING, MOST_TRIPLES = 12, 8  # pictures in a grid
COMPARED = 0.75  # strength of colours beside the bare picture
SMALLEST_ANSWER, LARGEST_ANSWER = 640, 1600  # longer side
GAP = 6


def class_colors(classes, colors=None):
    """uint8 [K, 3]: the given colours, or those of a fixed list, where class i has the same one for any number of classes."""
    if colors is not None:
        return np.asarray(colors, dtype=np.uint8)
    return spread_colors()[: len(classes)].copy()


@lru_cache
def spread_colors(count=255):
    """uint8 [count, 3]: COLORS, then always the colour that is farthest from all before it, neither dark, pale nor grey."""
    steps = np.linspace(16, 248, 9).round()
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    places = rgb2lab(candidates / 255)
    usable = (places[:, 0] > 36) & (places[:, 0] < 92) & (np.hypot(places[:, 1], places[:, 2]) > 12)
    candidates, places = candidates[usable], places[usable]
    chosen = [np.array(color) for color in COLORS]
    distances = np.linalg.norm(places[:, None] - rgb2lab(np.array(COLORS) / 255), axis=2).min(axis=1)
    while len(chosen) < count:
        farthest = distances.argmax()
        chosen.append(candidates[farthest])
        distances = np.minimum(distances, np.linalg.norm(places - places[farthest], axis=1))
    return np.array(chosen, dtype=np.uint8)


def color_picture(ids, colors):
    """uint8 [H, W, 3]: each id as its colour, what is no class black. ids: uint8 [H, W]; colors: uint8 [K, 3]."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colors)] = colors
    return table[ids]


def overlay(picture, ids, colors, strength=0.55):
    """The picture with each class's colour over it, and a line in the full colour along both sides of a border.

    picture: uint8 [H, W, 3]; ids: uint8 [H, W], 255 makes dark; strength: 0 the bare picture, 1 colours alone.
    """
    paint = color_picture(ids, colors)
    share = round(256 * strength)
    mixed = ((picture.astype(np.uint16) * (256 - share) + paint.astype(np.uint16) * share) >> 8).astype(np.uint8)
    lines = borders(ids, thickness=1 if max(ids.shape) <= 1000 else 2)
    mixed[lines] = paint[lines]
    return mixed


def borders(ids, thickness=1):
    """bool [H, W]: pixels at most `thickness` away, along a row or a column, from one of another id."""
    found = np.zeros(ids.shape, dtype=bool)
    for step in range(1, thickness + 1):
        for here, there in ((np.s_[step:], np.s_[:-step]), (np.s_[:, step:], np.s_[:, :-step])):
            differ = ids[here] != ids[there]
            found[here] |= differ
            found[there] |= differ
    return found


def draw_batch(batch, predictions, classes, colors):
    """{"batch": grid} of a training batch with its ids; {"predictions": grid} of picture, truth and prediction side by side otherwise.

    batch: "pixel_values" uint8 [3, h, w] and "ids" uint8 [H, W] of each picture, stacked or in a list; predictions: {"ids": list of
    uint8 [H, W]}; colors: uint8 [K, 3].
    """
    tiles, pixels = [], np.zeros(256, dtype=np.int64)
    for i in range(min(len(batch["ids"]), MOST_TRAINING if predictions is None else MOST_TRIPLES)):
        picture = fit_to(batch["pixel_values"][i].permute(1, 2, 0).cpu().numpy(), longest=SIDE)
        truth = batch["ids"][i].cpu().numpy()
        pixels += np.bincount(truth.ravel(), minlength=256)
        if predictions is None:
            tiles.append(overlay(picture, fit_ids(truth, picture), colors))
            continue
        found = predictions["ids"][i].cpu().numpy()
        pixels += np.bincount(found.ravel(), minlength=256)
        tiles.append(draw_triple(picture, truth, found, colors))
    if predictions is None:
        return {"batch": with_legend(grid(tiles), pixels, classes, colors, words=[f"classes in these {len(tiles)} pictures:"])}
    sheet = grid(tiles, columns=1 if len(tiles) < 3 else 2)
    return {"predictions": with_legend(sheet, pixels, classes, colors, words=["left: picture, middle: truth, right: prediction"])}


def draw_triple(picture, truth, found, colors):
    """Picture, truth and prediction side by side, with the share of right pixels below: uint8 [h, w, 3].

    picture: uint8 [H, W, 3]; truth, found: uint8 ids of one size, of any resolution.
    """
    gap = np.full((picture.shape[0], GAP, 3), 255, dtype=np.uint8)
    left, right = (overlay(picture, fit_ids(ids, picture), colors, COMPARED) for ids in (truth, found))
    known = truth != IGNORED
    line = f"{100 * (truth == found)[known].mean():.1f} % of the pixels right" if known.any() else "no pixel with a known class"
    return with_caption(np.concatenate([picture, gap, left, gap, right], axis=1), [line], color=PLAIN)


def draw_answer(picture, ids, classes, colors):
    """uint8 [h, w, 3]: the picture with its classes over it, and each one's share of the pixels below.

    picture: uint8 [H, W, 3]; ids: uint8 [H, W]. The longer side becomes 640 to 1600 pixels.
    """
    shown = fit_to(picture, longest=int(np.clip(max(ids.shape), SMALLEST_ANSWER, LARGEST_ANSWER)))
    drawn = overlay(shown, fit_ids(ids, shown), colors)
    return with_legend(drawn, np.bincount(ids.ravel(), minlength=256), classes, colors, shares=True)


def fit_ids(ids, picture):
    """uint8 [h, w]: ids at the size of a picture [h, w, 3], never mixed."""
    return np.array(Image.fromarray(ids).resize((picture.shape[1], picture.shape[0]), Image.Resampling.NEAREST))
