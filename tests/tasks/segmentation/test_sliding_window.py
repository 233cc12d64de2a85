"""Sliding-window inference: windows, scores at the size of the file, and repeatable predictions."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from visionloop.datasets.segmentation.transforms import SegmentationEvalPreset
from visionloop.engine.seeding import hashed
from visionloop.tasks.normalize import Normalize
from visionloop.tasks.segmentation.loss import EomtCriterion, per_image_losses
from visionloop.tasks.segmentation.network import query_mask_draws
from visionloop.tasks.segmentation.semantic import sliding_window
from visionloop.tasks.segmentation.semantic.data import collate_eval, image_targets
from visionloop.tasks.segmentation.semantic.evaluate import predict
from visionloop.tasks.segmentation.semantic.scores import level_metrics
from visionloop.tasks.segmentation.semantic.sliding_window import (
    Canvas,
    class_scores,
    cut_windows,
    resized_argmax,
    semantic_maps,
    window_starts,
)

SIDE = 8
QUERIES, CLASSES = 5, 4
# height x width of images whose shorter side is the window's
SHAPES = [(8, 8), (8, 9), (9, 8), (8, 16), (8, 17), (37, 8), (8, 70)]


def forward_by_key(window_pixels, keys, levels=2):
    """Return random logits that image and window number alone decide."""
    logits = [], []
    for key in keys:
        generator = torch.Generator().manual_seed(hashed(*key) >> 1)
        logits[0].append(
            3 * torch.randn(levels, QUERIES, SIDE // 4, SIDE // 4, generator=generator)
        )
        logits[1].append(3 * torch.randn(levels, QUERIES, CLASSES + 1, generator=generator))
    return tuple(map(torch.stack, logits))


def images_of(shapes):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 256, (3, *shape), generator=generator, dtype=torch.uint8)
        for shape in shapes
    ]


def certain(scores):
    """Return where the best of scores [K, H, W] leads by more than rounding: bool [H, W]."""
    first, second = scores.topk(2, dim=0).values
    return first - second > 1e-5


# where windows lie --------------------


@given(side=st.integers(1, 700), longer=st.integers(0, 5000))
def test_windows_are_as_few_as_cover_the_length_and_the_last_ends_at_its_end(side, longer):
    length = side + longer
    starts = window_starts(length, side)
    assert (
        len(starts) == math.ceil(length / side) and starts[0] == 0 and starts[-1] == length - side
    )
    covered = torch.zeros(length, dtype=torch.bool)
    for start in starts:
        covered[start : start + side] = True
    assert covered.all() and starts == sorted(set(starts))


@given(side=st.integers(1, 700), longer=st.integers(1, 5000))
def test_windows_begin_where_the_authors_begin_them(side, longer):
    """Source: `window_imgs_semantic` in training/lightning_module.py of `tue-mps/eomt`."""
    length = side + longer
    count = math.ceil(length / side)
    overlap = (count * side - length) / (count - 1)
    # theirs may end a pixel before the end where the sum of floats falls short of a whole number
    assert window_starts(length, side)[:-1] == [int(i * (side - overlap)) for i in range(count - 1)]
    assert window_starts(length, side)[-1] - int((count - 1) * (side - overlap)) in (0, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_window_shows_the_image_where_it_says(shape):
    (image,) = images_of([shape])
    cut, starts = cut_windows(image, SIDE)
    for window, start in zip(cut, starts, strict=True):
        assert window.shape == (3, SIDE, SIDE)
        rows, columns = (start, 0) if shape[0] > shape[1] else (0, start)
        assert torch.equal(window, image[:, rows : rows + SIDE, columns : columns + SIDE])


# scores --------------------


def test_a_score_is_the_sum_over_queries_of_class_times_mask():
    masks, classes = (logits[0, 0] for logits in forward_by_key(None, [(0, 0)]))
    scores = class_scores(masks, classes, SIDE)
    enlarged = F.interpolate(masks[None], size=(SIDE, SIDE), mode="bilinear", align_corners=False)[
        0
    ]
    expected = sum(
        classes[q].softmax(0)[:-1, None, None] * enlarged[q].sigmoid() for q in range(QUERIES)
    )
    torch.testing.assert_close(scores, expected)


def test_scores_of_half_precision_are_added_in_fp32():
    masks, classes = (logits[0, 0].bfloat16() for logits in forward_by_key(None, [(0, 0)]))
    scores = class_scores(masks, classes, SIDE)
    assert scores.dtype == torch.float32
    assert torch.equal(scores, class_scores(masks.float(), classes.float(), SIDE))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_constant_score_gives_back_its_constant_at_any_size(shape):
    scores = torch.rand(2, CLASSES)[:, :, None, None].expand(2, CLASSES, SIDE, SIDE)
    canvas = Canvas(scores, shape)
    for start in window_starts(max(shape), SIDE):
        canvas.add(scores, start)
    torch.testing.assert_close(canvas.mean(), scores[:, :, :1, :1].expand(2, CLASSES, *shape))


def test_constant_logits_are_one_class_everywhere():
    def forward(cut, keys):
        classes = torch.tensor(
            [0.0, 3, 1, 1, 9]
        )  # "no object" is the likeliest and no class of pixels
        return torch.zeros(len(cut), 1, QUERIES, 2, 2), classes.expand(len(cut), 1, QUERIES, 5)

    sizes = [(1, 1), (40, 7), (3, 90), (8, 8), (1, 33), (5, 100), (32, 32)]
    for result, size in zip(
        semantic_maps(forward, images_of(SHAPES), sizes, SIDE), sizes, strict=True
    ):
        assert torch.equal(result, torch.full((1, *size), 1, dtype=torch.uint8))


def test_overlapping_windows_are_averaged_pixel_by_pixel():
    sizes = [(8, 8), (20, 9), (33, 31), (10, 40), (8, 17), (80, 16), (3, 40)]
    for i, result in enumerate(semantic_maps(forward_by_key, images_of(SHAPES), sizes, SIDE)):
        starts = window_starts(max(SHAPES[i]), SIDE)
        logits = [forward_by_key(None, [(i, j)]) for j in range(len(starts))]
        for level in range(2):
            scores = [
                class_scores(masks[0, level], classes[0, level], SIDE) for masks, classes in logits
            ]
            mean = torch.empty(CLASSES, *SHAPES[i])
            for y in range(SHAPES[i][0]):
                for x in range(SHAPES[i][1]):
                    along, across = (y, x) if SHAPES[i][0] > SHAPES[i][1] else (x, y)
                    here = [
                        (window, along - start)
                        for window, start in zip(scores, starts, strict=True)
                        if 0 <= along - start < SIDE
                    ]
                    places = [
                        (window, (a, across) if SHAPES[i][0] > SHAPES[i][1] else (across, a))
                        for window, a in here
                    ]
                    mean[:, y, x] = torch.stack(
                        [window[:, row, column] for window, (row, column) in places]
                    ).mean(0)
            resized = F.interpolate(
                mean[None], size=sizes[i], mode="bilinear", align_corners=False
            )[0]
            sure = certain(resized)
            assert sure.float().mean() > 0.99 and torch.equal(
                result[level][sure], resized.argmax(0).byte()[sure]
            )


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_how_many_windows_go_through_at_once_changes_nothing(limit, monkeypatch):
    sizes = [shape[::-1] for shape in SHAPES]
    expected = list(semantic_maps(forward_by_key, images_of(SHAPES), sizes, SIDE))
    batch_sizes = []

    def forward(cut, keys):
        batch_sizes.append(len(cut))
        assert len(cut) == len(keys)
        return forward_by_key(cut, keys)

    monkeypatch.setattr(sliding_window, "MAX_WINDOWS", limit)
    result = list(semantic_maps(forward, images_of(SHAPES), sizes, SIDE))
    assert all(torch.equal(mine, other) for mine, other in zip(result, expected, strict=True))
    assert max(batch_sizes) <= limit and sum(batch_sizes) == sum(
        len(window_starts(max(shape), SIDE)) for shape in SHAPES
    )


# back to the file's size --------------------


@settings(max_examples=40)
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    strip=st.sampled_from([1, 100, 777, 2**24]),
)
def test_classes_are_those_of_the_resized_scores_in_strips_of_any_height(shape, size, strip):
    scores = torch.rand(
        CLASSES, *shape, generator=torch.Generator().manual_seed(hashed(*shape, *size) >> 1)
    )
    expected = F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliding_window, "STRIP", strip)
        result = resized_argmax(scores, size)
    assert result.dtype == torch.uint8 and result.shape == size
    sure = certain(expected)
    assert torch.equal(result[sure], expected.argmax(0).byte()[sure])


def test_the_same_size_changes_no_score():
    scores = torch.rand(CLASSES, 23, 17)
    assert torch.equal(resized_argmax(scores, (23, 17)), scores.argmax(0).byte())


# the network in mid-training --------------------

FILES = [(20, 24), (1, 7), (7, 1), (40, 9), (7, 7)]  # height x width
NORMALIZE = Normalize((0.5,) * 3, (0.5,) * 3)
CRITERION = EomtCriterion(3, points=40)


def samples(side=32):
    generator = torch.Generator().manual_seed(1)
    result = []
    for i, size in enumerate(FILES):
        image = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        ids = torch.randint(0, 3, size, generator=generator, dtype=torch.uint8)
        result.append(
            SegmentationEvalPreset(size=side)(image, ids) | {"sample_id": torch.tensor(100 + i)}
        )
    return result


def losses_of(criterion, masks, classes, batch):
    targets, sample_ids = image_targets(batch), batch["sample_ids"].tolist()
    return per_image_losses(criterion, masks, classes, targets, sample_ids)


@torch.no_grad()
def predicted(module, chosen, **settings):
    """Return {sample id: (ids, loss)} of batches of sample numbers."""
    result = {}
    for numbers in chosen:
        batch = collate_eval([samples()[n] for n in numbers])
        predictions = predict(
            module.eval(),
            NORMALIZE,
            batch,
            32,
            losses=partial(losses_of, CRITERION, batch=batch),
            **settings,
        )
        rows = zip(
            batch["sample_ids"].tolist(),
            predictions["ids"],
            predictions["losses"].tolist(),
            strict=True,
        )
        result |= {sample: (ids, loss) for sample, ids, loss in rows}
    return dict(sorted(result.items()))


def assert_same(first, second):
    assert first.keys() == second.keys()
    (ids, losses), (other_ids, other_losses) = (
        zip(*result.values(), strict=True) for result in (first, second)
    )
    same = torch.cat(
        [(mine == other).flatten() for mine, other in zip(ids, other_ids, strict=True)]
    )
    assert same.float().mean() > 0.99  # other batches round otherwise
    assert losses == pytest.approx(other_losses, rel=1e-4)


@pytest.mark.parametrize("mask_probs", [[0.5, 0.5], [0.3, 1.0], [0.0, 0.0]])
def test_images_of_any_shape_have_one_prediction_in_any_batch_and_order(tiny_module, mask_probs):
    module = tiny_module()
    module.mask_probs = mask_probs
    whole = predicted(module, [range(5)])
    assert [tuple(ids.shape) for ids, _ in whole.values()] == FILES
    assert all(ids.dtype == torch.uint8 and ids.max() < 3 for ids, _ in whole.values())
    for chosen in ([[0], [1], [2], [3], [4]], [[4, 3], [2, 1, 0]]):
        torch.rand(3)  # wherever the default generator is
        assert_same(predicted(module, chosen), whole)


def test_image_and_window_alone_decide_which_queries_are_masked(tiny_module):
    module = tiny_module()
    module.mask_probs = [0.4, 0.0]
    before = torch.get_rng_state()
    draws = query_mask_draws(module, [(7, 0), (7, 1), (8, 0), (8, -1)], "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    assert draws.shape == (4, 2, 8) and len({tuple(row.flatten().tolist()) for row in draws}) == 4
    assert torch.equal(query_mask_draws(module, [(8, 0), (7, 0)], "cpu"), draws[[2, 0]])
    for probabilities in ([1.0, 1.0], [0.0, 0.0], [1.0, 0.0]):
        module.mask_probs = probabilities
        assert query_mask_draws(module, [(7, 0)], "cpu") is None


def test_the_last_level_is_the_prediction(tiny_module):
    module = tiny_module().eval()
    batch = collate_eval(samples()[:2])
    with torch.no_grad():
        alone, with_levels = (
            predict(module, NORMALIZE, batch, 32, levels=levels) for levels in (False, True)
        )
    assert "level_ids" not in alone and "losses" not in alone
    assert [tuple(ids.shape) for ids in with_levels["level_ids"]] == [
        (2, *size) for size in FILES[:2]
    ]
    assert all(
        torch.equal(mine, other)
        for mine, other in zip(alone["ids"], with_levels["ids"], strict=True)
    )
    assert [spec.key for spec in level_metrics(2)] == ["miou_level_0", "miou_level_1"]


# the loss on images that were not trained on --------------------


def eval_batch(seed=0, **changes):
    """Return (mask logits, class logits, batch) of 4 images, the last one without a class."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 3, (4, 16, 16), generator=generator, dtype=torch.uint8)
    ids[:, :4], ids[3] = 255, 255
    labels = [torch.tensor([0, 1, 2])] * 3 + [torch.zeros(0, dtype=torch.int64)]
    masks = torch.randn(4, 2, QUERIES, 8, 8, generator=generator)
    classes = torch.randn(4, 2, QUERIES, 4, generator=generator)
    return (
        masks,
        classes,
        {"fitted_ids": ids, "labels": labels, "sample_ids": torch.tensor([5, 6, 7, 8])} | changes,
    )


