"""Training pictures with their labels, predictions beside the truth, the confusion matrix."""

import numpy as np
from PIL import Image, ImageDraw

from visionloop.tasks.canvas import INK, PAPER, PLAIN, RIGHT, WRONG, class_label, fit_to, font_for, grid, text_on, with_caption

SIDE = 128  # of a picture in a grid of training pictures
SAMPLE_SIDE = 224  # of a picture with its answer
MOST = 36  # pictures in a grid
ANSWER_SIDE = 320  # longer side of a labelled picture
MOST_ROOM = 170  # pixels for a class name beside the confusion matrix
DARK = np.array((8, 48, 107))  # where a confusion cell holds the whole row


def draw_batch(batch, classes):
    """uint8 [H, W, 3]: a training batch with its labels."""
    pictures, labels = pictures_of(batch, SIDE, MOST), batch["labels"][:MOST].tolist()
    named = [[class_label(label, classes, room=SIDE - 8)] for label in labels]
    return grid([with_caption(picture, lines) for picture, lines in zip(pictures, named, strict=True)])


def draw_samples(batch, predictions, classes):
    """One uint8 [h, w, 3] per picture with the answer below in the colour of right or wrong, and the truth where it is wrong."""
    chosen, room, tiles = predictions["logits"].argmax(dim=1).tolist(), SAMPLE_SIDE - 8, []
    for picture, label, guess in zip(pictures_of(batch, SAMPLE_SIDE), batch["labels"].tolist(), chosen, strict=True):
        lines = [class_label(guess, classes, room=room), "" if guess == label else f"is {class_label(label, classes, room=room - 16)}"]
        tiles.append(with_caption(picture, lines, color=RIGHT if guess == label else WRONG))
    return tiles


def pictures_of(batch, side, most=None):
    """The first `most` pictures of a batch, None: all, as uint8 [h, w, 3] with a longer side of `side` pixels."""
    return [fit_to(picture, longest=side) for picture in batch["pixel_values"][:most].permute(0, 2, 3, 1).cpu().numpy()]


def draw_answer(picture, answer):
    """picture: uint8 [3, H, W]; answer: one row of `describe` -> uint8 [h, w, 3] with the label and the runners-up below."""
    shown = fit_to(picture.permute(1, 2, 0).numpy(), longest=ANSWER_SIDE)
    if shown.shape[1] < ANSWER_SIDE // 2:  # a narrow picture: room for the words
        margin = ANSWER_SIDE // 2 - shown.shape[1]
        shown = np.pad(shown, ((0, 0), (0, margin), (0, 0)), constant_values=255)
    lines = []
    for row in answer["top5"][:3]:
        name = class_label(row["id"], {row["id"]: row["label"]}, size=14, room=shown.shape[1] - 70)
        lines.append(f"{name}  {100 * row['score']:.1f} %")
    return with_caption(shown, lines, color=PLAIN, size=14)


def draw_confusion(confusion, classes):
    """confusion: int [C, C], rows are the truth -> uint8 [H, W, 3]. Colour: share of the row; counts where there is room for them."""
    num_classes = len(classes)
    cell = int(np.clip(900 / num_classes, 12, 48))
    size = min(14, cell - 1)
    named = num_classes <= 100  # beyond, names would overlap
    names = [class_label(i, classes, size=size, room=MOST_ROOM) for i in range(num_classes)] if named else []
    margin = 40 + max((round(font_for(name, size).getlength(name)) for name in names), default=0)  # 40: the two lines in the corner
    side = cell * num_classes
    image = Image.new("RGB", (margin + side + 12, margin + side + 12), PAPER)
    draw = ImageDraw.Draw(image)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    colors = (255 + (DARK - 255) * share[..., None] ** 0.7).astype(np.uint8)  # small errors must be seen
    image.paste(Image.fromarray(colors).resize((side, side), Image.Resampling.NEAREST), (margin, margin))
    for i in range(num_classes + 1 if cell > 8 else 0):
        at = margin + i * cell
        draw.line((at, margin, at, margin + side), fill=(225, 225, 225))
        draw.line((margin, at, margin + side, at), fill=(225, 225, 225))
    if cell >= 24:
        for row, column in zip(*np.nonzero(confusion), strict=True):
            color = PAPER if share[row, column] > 0.4 else INK
            center = margin + column * cell + cell // 2, margin + row * cell + cell // 2
            smaller = 4 if confusion[row, column] >= 1000 else 0
            text_on(draw, center, str(confusion[row, column]), size=size - smaller, color=color, anchor="mm")
    for i, name in enumerate(names):
        _draw_name(image, name, margin, margin + i * cell + cell // 2, size)
    text_on(draw, (6, 6), "rows: truth", size=12)
    text_on(draw, (6, 22), "columns: prediction", size=12)
    return np.array(image)


def _draw_name(image, name, margin, center, size):
    """The same name left of row and, turned by 90 degrees, above column `center`."""
    text_on(ImageDraw.Draw(image), (margin - 5, center), name, size=size, anchor="rm")
    strip = Image.new("RGB", (margin - 40, size), PAPER)  # no wider than a cell, or it would cover its neighbour
    text_on(ImageDraw.Draw(strip), (0, size // 2), name, size=size, anchor="lm")
    turned = strip.rotate(90, expand=True)
    image.paste(turned, (center - turned.width // 2, margin - 5 - turned.height))
