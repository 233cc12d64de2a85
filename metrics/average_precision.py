"""Average precision and recall of resampled images, from matches that are made once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from pycocotools.cocoeval import COCOeval

from visionloop.metrics.rows import Array, divide

# an entry of COCOeval.evalImgs: ids, lists of scores, arrays of matches
ImageMatches: TypeAlias = dict[str, Any]  # type: ignore[explicit-any]


class Resampler:
    """COCO's average precision and recall of a resampled dataset, for one range of area.

    Matching looks at one image at a time, so resampling the images changes only how often each
    match counts. The result equals COCOeval.accumulate on a dataset in which the images are really
    repeated, with one exception: equal scores of one class *within* one image, which COCO ranks in
    the order a b a b, are ranked a a b b here.
    """

    def __init__(
        self, evaluator: COCOeval, *, area: int = 0, max_detections: int | None = None
    ) -> None:
        """Read the matches.

        Args:
            evaluator: pycocotools' COCOeval after `evaluate`, with all areas first; image and
                category ids count from 0.
            area: position of the range of area in `params.areaRng`.
            max_detections: the best ones of each image and class that count; None: the most.
        """
        params = evaluator.params
        self.recall = np.array(params.recThrs)
        self.num_classes, self.num_thresholds = len(params.catIds), len(params.iouThrs)
        num_images, most = len(params.imgIds), max_detections or params.maxDets[-1]
        # boxes that are not ignored
        self.ground_truth = np.zeros((self.num_classes, num_images), dtype=np.int64)
        # per class: the image of each detection; per class and threshold: positions among the
        # detections of all classes
        images: list[Array] = []
        scores: list[Array] = []
        hits: list[Array] = []
        ignored: list[Array] = []
        start = 0
        for label in range(self.num_classes):
            first = (label * len(params.areaRng) + area) * num_images
            matches = [
                match
                for match in evaluator.evalImgs[first : first + num_images]
                if match is not None
            ]
            for match in matches:
                self.ground_truth[label, match["image_id"]] = np.count_nonzero(
                    np.asarray(match["gtIgnore"]) == 0
                )
            image_of, score_of, is_hit, is_ignored = _sort_by_score(
                matches, self.num_thresholds, most
            )
            images.append(image_of)
            scores.append(score_of)
            hits += [start + np.flatnonzero(row) for row in is_hit]
            ignored += [start + np.flatnonzero(row) for row in is_ignored]
            start += len(image_of)
        self.scores = np.concatenate([np.zeros(0), *scores])
        self.bounds = _bounds(images)  # of the detections of each class
        self._index_segments(images, hits, ignored)

    def _index_segments(self, images: list[Array], hits: list[Array], ignored: list[Array]) -> None:
        """Join the lists; a segment is the hits of one class at one threshold."""
        self.images = _concatenate(images)
        self.hits, self.ignored = _concatenate(hits), _concatenate(ignored)
        self.hit_bounds = _bounds(hits)  # of each segment in `hits`, class by class
        segment_of_hit = np.repeat(np.arange(len(hits)), np.diff(self.hit_bounds))
        self.class_start = np.repeat(self.bounds[:-1], self.num_thresholds)[segment_of_hit]
        self.ignored_bounds = _bounds(ignored)
        self.ignored_start = self.ignored_bounds[segment_of_hit]
        before = _concatenate(
            [np.searchsorted(rows, at) for rows, at in zip(ignored, hits, strict=True)]
        )
        self.ignored_before = self.ignored_start + before
        self.hit_start = self.hit_bounds[segment_of_hit]

    def average_precision(self, weights: Array) -> Array:
        """Return the average precision, float64 [T, C], nan for a class without ground truth.

        Args:
            weights: int64 [images], how often each image counts.
        """
        counts = weights[self.images]
        # running numbers of detections, of ignored ones and of hits
        detections = _running_sum(counts)
        ignored = _running_sum(counts[self.ignored])
        hits = _running_sum(counts[self.hits])
        true_positives = hits[1:] - hits[self.hit_start]
        counted = (
            detections[self.hits + 1]
            - detections[self.class_start]
            - (ignored[self.ignored_before] - ignored[self.ignored_start])
        )
        precision = true_positives / (counted + np.spacing(1))  # the bits of COCOeval
        for start, stop in zip(self.hit_bounds[:-1], self.hit_bounds[1:], strict=True):
            backwards = precision[start:stop][::-1]
            np.maximum.accumulate(backwards, out=backwards)
        ground_truth = self.ground_truth @ weights
        # the first detection at which a segment has enough hits; at recall 0 COCO takes the very
        # first detection, whose precision from there on is that of the first hit
        required = np.repeat(
            np.maximum(hits_needed(self.recall, ground_truth), 1), self.num_thresholds, axis=0
        )  # [C*T, R]
        required += hits[self.hit_bounds[:-1], None]
        at = np.searchsorted(hits[1:], required)
        reached = required <= hits[self.hit_bounds[1:], None]
        at_recall = np.where(reached, np.append(precision, 0.0)[at], 0.0)
        by_class = at_recall.mean(axis=1).reshape(self.num_classes, self.num_thresholds)
        return np.where(ground_truth[:, None] > 0, by_class, np.nan).T

    def recalls(self, weights: Array) -> Array:
        """Return the share of objects with a match, float64 [T, C], nan without ground truth.

        Args:
            weights: int64 [images], how often each image counts.
        """
        hits = _running_sum(weights[self.images[self.hits]])
        matched = np.diff(hits[self.hit_bounds]).reshape(self.num_classes, self.num_thresholds)
        return divide(matched, (self.ground_truth @ weights)[:, None]).T

    def class_matches(self, label: int) -> tuple[Array, Array, int]:
        """Return the matches of a class at the first IoU threshold, without ignored detections.

        Returns:
            (scores float64 [D], the highest first; bool [D]: whether a detection has an object;
            number of objects).
        """
        segment = label * self.num_thresholds
        is_hit = np.zeros(len(self.scores), dtype=bool)
        is_hit[self.hits[slice(*self.hit_bounds[segment : segment + 2])]] = True
        counts = np.zeros(len(self.scores), dtype=bool)
        counts[slice(*self.bounds[label : label + 2])] = True
        counts[self.ignored[slice(*self.ignored_bounds[segment : segment + 2])]] = False
        return self.scores[counts], is_hit[counts], int(self.ground_truth[label].sum())


def hits_needed(recall: Array, ground_truth: Array) -> Array:
    """Return the fewest hits k with k / ground_truth >= recall in floating point, int64 [C, R].

    Args:
        recall: float64 [R] in 0..1.
        ground_truth: int64 [C], boxes of each class.
    """
    boxes = np.maximum(ground_truth, 1)[:, None]
    needed = np.ceil(recall * boxes).astype(np.int64)
    needed -= (needed - 1) / boxes >= recall  # the product and the quotient round differently
    needed += needed / boxes < recall
    return needed


def _sort_by_score(
    matches: Sequence[ImageMatches], num_thresholds: int, max_detections: int
) -> tuple[Array, Array, Array, Array]:
    """Return the detections of one class, best first, equal scores in the order of images.

    Returns:
        (image int64 [D], score float64 [D], is_hit bool [T, D], is_ignored bool [T, D]).
    """
    if not matches:
        empty = np.zeros((num_thresholds, 0), dtype=bool)
        return np.zeros(0, dtype=np.int64), np.zeros(0), empty, empty
    rows = [match["dtScores"][:max_detections] for match in matches]
    scores = np.concatenate(rows).astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    image_of = np.repeat([match["image_id"] for match in matches], [len(row) for row in rows])

    def column(name: str) -> Array:
        rows = [match[name][:, :max_detections] for match in matches]
        return np.concatenate(rows, axis=1)[:, order]

    ignored = column("dtIgnore").astype(bool)
    return image_of[order], scores[order], (column("dtMatches") != 0) & ~ignored, ignored


def _concatenate(parts: Sequence[Array]) -> Array:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _bounds(parts: Sequence[Array]) -> Array:
    return np.cumsum([0, *map(len, parts)])


def _running_sum(counts: Array) -> Array:
    return np.concatenate([[0], np.cumsum(counts)])
