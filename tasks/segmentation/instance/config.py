"""Settings of instance segmentation, in addition to those of every EoMT.

Imports no torch, so that `--help` starts quickly.
"""

from dataclasses import dataclass

from visionloop.engine.config.options import option
from visionloop.tasks.segmentation.config import EomtConfig


@dataclass(frozen=True)
class InstanceConfig(EomtConfig):
    """Settings of the predictions, besides those of EomtConfig."""

    score: float = option(
        0.5,
        "Smallest score of the instances that predict writes; the scores of an evaluation count the"
        " best 100 of each image",
        group="Evaluation",
        at_least=0,
        at_most=1,
        fixed=False,
    )
