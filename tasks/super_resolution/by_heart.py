"""Pictures to learn by heart: of each the part with most detail, as large as a training crop."""

from visionloop.engine.errors import UserError
from visionloop.metrics.image_quality import psnr
from visionloop.tasks.super_resolution.draw import busiest_part, to_array


def cut_lesson(sample, side, scale):
    """A sample of evaluation -> its part with most detail, with "pixel_values" [3, side, side] and what belongs to it.

    Whole pictures of a camera would take hours, and the network has room for a few crops.
    """
    rows, columns = busiest_part(to_array(sample["hr"]), scale, side * scale)
    large = tuple(slice(scale * one.start, scale * one.stop) for one in (rows, columns))
    parts = {name: sample[name][:, *large].contiguous() for name in ("hr", "bicubic")}
    return sample | parts | {"pixel_values": sample["pixel_values"][:, rows, columns].contiguous()}


def require_pairs(samples, border):
    """UserError where a small picture tells less of its large one than a single colour would. samples: of evaluation, whole pictures.

    A network learns a few wrong pairs by heart too, a little later, and beats the bicubic of wrong pictures at once (measured): what it
    reaches would say nothing about the pairs.
    """
    strange = []
    for sample in samples:
        large, enlarged = to_array(sample["hr"]), to_array(sample["bicubic"])
        plain = large.mean(axis=(0, 1), keepdims=True).round().astype(large.dtype).repeat(large.shape[0], 0).repeat(large.shape[1], 1)
        scores = [psnr(picture, large, border=border) for picture in (enlarged, plain)]
        if scores[0] < scores[1]:
            strange.append(scores)
    if strange:
        enlarged, plain = strange[0]
        raise UserError(
            f"{len(strange)} of {len(samples)} small pictures, enlarged, are further from their large ones than a single colour is "
            f"(the first: PSNR {enlarged:.2f}, a single colour {plain:.2f}); do they belong to other pictures?"
        )
