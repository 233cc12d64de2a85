"""Restoration modes: the degradation of the input, and the border that scores leave out."""

from transformers import PreTrainedConfig

from visionloop.datasets.super_resolution.degradations import GaussianNoise, Jpeg
from visionloop.engine.errors import UserError
from visionloop.tasks.super_resolution.config import SuperResolutionConfig

# {mode: (degradation of the input, the setting of its strength)}; the input of other modes is clean
DEGRADATIONS: dict[str, tuple[type[GaussianNoise] | type[Jpeg], str]] = {
    "denoise": (GaussianNoise, "noise"),
    "jpeg": (Jpeg, "quality"),
    "compressed": (Jpeg, "quality"),
}


def build_degradation(config: SuperResolutionConfig) -> GaussianNoise | Jpeg | None:
    """Return the degradation of a mode, None for clean input.

    Raises:
        UserError: --noise or --quality is neither a number nor a range.
    """
    if config.mode not in DEGRADATIONS:
        return None
    degradation, name = DEGRADATIONS[config.mode]
    try:
        return degradation.from_text(getattr(config, name))
    except ValueError as error:
        raise UserError(f"--{name}: {error}", field=name) from None


def write_mode(network_config: PreTrainedConfig, config: SuperResolutionConfig) -> None:
    """Write the mode and the strength of its degradation into a network's config.

    An evaluation of the saved folder reads them back and degrades its input in the same way.
    """
    network_config.visionloop_mode = config.mode
    if config.mode in DEGRADATIONS:
        name = DEGRADATIONS[config.mode][1]
        setattr(network_config, f"visionloop_{name}", getattr(config, name))


def read_degradation(network_config: PreTrainedConfig) -> dict[str, str]:
    """Return the settings that `write_mode` wrote: {"noise" or "quality": text}."""
    names = {name for _, name in DEGRADATIONS.values()}
    return {
        name: getattr(network_config, f"visionloop_{name}")
        for name in names
        if hasattr(network_config, f"visionloop_{name}")
    }


def border_of(mode: str | None, scale: int) -> int:
    """Return the pixels that scores leave out at each side, as the papers do.

    These are as many as the scale, and none at x1 and for real-world input.
    """
    return 0 if scale == 1 or mode == "real-world" else scale
