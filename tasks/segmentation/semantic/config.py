"""Settings of semantic segmentation, in addition to those of every EoMT.

Imports no torch, so that `--help` starts quickly.
"""

from dataclasses import dataclass

from visionloop.engine.config.options import option
from visionloop.tasks.segmentation.config import EomtConfig


@dataclass(frozen=True)
class SemanticConfig(EomtConfig):
    """Settings of the evaluation, besides those of EomtConfig."""

    score_levels: bool = option(
        False,
        "Score the predictions of every level, not of the last alone",
        group="Evaluation",
        fixed=False,
    )
