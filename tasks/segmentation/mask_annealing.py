"""Mask annealing: the share of queries that each query block masks, as a function of the step.

Source: `mask_annealing` in training/lightning_module.py and the configs of `tue-mps/eomt`.
"""

import struct
from dataclasses import dataclass

from visionloop.engine.errors import UserError

POWER = 0.9
WORDS = ("auto", "off", "on")
EXPECTED = (
    "expected auto, off, on, or START-END for each query block, as shares of the run or as steps"
)


@dataclass(frozen=True)
class MaskAnnealing:
    """The schedule of all query blocks.

    spans: (start, end) of each query block: all queries are masked before the start, none from the
        end on; as shares of the run, or as steps.
    in_steps: True when spans are steps.
    """

    spans: tuple[tuple[float, float], ...]
    in_steps: bool = False

    def probabilities(self, step: int, steps: int) -> list[float]:
        """Return the probability that a query is masked, for each query block.

        It is 1 before the start, then (1 - progress)^0.9, then 0, rounded to float32: a checkpoint
        stores exactly what a resumed run computes with.

        Args:
            step: of the run, 0-based.
            steps: optimizer steps of the whole run.
        """
        scale = 1 if self.in_steps else steps
        return [
            _as_float32(_probability(step, start * scale, end * scale)) for start, end in self.spans
        ]


def parse_mask_annealing(text: str, num_blocks: int) -> MaskAnnealing:
    """Parse `--mask-annealing` for a model with `num_blocks` query blocks.

    auto: the authors' spans, a sixth of the run each: block 0 from 1/6 on, the last from 4/6 on,
    the others evenly between, so that the last sixth trains without masks.

    Raises:
        UserError: the text is no schedule, or it has another number of spans.
    """
    if text == "auto":
        starts = [1 / 6 + 0.5 * block / max(1, num_blocks - 1) for block in range(num_blocks)]
        return MaskAnnealing(tuple((start, start + 1 / 6) for start in starts))
    if text in WORDS:
        span = (0.0, 0.0) if text == "off" else (float("inf"), float("inf"))
        return MaskAnnealing((span,) * num_blocks, in_steps=True)
    try:
        spans = tuple(_parse_span(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--mask-annealing: {EXPECTED}, got {text!r}", field="mask_annealing"
        ) from None
    if len(spans) != num_blocks:
        why = f"{EXPECTED}; this model has {num_blocks} query blocks, got {len(spans)} spans"
        raise UserError(f"--mask-annealing: {why}", field="mask_annealing")
    return MaskAnnealing(spans, in_steps=any(end > 1 for _, end in spans))


def _parse_span(text: str) -> tuple[float, float]:
    """Parse START-END. Raises ValueError."""
    start, end = map(float, text.split("-"))
    if not 0 <= start <= end:
        raise ValueError(text)
    return start, end


def _probability(step: int, start: float, end: float) -> float:
    if step < start:
        return 1.0
    if step >= end:
        return 0.0
    return float((1 - (step - start) / (end - start)) ** POWER)


def _as_float32(number: float) -> float:
    return float(struct.unpack("f", struct.pack("f", number))[0])
