"""`--precision auto`: chosen once per run, by the main rank, and kept wherever the run resumes."""

from __future__ import annotations

from visionloop.engine.config.options import AUTO, Setting, Settings, SettingSource
from visionloop.engine.distributed import World, broadcast_object
from visionloop.engine.system.kernels import choose_precision
from visionloop.engine.task import Task
from visionloop.engine.types import JsonObject


def resolve_precision(
    task: Task, raw_settings: Settings, world: World, stored: JsonObject
) -> Settings:
    """Return the settings with a precision in the place of auto. All ranks agree.

    Args:
        task: of the run.
        raw_settings: of the command line; a precision that is given stays.
        world: the processes of the run.
        stored: the run's settings.json, {} for a new run; see `stored_at_start`.
    """
    if raw_settings["precision"].value != AUTO:
        return raw_settings
    if "precision" in stored:
        value, reason = stored["precision"]["value"], stored["precision"].get("reason")
    else:
        widths = task.layer_widths()  # on all ranks: its error is the same on all
        chosen = choose_precision(world.device, widths) if world.is_main else ("", "")
        value, reason = broadcast_object(world, chosen)
    return raw_settings | {"precision": Setting(value, SettingSource.AUTO, reason=reason)}


def stored_at_start(stored: JsonObject, state: JsonObject | None) -> JsonObject:
    """Return the settings of a run with the precision of the checkpoint that it resumes from.

    The checkpoint may be of another folder, or of a run whose precision was the default of its
    time.

    Args:
        stored: the run's settings.json.
        state: state.json of the checkpoint; None: the run begins, and nothing is stored.
    """
    if state is None:
        return {}
    value = state["settings"]["precision"]
    if value == stored.get("precision", {}).get("value"):
        return stored
    return stored | {"precision": Setting(value, SettingSource.AUTO).as_json()}


def precision_line(setting: Setting, *, resumed: bool = False) -> str | None:
    """Return the line that says which precision auto is and why; None for one that was given."""
    if setting.source != SettingSource.AUTO:
        return None
    reason = setting.reason
    if resumed:  # the reason may be about another machine
        reason = f'as the run began ("{reason}")' if reason else "as the run began"
    return f"precision {setting.value}: {reason}"
