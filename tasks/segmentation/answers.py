"""Answers of `predict`: what is said of a picture in json, and its class ids as files that other tools read."""

import numpy as np

from visionloop.tasks.segmentation.draw import color_picture


def describe(predictions, names, classes):
    """[{"file", "width", "height", "classes": [{"label", "id", "share"}, ..]}], one per picture: the classes in it, the largest first.

    predictions: {"ids": list of uint8 [H, W]}; names: of the files; share: of the picture's pixels.
    """
    rows = []
    for name, ids in zip(names, predictions["ids"], strict=True):
        height, width = ids.shape
        pixels = np.bincount(ids.cpu().numpy().ravel(), minlength=len(classes))
        found = [int(i) for i in np.argsort(-pixels, kind="stable") if pixels[i]]
        shares = [{"label": classes[i], "id": i, "share": round(pixels[i].item() / ids.numel(), 6)} for i in found]
        rows.append({"file": name, "width": width, "height": height, "classes": shares})
    return rows


def answer_files(predictions, colors):
    """{"ids": class ids, uint8 [H, W] each, "colors": the same as colours, uint8 [H, W, 3]} of each picture, as numpy arrays.

    Colours are made one by one, as they are asked for. predictions: {"ids": list of uint8 [H, W]}; colors: uint8 [K, 3].
    """
    ids = [one.cpu().numpy() for one in predictions["ids"]]
    return {"ids": ids, "colors": (color_picture(one, colors) for one in ids)}
