"""Training pictures with their boxes, predictions beside the truth, answers of `predict`."""

import numpy as np
from PIL import Image

from visionloop.tasks.canvas import PLAIN, RIGHT, fit_to, grid, with_caption
from visionloop.tasks.detection.frames import COLORS, SPARSE, draw_boxes, with_legend

SIDE = 400  # longer side of a picture in a grid
PAIR_SIDE, NARROWEST_PAIR = 317, 300  # longer side of each of a pair, and the width that the words below one need
MOST_TRAINING = 12  # pictures in a grid
SHOWN_SCORE = 0.4  # predictions from here on are drawn
PAIR_WORDS = ("left: truth, dashed: missed", f"right: found with a score from {SHOWN_SCORE}, dashed: too many")
SAME_OBJECT = 0.5  # IoU
SMALLEST_ANSWER, LARGEST_ANSWER = 640, 1600  # longer side


def draw_batch(batch, classes):
    """uint8 [H, W, 3]: training pictures as the network sees them, with their boxes; targets are cxcywh in 0..1 of them."""
    tiles, labels = [], []
    pictures = batch["pixel_values"][:MOST_TRAINING].permute(0, 2, 3, 1).cpu().numpy()
    for pixels, target in zip(pictures, batch["targets"][:MOST_TRAINING], strict=True):
        picture = fit_to(pixels, longest=SIDE)
        boxes = target["boxes"].cpu().numpy().astype(np.float64) * np.tile([picture.shape[1], picture.shape[0]], 2)
        corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)
        labels.append(target["class_labels"].cpu().numpy())
        tiles.append(draw_boxes(picture, corners, labels[-1], classes, names=not told_by_color(range(len(classes)))))
    return with_legend(grid(tiles), np.concatenate(labels), classes, words=[f"boxes in these {len(tiles)} pictures:"])


def draw_samples(batch, predictions, classes):
    """One uint8 [h, w, 3] per picture of an evaluation's batch, at most 640 px wide: the truth on the left, what was found on the right.

    On both sides a dashed box has no partner: missed on the left, too many on the right.
    """
    host = {key: predictions[key].detach().float().cpu().numpy() for key in ("boxes", "scores", "labels")}
    pictures, drawn = batch["pixel_values"].permute(0, 2, 3, 1).cpu().numpy(), []
    for i, (pixels, size_hw) in enumerate(zip(pictures, batch["sizes"].tolist(), strict=True)):
        shown = host["scores"][i] >= SHOWN_SCORE
        found = {"boxes": host["boxes"][i][shown], "scores": host["scores"][i][shown], "labels": host["labels"][i][shown].astype(np.int64)}
        pair = draw_pair(pixels, size_hw, batch["truth"][i], found, classes)
        pair = np.pad(pair, ((0, 0), (0, max(0, NARROWEST_PAIR - pair.shape[1])), (0, 0)), constant_values=255)
        labels = np.concatenate([batch["truth"][i]["labels"], found["labels"]])
        drawn.append(with_legend(pair, labels, classes, words=PAIR_WORDS, counted=False))
    return drawn


def draw_pair(pixels, size_hw, truth, found, classes):
    """Truth and predictions side by side, with the count below: uint8 [h, w, 3].

    pixels: uint8 [S, S, 3], squashed from a picture of size_hw; truth: as in the batch; found: "boxes" [N, 4] xyxy in pixels of the
    picture, "scores", "labels" [N].
    """
    scale = PAIR_SIDE / max(size_hw)
    size_wh = max(1, round(size_hw[1] * scale)), max(1, round(size_hw[0] * scale))
    picture = np.array(Image.fromarray(pixels).resize(size_wh, Image.Resampling.BICUBIC))
    corners = np.concatenate([truth["boxes"][:, :2], truth["boxes"][:, :2] + truth["boxes"][:, 2:]], axis=1)
    hit, used = find_partners(corners, truth["labels"], truth["crowd"], found)
    names = not told_by_color(range(len(classes)))
    left = draw_boxes(picture, corners * scale, truth["labels"], classes, dashed=~hit, names=names)
    right = draw_boxes(picture, found["boxes"] * scale, found["labels"], classes, found["scores"], dashed=~used, names=names)
    wanted, too_many = ~truth["crowd"], int((~used).sum())
    line = f"found {int((hit & wanted).sum())} of {int(wanted.sum())}, {too_many} too many at IoU {SAME_OBJECT:g}"
    gap = np.full((picture.shape[0], 6, 3), 255, dtype=np.uint8)
    is_right = hit[wanted].all() and not too_many
    return with_caption(np.concatenate([left, gap, right], axis=1), [line], color=RIGHT if is_right else PLAIN)


