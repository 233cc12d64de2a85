"""Model zoo of semantic segmentation. Imports no torch: models are listed before one is built."""

from visionloop.tasks.segmentation.model_zoo import model_zoo
from visionloop.tasks.segmentation.recipes import SEMANTIC
from visionloop.tasks.segmentation.semantic.config import SemanticConfig
from visionloop.tasks.segmentation.semantic.scores import METRICS

MODEL_ZOO = model_zoo("segmentation", SemanticConfig, SEMANTIC, METRICS)
