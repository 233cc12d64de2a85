"""Paired bootstrap: differences of models on the same images, over several seeds if there are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from visionloop.engine.evaluation.bootstrap import percentile_interval
from visionloop.engine.types import Scores

# (positions of images, where repeats count again, or None for all) -> scores
ScoreImages: TypeAlias = Callable[[NDArray[np.int64] | None], Scores]
Draws: TypeAlias = dict[str, NDArray[np.float64]]

MIN_SEEDS = 3  # from here on the seeds are drawn too: two values say nothing about their spread
POWER = 1.96 + 0.84  # standard errors: a difference of that size is shown in 80 % of the cases


@dataclass(frozen=True)
class Difference:
    """The difference of a score of two models, or of two settings with several seeds.

    Attributes:
        value: the model's score minus that of the baseline.
        low, high: confidence interval, nan where no draw has the score.
        p_value: two-sided, of a difference of 0.
        detectable: size of a difference that would be shown in 80 % of the cases; nan as above.
    """

    value: float
    low: float
    high: float
    p_value: float
    detectable: float

    @property
    def is_shown(self) -> bool:
        """Return True where the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def draw_scores(
    models: Sequence[ScoreImages],
    num_images: int,
    *,
    draws: int,
    seed: int = 0,
    advance: Callable[[], object] | None = None,
) -> list[Draws]:
    """Score every model on the same resampled images: {key: float64 [draws]} of each.

    Images that are hard for all models move all scores, so that the interval of a difference is
    much narrower than the intervals of the scores suggest. nan where a draw lacks a score, e.g. of
    a class that is in none of its images.

    Args:
        models: the scores of each model, for positions in one order of the images.
        num_images: number of images.
        draws: number of samples of the images, each as large as the whole, with replacement.
        seed: of the draws.
        advance: called after each draw.
    """
    keys = [list(model(None)) for model in models]
    drawn = [{key: np.full(draws, np.nan) for key in of_model} for of_model in keys]
    generator = np.random.Generator(np.random.PCG64(seed))
    for draw in range(draws):
        picks = generator.integers(0, num_images, num_images)
        for model, columns in zip(models, drawn, strict=True):
            scores = model(picks)
            for key, column in columns.items():
                column[draw] = scores.get(key, np.nan)
        if advance is not None:
            advance()
    return drawn


def draw_seeds(runs: Sequence[Draws], *, seed: int) -> Draws:
    """Average the runs of one setting, drawing their seeds as well from three on.

    Seeds and images are crossed: every seed sees the same images. Each draw takes seeds with
    replacement and, independently, images with replacement, and averages the scores of these seeds
    on these images: the pigeonhole bootstrap of Owen, "The pigeonhole bootstrap", Annals of Applied
    Statistics 1(2), 2007, whose variance is at least the true one. Drawing n of n seeds understates
    the variance of their mean by (n - 1) / n; the deviation from the mean of all is therefore
    scaled by sqrt(n / (n - 1)), as in Rao and Wu, "Resampling inference with complex survey data",
    JASA 83, 1988. With one or two runs the mean is taken, and the interval does not cover the
    variation between seeds.

    Args:
        runs: scores of each run, of `draw_scores`.
        seed: of the draws.
    """
    count = len(runs)
    generator = np.random.Generator(np.random.PCG64(seed))
    averaged = {}
    for key in runs[0]:
        if any(key not in run for run in runs):
            continue
        scores = np.stack([run[key] for run in runs])  # [runs, draws]
        mean = scores.mean(axis=0)
        if count >= MIN_SEEDS:
            picks = generator.integers(0, count, scores.shape)
            drawn = np.take_along_axis(scores, picks, axis=0).mean(axis=0)
            mean = mean + np.sqrt(count / (count - 1)) * (drawn - mean)
        averaged[key] = mean
    return averaged


def difference_of(
    scores: tuple[float, float],
    drawn: tuple[NDArray[np.float64], NDArray[np.float64]],
    confidence: float = 0.95,
) -> Difference:
    """Return the difference of a model and its baseline, with the percentile interval.

    Args:
        scores: of the model and of the baseline on all images.
        drawn: float64 [draws] of the same, draw by draw on the same images.
        confidence: the share of the draws between low and high.
    """
    values = drawn[0] - drawn[1]
    values = values[np.isfinite(values)]
    low, high = percentile_interval(values.tolist(), confidence)
    # one more draw, the most extreme one, keeps the p-value above 0
    tails = (1 + np.array([(values <= 0).sum(), (values >= 0).sum()])) / (1 + len(values))
    return Difference(
        value=scores[0] - scores[1],
        low=low,
        high=high,
        p_value=min(1.0, 2 * float(tails.min())),
        detectable=POWER * float(values.std()) if len(values) else float("nan"),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for the number of comparisons: Holm, Scandinavian Journal of Statistics 6.

    A comparison is significant at level a where its adjusted p-value is at most a; the chance of
    any false one is then at most a.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(np.argsort(p_values, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = largest
    return adjusted


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample (n - 1), nan for one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def mean_scores(runs: Sequence[Mapping[str, float]]) -> Scores:
    """Return the mean over runs of the scores that all of them have."""
    return {
        key: float(np.mean([run[key] for run in runs]))
        for key in runs[0]
        if all(key in run for run in runs)
    }
