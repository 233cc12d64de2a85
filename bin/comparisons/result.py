"""The content of a comparison: the scores of every setting, and the difference to the baseline."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from visionloop.bin.comparisons.evidence import CLASS_PREFIX
from visionloop.bin.comparisons.runs import RunGroup
from visionloop.bin.comparisons.verdicts import Text, code_of, notes_of, verdict_of, words_of
from visionloop.engine.evaluation.paired_bootstrap import (
    MIN_SEEDS,
    Difference,
    Draws,
    difference_of,
    draw_seeds,
    holm,
    mean_scores,
    spread,
)
from visionloop.engine.metric import MetricSpec
from visionloop.engine.types import JsonObject, Scores
from visionloop.tasks.coco_scores import AREAS


@dataclass(frozen=True)
class Line:
    """One score of every setting.

    Attributes:
        part: "overall", "size" or "class".
        spec: its description; that of a class has the name as its label.
        scores: of each setting, the mean over its seeds.
        spreads: standard deviation over the seeds; nan for a single run.
        differences: to the baseline, None for the baseline itself.
        codes: the verdicts, None for the baseline.
    """

    part: str
    spec: MetricSpec
    scores: list[float]
    spreads: list[float]
    differences: list[Difference | None]
    codes: list[str | None]


@dataclass(frozen=True)
class Comparison:
    """A comparison of settings on the same images.

    Attributes:
        groups: the settings; baseline: position of the one that the others are compared with.
        images, draws: numbers of them.
        lines: all scores; deciding: position of the line that decides.
        adjusted: p-values of that line, adjusted by Holm; None for the baseline.
        verdicts: a sentence for each setting, None for the baseline.
        notes: what the intervals do not cover.
    """

    groups: Sequence[RunGroup]
    baseline: int
    images: int
    draws: int
    lines: list[Line]
    deciding: int
    adjusted: list[float | None]
    verdicts: list[Text | None]
    notes: list[Text]

    def as_json(self) -> JsonObject:
        """Return the object of `--json`."""
        line = self.lines[self.deciding]
        return {
            "schema": 1,
            "metric": line.spec.key,
            "images": self.images,
            "draws": self.draws,
            "settings": [
                {
                    "name": group.name,
                    "runs": len(group.members),
                    "seeds": list(group.seeds),
                    "covers_seeds": len(group.members) >= MIN_SEEDS,
                    "adjusted_p": self.adjusted[place],
                    "verdict": verdict and {"code": line.codes[place], **verdict},
                }
                for place, (group, verdict) in enumerate(
                    zip(self.groups, self.verdicts, strict=True)
                )
            ],
            "baseline": self.baseline,
            "lines": [line_json(line, self.images) for line in self.lines],
            "notes": self.notes,
        }


def line_json(line: Line, images: int) -> JsonObject:
    """Return the object of one line."""
    spec = line.spec
    return {
        "part": line.part,
        "metric": spec.key.removeprefix(CLASS_PREFIX),
        "label": spec.label,
        "format": spec.format,
        "higher_is_better": spec.higher_is_better,
        "scores": line.scores,
        "spreads": line.spreads,
        "differences": [
            None
            if difference is None or code is None
            else {
                "difference": difference.value,
                "low": difference.low,
                "high": difference.high,
                "p": difference.p_value,
                "detectable": difference.detectable,
                "code": code,
                "words": words_of(difference, spec, code, images),
            }
            for difference, code in zip(line.differences, line.codes, strict=True)
        ],
    }


def compare(
    groups: Sequence[RunGroup],
    baseline: int,
    specs: Sequence[MetricSpec],
    whole: Sequence[Scores],
    drawn: Sequence[Draws],
    images: int,
    deciding: str,
) -> Comparison:
    """Compare settings with a baseline.

    Args:
        groups: the settings.
        baseline: position of the baseline among them.
        specs: of the scores, in the order of the lines.
        whole: scores of each run on all images.
        drawn: scores of each run in every draw, of `draw_scores`.
        images: number of images.
        deciding: key of the score that decides.
    """
    means = [mean_scores([whole[member] for member in group.members]) for group in groups]
    draws = [setting_draws(group, specs, drawn, seed) for seed, group in enumerate(groups, 1)]
    lines: list[Line] = []
    place_of: dict[str, int] = {}
    for spec in specs:
        key = spec.key
        if any(key not in scores for scores in means):
            continue
        differences = [
            None
            if place == baseline
            else difference_of(
                (means[place][key], means[baseline][key]), (draws[place][key], draws[baseline][key])
            )
            for place in range(len(groups))
        ]
        place_of[key] = len(lines)
        lines.append(
            Line(
                part_of(key),
                spec,
                [scores[key] for scores in means],
                [spread([whole[member][key] for member in group.members]) for group in groups],
                differences,
                [None if each is None else code_of(each, spec) for each in differences],
            )
        )
    return judge(groups, baseline, lines, place_of[deciding], images, len(draws[0][deciding]))


def setting_draws(
    group: RunGroup, specs: Sequence[MetricSpec], drawn: Sequence[Draws], seed: int
) -> Draws:
    """Return the scores of a setting in every draw; shares stay in 0..1.

    The spread of few seeds may reach beyond that.
    """
    draws = draw_seeds([drawn[member] for member in group.members], seed=seed)
    shares = {spec.key for spec in specs if spec.format == "percent"}
    return {
        key: np.clip(values, 0, 1) if key in shares else values for key, values in draws.items()
    }


def judge(
    groups: Sequence[RunGroup],
    baseline: int,
    lines: list[Line],
    deciding: int,
    images: int,
    draws: int,
) -> Comparison:
    """Correct the verdicts on the deciding score for their number, and put them into words."""
    line = lines[deciding]
    others = [place for place in range(len(groups)) if place != baseline]
    compared = [line.differences[place] for place in others]
    values = holm([each.p_value for each in compared if each is not None])
    adjusted: list[float | None] = [None] * len(groups)
    verdicts: list[Text | None] = [None] * len(groups)
    for place, difference, p_value in zip(others, compared, values, strict=True):
        assert difference is not None, "the baseline alone has no difference"
        adjusted[place] = p_value
        # of a single comparison the interval alone decides
        code = code_of(difference, line.spec, p_value if len(others) > 1 else None)
        line.codes[place] = code
        names = groups[place].name, groups[baseline].name
        verdicts[place] = verdict_of(names, difference, line.spec, code, images)
    notes = notes_of(groups, (len(lines) - 1) * len(others))
    return Comparison(groups, baseline, images, draws, lines, deciding, adjusted, verdicts, notes)


def part_of(key: str) -> str:
    """Return the part of the table that a score belongs to."""
    if key.startswith(CLASS_PREFIX):
        return "class"
    return "size" if key.rpartition("_")[2] in AREAS else "overall"
