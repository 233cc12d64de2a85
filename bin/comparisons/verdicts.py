"""Verdicts of a comparison in words, English and Korean."""

import math
from collections.abc import Sequence

from visionloop.bin.comparisons.runs import RunGroup
from visionloop.engine.evaluation.paired_bootstrap import MIN_SEEDS, Difference
from visionloop.engine.metric import MetricSpec

BETTER, WORSE, SAME, MISSING = "better", "worse", "no_difference", "not_measured"
SIGNIFICANT = 0.05  # of an adjusted p-value; intervals are of 95 %
FEW_SEEDS = 5  # below this number, the spread of the seeds is known roughly
Text = dict[str, str]  # {"en", "ko"}


def code_of(difference: Difference, spec: MetricSpec, adjusted: float | None = None) -> str:
    """Return the verdict of one line. adjusted: its p-value for the number of comparisons."""
    if math.isnan(difference.low) or math.isnan(difference.value):
        return MISSING
    if not difference.is_shown or (adjusted is not None and adjusted > SIGNIFICANT):
        return SAME
    return BETTER if (difference.value > 0) == spec.higher_is_better else WORSE


def words_of(difference: Difference, spec: MetricSpec, code: str, images: int) -> str:
    """Return the verdict of one line of the table."""
    if code == MISSING:
        return "not measured"
    if code != SAME:
        return code
    if difference.is_shown:
        return "no difference shown for this number of comparisons (Holm)"
    if difference.low == difference.high == 0:
        return "no difference shown: equal in every draw"
    return (
        f"no difference shown: {images} images can show differences of about "
        f"{amount(difference.detectable, spec)}"
    )


def verdict_of(
    names: Sequence[str], difference: Difference, spec: MetricSpec, code: str, images: int
) -> Text:
    """Return the sentence about the score that decides. names: of the model and the baseline."""
    model, baseline = names
    if code == MISSING:
        return {
            "en": f"{spec.label} is not measured on these images.",
            "ko": f"이 이미지에서는 {spec.label}을(를) 잴 수 없습니다.",
        }
    low, high = signed(difference.low, spec), signed(difference.high, spec)
    value = amount(difference.value, spec, sign=True)
    english = f"{spec.label} {value} (95 % interval {low} to {high}) on {images} images"
    points = value.replace(" points", " %p")
    korean = f"{spec.label} {points} (95 % 신뢰 구간 {low} ~ {high}), 이미지 {images}장"
    if code == SAME:
        size = amount(difference.detectable, spec)
        shown = f"이만큼의 이미지로는 약 {size.replace(' points', ' %p')}의 차이를 알 수 있습니다"
        return {
            "en": f"No difference shown between {model} and {baseline}: {english}, which can show "
            f"differences of about {size}.",
            "ko": f"{model}, {baseline}: 차이가 보이지 않습니다. {korean}. {shown}.",
        }
    korean_code = "더 좋습니다" if code == BETTER else "더 나쁩니다"
    return {
        "en": f"{model} is {code} than {baseline}: {english}.",
        "ko": f"{model}: {baseline}보다 {korean_code}. {korean}.",
    }


def notes_of(groups: Sequence[RunGroup], num_lines: int) -> list[Text]:
    """Return what the intervals do not cover.

    Args:
        groups: the settings that are compared.
        num_lines: verdicts beside those of the score that decides.
    """
    notes = []
    comparisons = len(groups) - 1
    if comparisons > 1:
        notes.append(
            {
                "en": f"The verdicts on the deciding score are corrected for {comparisons} "
                "comparisons (Holm).",
                "ko": f"판정 지표의 결과는 비교 {comparisons}개에 대해 보정했습니다(Holm).",
            }
        )
    notes.append(
        {
            "en": f"The other {num_lines} lines are not corrected for their number: where nothing "
            f"differs, about {max(1, round(num_lines / 20))} of them would show a difference by "
            "chance.",
            "ko": f"나머지 {num_lines}줄은 개수에 대해 보정하지 않았습니다. 차이가 없어도 약 "
            f"{max(1, round(num_lines / 20))}줄은 우연히 차이가 있는 것처럼 보입니다.",
        }
    )
    few = [group for group in groups if len(group.members) < MIN_SEEDS]
    if few:
        counts = ", ".join(f"{group.name}: {len(group.members)}" for group in few)
        notes.append(
            {
                "en": f"The variation between seeds is not covered ({counts}; from {MIN_SEEDS} on "
                "it is): another seed of the same setting may change the verdict.",
                "ko": f"시드에 따른 변동은 포함되지 않습니다({counts}, {MIN_SEEDS}개부터 포함). "
                "같은 설정이라도 시드가 다르면 결과가 달라질 수 있습니다.",
            }
        )
    if any(MIN_SEEDS <= len(group.members) < FEW_SEEDS for group in groups):
        notes.append(
            {
                "en": f"With fewer than {FEW_SEEDS} seeds their spread is known roughly: take the "
                "intervals as the narrowest that are possible.",
                "ko": f"시드가 {FEW_SEEDS}개보다 적으면 변동을 대략만 알 수 있습니다. 실제 구간은 "
                "더 넓을 수 있습니다.",
            }
        )
    return notes


def signed(value: float, spec: MetricSpec) -> str:
    """Format a difference with its sign; a share in points, without the unit."""
    return f"{100 * value:+.2f}" if spec.format == "percent" else f"{value:+.4f}"


def amount(value: float, spec: MetricSpec, *, sign: bool = False) -> str:
    """Format a difference with its unit."""
    text = signed(value, spec)
    return (text if sign else text[1:]) + (" points" if spec.format == "percent" else "")