def test_an_image_has_one_loss_whatever_it_is_batched_with():
    masks, classes, batch = eval_batch()
    whole = losses_of(CRITERION, masks, classes, batch)
    assert whole.shape == (4,) and whole.dtype == torch.float32 and torch.isfinite(whole).all()
    torch.rand(5)
    for rows in ([3, 1], [2], [0, 1, 2, 3][::-1]):
        part = {name: [values[row] for row in rows] for name, values in batch.items()}
        part |= {name: torch.stack(part[name]) for name in ("fitted_ids", "sample_ids")}
        assert torch.equal(losses_of(CRITERION, masks[rows], classes[rows], part), whole[rows])


def test_the_points_follow_from_the_sample_id_and_leave_chance_alone():
    masks, classes, batch = eval_batch()
    before = torch.get_rng_state()
    whole = losses_of(CRITERION, masks, classes, batch)
    assert torch.equal(torch.get_rng_state(), before)
    renamed = losses_of(
        CRITERION, masks, classes, batch | {"sample_ids": torch.tensor([9, 6, 7, 8])}
    )
    assert renamed[0] != whole[0] and torch.equal(renamed[1:], whole[1:])


def test_only_the_last_level_counts():
    masks, classes, batch = eval_batch()
    alone = losses_of(CRITERION, masks[:, -1:], classes[:, -1:], batch)
    assert torch.equal(losses_of(CRITERION, masks, classes, batch), alone)


def test_an_image_alone_is_counted_by_its_own_masks():
    masks, classes, batch = eval_batch()
    criterion = EomtCriterion(3, points=0)
    result = losses_of(criterion, masks, classes, batch)
    for i in range(4):
        targets = batch["fitted_ids"][i] == batch["labels"][i][:, None, None]
        expected = criterion(
            masks[i, None, -1:], classes[i, None, -1:], [targets], [batch["labels"][i]]
        )
        assert result[i] == expected["loss"]


def test_ignored_pixels_count_for_nothing_with_mask_ignore():
    masks, classes, batch = eval_batch()
    changed = masks.clone()
    changed[..., :2, :] += 3  # all of it lies in the ignored rows
    for mask_ignore in (True, False):
        criterion = EomtCriterion(3, points=0, mask_ignore=mask_ignore)
        first, second = (
            losses_of(criterion, logits, classes, batch)[:3] for logits in (masks, changed)
        )
        assert torch.equal(first, second) == mask_ignore