def told_by_color(labels):
    """Whether the colours of these classes differ enough for a legend to do without names at the boxes."""
    return max(labels, default=0) < len(COLORS)


def find_partners(boxes, labels, crowd, found):
    """(hit bool [T], used bool [N]): the best prediction first takes the free box of its class that it overlaps most, from IoU 0.5 on.

    boxes: [T, 4] xyxy; found: "boxes" xyxy, "scores", "labels". A crowd is never missed, and what lies in one is not too many.
    """
    hit, used = crowd.copy(), np.zeros(len(found["boxes"]), dtype=bool)
    overlap = overlaps(found["boxes"], boxes, crowd) * (found["labels"][:, None] == labels)
    for i in np.argsort(-found["scores"], kind="stable"):
        free = np.where(hit & ~crowd, 0, overlap[i])
        wanted = np.where(crowd, 0, free)
        if wanted.max(initial=0) >= SAME_OBJECT:
            hit[wanted.argmax()] = used[i] = True
        elif free.max(initial=0) >= SAME_OBJECT:
            used[i] = True
    return hit, used


def overlaps(found, boxes, crowd):
    """float [N, T]: intersection over union, with a crowd over the prediction's own area. Both: xyxy."""
    sides = np.minimum(found[:, None, 2:], boxes[:, 2:]) - np.maximum(found[:, None, :2], boxes[:, :2])
    common = sides.clip(0).prod(axis=2)
    own, others = (found[:, 2:] - found[:, :2]).prod(axis=1)[:, None], (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return common / np.maximum(np.where(crowd, own, own + others - common), 1e-9)


def draw_answer(picture, answer):
    """picture: uint8 [3, H, W]; answer: {"detections": [{"label", "id", "score", "box": [x, y, w, h]}, ..]} -> uint8 [h, w, 3].

    Detections with a score from 0.4 on, whatever else the answer holds. The longer side becomes 640 to 1600 pixels; below stands how many
    of each class there are.
    """
    longest = max(picture.shape[1:])
    shown = fit_to(picture.permute(1, 2, 0).numpy(), longest=int(np.clip(longest, SMALLEST_ANSWER, LARGEST_ANSWER)))
    rows = [row for row in answer["detections"] if row["score"] >= SHOWN_SCORE]
    boxes = np.array([row["box"] for row in rows], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes *= np.tile([shown.shape[1] / picture.shape[2], shown.shape[0] / picture.shape[1]], 2)
    labels, classes = [row["id"] for row in rows], {row["id"]: row["label"] for row in rows}
    names = len(rows) <= SPARSE or not told_by_color(labels)
    drawn = draw_boxes(shown, boxes, labels, classes, [row["score"] for row in rows], names=names)
    if drawn.shape[1] < SMALLEST_ANSWER // 4:  # a narrow picture: room for the words
        drawn = np.pad(drawn, ((0, 0), (0, SMALLEST_ANSWER // 4 - drawn.shape[1]), (0, 0)), constant_values=255)
    return with_legend(drawn, labels, classes, words=() if rows else [f"nothing found with a score from {SHOWN_SCORE}"])
