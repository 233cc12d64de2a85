"""The operating point of a model: a score threshold for each class, in config.json and on the card.

`evaluate --operating-point` chooses it from the matches of the validation images, and `predict`
uses it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from visionloop.engine.checkpoints.files import replace_file
from visionloop.engine.errors import UserError
from visionloop.metrics.operating_point import OperatingPoint, ThresholdRule

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from visionloop.engine.types import JsonObject

KEY = "visionloop_operating_point"  # in config.json
CARD, HEADING = "README.md", "## Operating point"
MOST_NAMES = 8  # classes in a line


@dataclass(frozen=True)
class ScoreThresholds:
    """The smallest score of a prediction, by class.

    Attributes:
        values: of each class, in order of label.
        chosen: True for each class whose threshold is given or in config.json; () for none.
        note: a line about those of config.json, else None.
    """

    values: tuple[float, ...]
    chosen: tuple[bool, ...] = ()
    note: str | None = None

    def reached(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return which predictions have the score of their class, bool of the same shape."""
        return scores >= torch.tensor(self.values, dtype=scores.dtype)[labels]


def thresholds_of(
    model_config: PretrainedConfig, classes: Sequence[str], given: float | None, default: float
) -> ScoreThresholds:
    """Return the thresholds of `predict`: the one that is given, or else those of config.json.

    Args:
        model_config: of the trained model.
        classes: names in order of label.
        given: of all classes, None where it is not given.
        default: of classes without a threshold.

    Raises:
        UserError: the entry is not one of `save_operating_point`.
    """
    content = getattr(model_config, KEY, None)
    if given is not None or content is None:
        every, number = default if given is None else given, len(classes)
        return ScoreThresholds((every,) * number, (True,) * number if given is not None else ())
    try:
        rule, rows = str(content["rule"]), list(content["classes"])
        values = [None if row["score"] is None else float(row["score"]) for row in rows]
    except (KeyError, TypeError, ValueError):
        values = []
    if len(values) != len(classes):
        raise UserError(
            f"config.json: {KEY}: expected the rule and a score for each of the {len(classes)} "
            "classes; `evaluate --operating-point` writes it again",
            field=KEY,
        )
    chosen = [value for value in values if value is not None]
    span = f"{min(chosen):.3f} to {max(chosen):.3f}" if chosen else "none"
    note = f"score thresholds by class of the operating point {rule} ({span})"
    without = [name for name, value in zip(classes, values, strict=True) if value is None]
    if without:
        note += f", {default:g} for {listed(without)}"
    return ScoreThresholds(
        tuple(default if value is None else value for value in values),
        tuple(value is not None for value in values),
        f"{note}; --score replaces them",
    )


def forget_operating_point(model_config: PretrainedConfig) -> None:
    """Remove the thresholds of a model that is going to be trained: its scores will change."""
    if hasattr(model_config, KEY):
        delattr(model_config, KEY)


def save_operating_point(
    folder: str | Path,
    points: Sequence[OperatingPoint],
    classes: Sequence[str],
    rule: ThresholdRule,
    images: int,
) -> list[str]:
    """Write the thresholds into config.json and the model card of a folder.

    Args:
        folder: of the model.
        points: of each class, in order of label.
        classes: names in order of label.
        rule: that chose them.
        images: number of validation images.

    Returns:
        Lines about them: a table, and a line for classes without a threshold.
    """
    rows: list[JsonObject] = [
        {
            "label": name,
            "score": point.threshold,
            "precision": None if math.isnan(point.precision) else point.precision,
            "recall": None if math.isnan(point.recall) else point.recall,
            "f1": None if math.isnan(point.f1) else point.f1,
            "objects": point.objects,
        }
        for name, point in zip(classes, points, strict=True)
    ]
    content = {"rule": str(rule), "iou": 0.5, "images": images, "classes": rows}
    path = Path(folder) / "config.json"
    config = json.loads(path.read_text()) | {KEY: content}
    replace_file(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
    write_card_section(folder, content)
    return [*table_of(rows), *warnings_of(rows, rule)]


def copy_to_card(folder: str | Path) -> None:
    """Write the operating point of config.json, if it has one, into the card beside it."""
    content = json.loads((Path(folder) / "config.json").read_text()).get(KEY)
    if content is not None:
        write_card_section(folder, content)


def write_card_section(folder: str | Path, content: JsonObject) -> None:
    """Write the operating point into the model card, in the place of an earlier one.

    Args:
        folder: of the model; without a card nothing is written.
        content: of KEY in config.json.
    """
    path = Path(folder) / CARD
    if not path.is_file():
        return
    before, _, rest = path.read_text().partition(f"\n{HEADING}\n")
    after = rest.partition("\n## ")
    rows = "".join(f"| {row['label']} | {' | '.join(cells(row))} |\n" for row in content["classes"])
    section = (
        f"\n{HEADING}\n\nThe score from which a prediction of a class counts, chosen on "
        f"{content['images']} validation images by {content['rule']}, with matches from IoU "
        f"{content['iou']} on; `{KEY}` in config.json.\n\n"
        f"| class | score | precision | recall | F1 | objects |\n|---|---|---|---|---|---|\n{rows}"
    )
    replace_file(path, before.rstrip("\n") + "\n" + section + "".join(after[1:]))


def cells(row: JsonObject) -> list[str]:
    """Return score, precision, recall, F1 and objects of a class as texts."""
    shares = [
        "-" if row[name] is None else f"{100 * row[name]:.2f} %"
        for name in ("precision", "recall", "f1")
    ]
    score = "-" if row["score"] is None else f"{row['score']:.4f}"
    return [score, *shares, str(row["objects"])]


def table_of(rows: Sequence[JsonObject]) -> list[str]:
    """Return the lines of a table for people."""
    head = ("class", "score from", "precision", "recall", "F1", "objects")
    table = [head, *((str(row["label"]), *cells(row)) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    return [
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        )
        for line in table
    ]


def warnings_of(rows: Sequence[JsonObject], rule: ThresholdRule) -> list[str]:
    """Return a line for each reason why classes keep the default score of predict."""
    reasons = {
        "no object in these images": [row for row in rows if not row["objects"]],
        "no prediction with a match" if rule.goal == "f1" else f"no score reaches {rule}": [
            row for row in rows if row["objects"]
        ],
    }
    lines = []
    for reason, chosen in reasons.items():
        names = [str(row["label"]) for row in chosen if row["score"] is None]
        if names:
            lines.append(f"warning: {reason}: {listed(names)}: predict keeps its default score")
    return lines


def listed(names: Sequence[str]) -> str:
    """Return names with commas between them, the first ones of many."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more
