"""How long each joint block's queries stay inside their masks: a pure function of the step.

Source: `mask_annealing` in training/lightning_module.py and the configs of `tue-mps/eomt`.
"""

import struct
from dataclasses import dataclass

from visionloop.engine.errors import UserError

POWER = 0.9
WORDS = ("auto", "off", "on")
EXPECTED = (
    "expected auto, off, on, or START-END for each joint block, as shares of the run or as steps"
)


@dataclass(frozen=True)
class MaskAnnealing:
    """spans: for each joint block (start, end): masked before the start, never after the end. As shares of the run, or as steps."""

    spans: tuple[tuple[float, float], ...]
    in_steps: bool = False

    def probabilities(self, step, steps):
        """[p of block 0, p of block 1, ...] for this step of the run: 1, then (1 - progress)^0.9, then 0.

        As float32 holds them, so that what a checkpoint stores is what the run goes on with.
        """
        scale = 1 if self.in_steps else steps
        return [
            _as_float32(_probability(step, start * scale, end * scale)) for start, end in self.spans
        ]


def parse_annealing(text, num_blocks):
    """The MaskAnnealing that `--mask-annealing` names for a model with so many joint blocks. Raises UserError.

    auto: the authors' spans, a sixth of the run each: block 0 from 1/6 on, the last from 4/6 on,
    the others evenly between, so that the last sixth trains without masks.
    """
    if text == "auto":
        starts = [1 / 6 + 0.5 * block / max(1, num_blocks - 1) for block in range(num_blocks)]
        return MaskAnnealing(tuple((start, start + 1 / 6) for start in starts))
    if text in WORDS:
        span = (0.0, 0.0) if text == "off" else (float("inf"), float("inf"))
        return MaskAnnealing((span,) * num_blocks, in_steps=True)
    try:
        spans = tuple(
            tuple(float(number) for number in part.split("-")) for part in text.split(",")
        )
        if any(len(span) != 2 or not 0 <= span[0] <= span[1] for span in spans):
            raise ValueError
    except ValueError:
        raise UserError(
            f"--mask-annealing: {EXPECTED}, got {text!r}", field="mask_annealing"
        ) from None
    if len(spans) != num_blocks:
        why = f"{EXPECTED}; this model has {num_blocks} joint blocks, got {len(spans)} spans"
        raise UserError(f"--mask-annealing: {why}", field="mask_annealing")
    return MaskAnnealing(spans, in_steps=any(end > 1 for _, end in spans))


def _probability(step, start, end):
    if step < start:
        return 1.0
    if step >= end:
        return 0.0
    return (1 - (step - start) / (end - start)) ** POWER


def _as_float32(number):
    return struct.unpack("f", struct.pack("f", number))[0]
