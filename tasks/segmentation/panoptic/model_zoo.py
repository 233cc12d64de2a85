"""Model zoo of panoptic segmentation. Imports no torch: models are listed before one is built."""

from visionloop.tasks.segmentation.model_zoo import model_zoo
from visionloop.tasks.segmentation.panoptic.config import PanopticConfig
from visionloop.tasks.segmentation.panoptic.scores import METRICS
from visionloop.tasks.segmentation.recipes import PANOPTIC

MODEL_ZOO = model_zoo("panoptic_segmentation", PanopticConfig, PANOPTIC, METRICS)
