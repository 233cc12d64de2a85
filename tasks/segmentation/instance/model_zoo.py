"""Model zoo of instance segmentation. Imports no torch: models are listed before one is built."""

from visionloop.tasks.segmentation.instance.config import InstanceConfig
from visionloop.tasks.segmentation.instance.scores import METRICS
from visionloop.tasks.segmentation.model_zoo import model_zoo
from visionloop.tasks.segmentation.recipes import INSTANCE

MODEL_ZOO = model_zoo("instance_segmentation", InstanceConfig, INSTANCE, METRICS)
