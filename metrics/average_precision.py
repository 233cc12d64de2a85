"""Average precision of a sample of the images, from matches that are made once."""

import numpy as np


class Resampler:
    """COCO's average precision over all areas with at most 100 detections, each image taken as often as wanted.

    Matching looks at one image at a time, so a sample of images changes only how often each
    match counts. Equal to COCOeval.accumulate on a dataset in which the images are really
    repeated, but for one freedom: equal scores of one class
    *within* one image, which COCO counts in the order a b a b, stand here as a a b b.
    """

    def __init__(self, evaluator):
        """evaluator: pycocotools' COCOeval after `evaluate`, with all areas first; image and category ids count from 0."""
        params = evaluator.params
        self.recall = np.array(params.recThrs)
        self.num_classes, self.num_thresholds = len(params.catIds), len(params.iouThrs)
        images, most = len(params.imgIds), params.maxDets[-1]
        self.truth = np.zeros((self.num_classes, images), dtype=np.int64)  # boxes to find
        detected, hits, ignored = (
            [],
            [],
            [],
        )  # per class: images; per class and threshold: positions in `detected`
        start = 0
        for label in range(self.num_classes):
            first = label * len(params.areaRng) * images
            found = [
                match for match in evaluator.evalImgs[first : first + images] if match is not None
            ]
            for match in found:
                self.truth[label, match["image_id"]] = np.count_nonzero(
                    np.asarray(match["gtIgnore"]) == 0
                )
            image_of, is_hit, is_ignored = _in_order_of_score(found, self.num_thresholds, most)
            detected.append(image_of)
            hits += [start + np.flatnonzero(row) for row in is_hit]
            ignored += [start + np.flatnonzero(row) for row in is_ignored]
            start += len(image_of)
        self.images = _joined(detected)
        self.hits, self.ignored = _joined(hits), _joined(ignored)
        self.hit_bounds = _bounds(hits)  # of each class and threshold in `hits`, class by class
        segment_of_hit = np.repeat(np.arange(len(hits)), np.diff(self.hit_bounds))
        self.class_start = np.repeat(_bounds(detected)[:-1], self.num_thresholds)[segment_of_hit]
        self.ignored_start = _bounds(ignored)[segment_of_hit]
        before = _joined(
            [np.searchsorted(rows, at) for rows, at in zip(ignored, hits, strict=True)]
        )
        self.ignored_before = self.ignored_start + before
        self.hit_start = self.hit_bounds[segment_of_hit]

    def average_precision(self, weights):
        """float64 [T, C], nan for a class without truth. weights: int64 [images], how often each counts."""
        counts = weights[self.images]
        seen, ignored, found = (
            _running(counts),
            _running(counts[self.ignored]),
            _running(counts[self.hits]),
        )
        right = found[1:] - found[self.hit_start]
        counted = (
            seen[self.hits + 1]
            - seen[self.class_start]
            - (ignored[self.ignored_before] - ignored[self.ignored_start])
        )
        precision = right / (counted + np.spacing(1))  # as COCOeval does it, to the bit
        for start, stop in zip(self.hit_bounds[:-1], self.hit_bounds[1:], strict=True):
            backwards = precision[start:stop][::-1]
            np.maximum.accumulate(backwards, out=backwards)
        truth = self.truth @ weights
        # the first detection at which enough of a segment's boxes are found; at recall 0 COCO takes
        # the very first detection, whose precision from there on is that of the first hit
        wanted = np.repeat(
            np.maximum(hits_needed(self.recall, truth), 1), self.num_thresholds, axis=0
        )  # [C*T, R]
        wanted += found[self.hit_bounds[:-1], None]
        at = np.searchsorted(found[1:], wanted)
        reached = wanted <= found[self.hit_bounds[1:], None]
        at_recall = np.where(reached, np.append(precision, 0.0)[at], 0.0)
        by_class = at_recall.mean(axis=1).reshape(self.num_classes, self.num_thresholds)
        return np.where(truth[:, None] > 0, by_class, np.nan).T


def hits_needed(recall, truth):
    """int64 [C, R]: the fewest boxes k of `truth` with k / truth >= recall in floating point. recall: [R] in 0..1; truth: int64 [C]."""
    boxes = np.maximum(truth, 1)[:, None]
    needed = np.ceil(recall * boxes).astype(np.int64)
    needed -= (needed - 1) / boxes >= recall  # the product and the quotient round differently
    needed += needed / boxes < recall
    return needed


def mean_of_known(values):
    """The mean of what is not nan, nan when there is nothing."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _in_order_of_score(found, num_thresholds, most):
    """(image [D], is_hit [T, D], is_ignored [T, D]) of one class's detections, best first, equals in the order of images."""
    if not found:
        nothing = np.zeros((num_thresholds, 0), dtype=bool)
        return np.zeros(0, dtype=np.int64), nothing, nothing
    scores = np.concatenate([match["dtScores"][:most] for match in found])
    order = np.argsort(-scores, kind="stable")
    image_of = np.repeat(
        [match["image_id"] for match in found], [len(match["dtScores"][:most]) for match in found]
    )
    matched = (
        np.concatenate([match["dtMatches"][:, :most] for match in found], axis=1)[:, order] != 0
    )
    ignored = np.concatenate([match["dtIgnore"][:, :most] for match in found], axis=1)[
        :, order
    ].astype(bool)
    return image_of[order], matched & ~ignored, ignored


def _joined(parts):
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _bounds(parts):
    return np.cumsum([0, *map(len, parts)])


def _running(counts):
    return np.concatenate([[0], np.cumsum(counts)])
