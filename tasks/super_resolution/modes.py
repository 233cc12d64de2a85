"""What the modes differ in besides architecture and recipe: how the input is spoiled, and which border scores leave out."""

from visionloop.datasets.super_resolution.degradations import GaussianNoise, Jpeg
from visionloop.engine.errors import UserError

# mode -> (degradation of the input, the setting that says how much); the others have clean input
DEGRADATIONS = {
    "denoise": (GaussianNoise, "noise"),
    "jpeg": (Jpeg, "quality"),
    "compressed": (Jpeg, "quality"),
}


def build_degradation(config):
    """The degradation of a SuperResolutionConfig, None for clean input. Raises UserError for a range that is none."""
    if config.mode not in DEGRADATIONS:
        return None
    kind, name = DEGRADATIONS[config.mode]
    try:
        return kind.from_text(getattr(config, name))
    except ValueError as error:
        raise UserError(f"--{name}: {error}", field=name) from None


def note_mode(network_config, config):
    """Write the mode, and how much the input is spoiled in it, into a network's config: an evaluation of its folder does the same."""
    network_config.visionloop_mode = config.mode
    if config.mode in DEGRADATIONS:
        name = DEGRADATIONS[config.mode][1]
        setattr(network_config, f"visionloop_{name}", getattr(config, name))


def noted_degradation(network_config):
    """{"noise" or "quality": text} that `note_mode` wrote."""
    names = {name for _, name in DEGRADATIONS.values()}
    return {
        name: getattr(network_config, f"visionloop_{name}")
        for name in names
        if hasattr(network_config, f"visionloop_{name}")
    }


def border_of(mode, scale):
    """Pixels that scores leave out at each side: as many as the scale, none at x1 and for real-world input (recipe of the papers)."""
    return 0 if scale == 1 or mode == "real-world" else scale
