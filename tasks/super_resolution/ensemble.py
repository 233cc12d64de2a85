"""Self-ensemble: the mean answer to the eight flips and turns of a picture.

Source: arXiv 1707.02921 (EDSR), section 3.4, "geometric self-ensemble".
"""

TURNS = 8  # the symmetries of a square


def turn(pixels, k):
    """pixels [..., H, W] in one of eight ways: 1 flips columns, 2 flips rows, then 4 swaps rows and columns; 0 leaves all as it is."""
    if k & 1:
        pixels = pixels.flip(-1)
    if k & 2:
        pixels = pixels.flip(-2)
    return pixels.mT if k & 4 else pixels


def turn_back(pixels, k):
    """What `turn` undoes: turn_back(turn(x, k), k) is x."""
    if k & 4:
        pixels = pixels.mT
    if k & 2:
        pixels = pixels.flip(-2)
    return pixels.flip(-1) if k & 1 else pixels


def mean_over_turns(module, pixels, count=TURNS):
    """The picture that `module` answers, float [B, 3, s*H, s*W], as the mean over the first `count` turns; 1: the plain answer.

    pixels: float [B, 3, H, W]. A mean of floats, before anything is clamped or rounded. Costs `count` forwards; two pictures are held.
    """
    total = module(pixels)["sr"]
    for k in range(1, count):
        total = total + turn_back(module(turn(pixels, k).contiguous())["sr"], k)
    return total / count
