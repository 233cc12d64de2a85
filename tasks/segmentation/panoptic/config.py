"""Settings of panoptic segmentation, in addition to those of every EoMT.

Imports no torch, so that `--help` starts quickly.
"""

from dataclasses import dataclass

from visionloop.engine.config.options import option
from visionloop.tasks.segmentation.config import EomtConfig


@dataclass(frozen=True)
class PanopticConfig(EomtConfig):
    """Settings of the predictions, besides those of EomtConfig."""

    score: float = option(
        0.8,
        "Class probability above which a query becomes a segment; a model that has trained for a"
        " short time needs 0.5",
        group="Evaluation",
        at_least=0,
        at_most=1,
        fixed=False,
    )
    overlap: float = option(
        0.8,
        "Share of its own mask that a segment must keep where masks overlap, or it is dropped",
        group="Evaluation",
        at_least=0,
        at_most=1,
        fixed=False,
    )
