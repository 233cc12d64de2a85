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
        "Smallest score of the instances that predict writes, for all classes (without it: those "
        "of evaluate --operating-point, if config.json has them); an evaluation counts the best "
        "100 of each image",
        group="Evaluation",
        at_least=0,
        at_most=1,
        fixed=False,
    )
