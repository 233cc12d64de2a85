"""The function of `--augment`, for the training set of a task."""

from visionloop.datasets.augmentation.function import AugmentError, UserFunction
from visionloop.engine.config.train_config import TaskConfig
from visionloop.engine.errors import UserError


def user_function(config: TaskConfig) -> UserFunction | None:
    """Read the function that the settings name, None without one. Raises UserError."""
    if config.augment is None:
        return None
    try:
        return UserFunction(config.augment)
    except AugmentError as error:
        file = config.augment.rpartition(":")[0]
        raise UserError(str(error), code=error.code, field="augment", file=file or None) from None
