"""EoMT's criterion: equal to the plain one, and what must hold of it."""

import random

import pytest
import torch
from eomt_outputs import CLASSES, Record, gradients, loss_of, random_answers
from host_syncs import CountReads
from plain_eomt_loss import plain_eomt_loss

from visionloop.tasks.segmentation.loss import EomtCriterion
from visionloop.tasks.segmentation.matcher import softplus

KEYS = ["loss", "loss_class", "loss_mask", "loss_dice"]
WAYS = [{"points": 0}, {"points": 12}, {"points": 12, "share_candidates": False}]
# no mask, one, several, more than there are queries
SIZES = [(2, 3), (0, 2), (1,), (0, 0), (7, 1), (3, 0, 4)]


def assert_equal_to_plain(answers, criterion, record):
    losses = loss_of(criterion, answers)
    plain = plain_eomt_loss(
        answers.mask_logits, answers.class_logits, answers.masks, answers.labels, points=criterion.points, drawn=record.drawn,
        shared=criterion.share_candidates, valid=answers.valid if criterion.mask_ignore else None,
    )  # fmt: skip
    assert list(losses) == list(plain) == KEYS
    for name in KEYS:
        assert losses[name].dtype == torch.float32
        assert abs(losses[name].item() - plain[name].item()) <= 1e-6 * plain["loss"].item(), name
    theirs = torch.autograd.grad(
        plain["loss"],
        (answers.mask_logits, answers.class_logits),
        allow_unused=True,
        materialize_grads=True,
    )
    for ours, other in zip(gradients(answers, losses["loss"]), theirs, strict=True):
        assert (ours - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("way", WAYS, ids=["dense", "shared", "own"])
@pytest.mark.parametrize("mask_ignore", [False, True])
@pytest.mark.parametrize(("seed", "sizes"), list(enumerate(SIZES)))
def test_the_criterion_equals_the_plain_one(way, mask_ignore, seed, sizes):
    record = Record(seed)
    answers = random_answers(sizes, seed=seed, ignored=0.3)
    assert_equal_to_plain(
        answers, EomtCriterion(CLASSES, mask_ignore=mask_ignore, draw=record, **way), record
    )


@pytest.mark.parametrize("way", WAYS, ids=["dense", "shared", "own"])
def test_random_shapes_equal_the_plain_ones(way):
    for seed in range(20):
        record, chance = Record(seed), random.Random(seed)
        sizes = [chance.randrange(5) for _ in range(chance.randint(1, 3))]
        shape = {
            "levels": chance.randint(1, 2),
            "queries": chance.randint(1, 5),
            "grid": (chance.randint(2, 5), chance.randint(3, 5)),
        }
        answers = random_answers(
            sizes,
            **shape,
            side=(chance.randint(3, 12), 8),
            seed=seed,
            ignored=chance.choice([0.0, 0.2, 0.8]),
        )
        criterion = EomtCriterion(CLASSES, mask_ignore=chance.random() < 0.5, draw=record, **way)
        criterion.points = criterion.num_points(answers.mask_logits)
        assert_equal_to_plain(answers, criterion, record)


@pytest.mark.parametrize("way", WAYS, ids=["dense", "shared", "own"])
def test_masks_of_any_size_equal_the_plain_ones(way):
    for seed, (grid, side) in enumerate([((4, 3), (4, 3)), ((4, 4), (9, 7)), ((6, 2), (3, 5))]):
        record = Record(seed)
        answers = random_answers(
            (2, 1), levels=1, queries=3, grid=grid, side=side, seed=seed, ignored=0.2
        )
        criterion = EomtCriterion(CLASSES, mask_ignore=True, draw=record, **way)
        criterion.points = criterion.num_points(answers.mask_logits)
        assert_equal_to_plain(answers, criterion, record)


def test_there_are_never_more_points_than_pixels_in_the_answer():
    record = Record()
    loss_of(EomtCriterion(CLASSES, draw=record), random_answers((2,), grid=(4, 6)))
    loss_of(EomtCriterion(CLASSES, draw=record, points=20), random_answers((2,), grid=(4, 6)))
    assert [points.shape for points in record.drawn] == [(1, 24 * 3 + 6, 2), (1, 20 * 3 + 5, 2)]


@pytest.mark.parametrize("way", WAYS, ids=["dense", "shared", "own"])
def test_without_a_mask_every_output_gets_a_gradient_and_the_mask_terms_are_zero(way):
    answers = random_answers((0, 0))
    with torch.no_grad():
        answers.mask_logits[0, 0, 0] = torch.inf  # 0 x inf would be nan
    losses = loss_of(EomtCriterion(CLASSES, **way), answers)
    assert losses["loss_mask"] == losses["loss_dice"] == 0 and losses["loss_class"] > 0
    of_masks, of_classes = gradients(answers, losses["loss"])
    assert (of_masks == 0).all() and torch.isfinite(of_classes).all() and (of_classes != 0).any()


@pytest.mark.parametrize("way", WAYS, ids=["dense", "shared", "own"])
def test_a_image_that_is_ignored_everywhere_is_a_image_without_points(way):
    answers = random_answers((2, 1))
    answers.valid[0] = False
    losses = loss_of(EomtCriterion(CLASSES, mask_ignore=True, **way), answers)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(answers, losses["loss"]))
    of_masks, _ = gradients(answers, losses["loss"])
    assert (of_masks[0] == 0).all() and (of_masks[1] != 0).any()


@pytest.mark.parametrize("way", WAYS, ids=["dense", "shared", "own"])
def test_what_lies_under_ignored_pixels_does_not_matter(way):
    answers = random_answers((2, 3), grid=(6, 6), side=(12, 12))
    answers.valid[:, :, 6:] = False
    found = []
    for fill in (False, True):
        for maps in answers.masks:
            maps[:, :, 6:] = fill
        criterion = EomtCriterion(CLASSES, mask_ignore=True, draw=Record(), **way)
        found.append(loss_of(criterion, answers)["loss"])
    assert found[0] == found[1]
    assert loss_of(EomtCriterion(CLASSES, draw=Record(), **way), answers)["loss"] != found[0]


@pytest.mark.parametrize("way", WAYS, ids=["dense", "shared", "own"])
def test_nothing_ignored_changes_nothing(way):
    answers = random_answers((2, 3))
    plain, other = (
        loss_of(EomtCriterion(CLASSES, draw=Record(), mask_ignore=on, **way), answers)
        for on in (False, True)
    )
    assert torch.allclose(plain["loss"], other["loss"], rtol=1e-6)


def test_least_certain_points_are_taken_from_what_is_not_ignored():
    answers = random_answers((1,), levels=1, queries=1, grid=(8, 8), side=(8, 8))
    answers.valid[:, :, 4:] = False
    with torch.no_grad():
        answers.mask_logits[..., 4:] = 0.0  # in doubt where it does not count
    losses = loss_of(EomtCriterion(CLASSES, points=16, mask_ignore=True, draw=Record()), answers)
    of_masks, _ = gradients(answers, losses["loss"])
    assert (of_masks[..., :4] != 0).sum() > 16


def test_masks_of_one_class_may_overlap():
    """Two things of one class over each other: each query learns its own."""
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :, :5] = masks[1, :, 3:] = True
    logits = torch.where(masks, 9.0, -9.0).flip(0)[None, None]
    classes = torch.full((1, 1, 2, CLASSES + 1), -9.0)
    classes[..., 3] = 9.0
    losses = EomtCriterion(CLASSES, points=0)(logits, classes, [masks], [torch.tensor([3, 3])])
    assert losses["loss"] < 0.01


def test_the_order_of_masks_does_not_matter():
    answers = random_answers((3, 4))
    first = loss_of(EomtCriterion(CLASSES, draw=Record()), answers)["loss"]
    answers.masks, answers.labels = (
        [values.flip(0) for values in given] for given in (answers.masks, answers.labels)
    )
    assert torch.allclose(
        first, loss_of(EomtCriterion(CLASSES, draw=Record()), answers)["loss"], rtol=1e-6
    )


@pytest.mark.parametrize("way", WAYS, ids=["dense", "shared", "own"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_masks_may_be_bytes_or_floats_and_answers_half_precision(way, dtype):
    answers = random_answers((2, 3))
    with torch.no_grad():
        for leaf in (answers.mask_logits, answers.class_logits):
            leaf.copy_(leaf.bfloat16())
    expected = loss_of(EomtCriterion(CLASSES, draw=Record(), **way), answers)["loss"]
    answers.masks = [maps.to(dtype) for maps in answers.masks]
    answers.mask_logits, answers.class_logits = (
        leaf.detach().bfloat16().requires_grad_()
        for leaf in (answers.mask_logits, answers.class_logits)
    )
    with torch.autocast("cpu", torch.bfloat16):
        losses = loss_of(EomtCriterion(CLASSES, draw=Record(), **way), answers)
    assert losses["loss"].dtype == torch.float32 and losses["loss"] == expected
    assert len(gradients(answers, losses["loss"])) == 2


@pytest.mark.parametrize("way", WAYS, ids=["dense", "shared", "own"])
def test_answers_that_are_not_numbers_give_such_a_loss_and_no_error(way):
    answers = random_answers((2, 3))
    with torch.no_grad():
        answers.mask_logits[0] = torch.nan
    assert torch.isnan(loss_of(EomtCriterion(CLASSES, **way), answers)["loss"])


@pytest.mark.parametrize("way", WAYS, ids=["dense", "shared", "own"])
def test_the_answers_are_left_as_they_were(way):
    answers = random_answers((2, 3))
    before = answers.mask_logits.detach().clone()
    loss_of(EomtCriterion(CLASSES, **way), answers)
    assert torch.equal(before, answers.mask_logits)


@pytest.mark.parametrize("way", WAYS, ids=["dense", "shared", "own"])
def test_nothing_but_the_costs_is_read_from_the_device(way):
    answers = random_answers((2, 0, 3), levels=3)
    with CountReads() as counter:
        gradients(
            answers, loss_of(EomtCriterion(CLASSES, mask_ignore=True, **way), answers)["loss"]
        )
    assert (
        not counter.reads
    )  # the one copy of the costs is none by value: see the benchmark of losses


def test_weights_multiply_their_terms():
    answers = random_answers((1, 1), queries=1)  # nothing to choose from
    once = loss_of(EomtCriterion(CLASSES, draw=Record()), answers)
    other = loss_of(EomtCriterion(CLASSES, weights=(1.0, 0.0, 10.0), draw=Record()), answers)
    for name, factor in (("class", 0.5), ("mask", 0.0), ("dice", 2.0)):
        assert torch.allclose(other[f"loss_{name}"], factor * once[f"loss_{name}"])
    assert torch.allclose(
        other["loss"], sum(value for name, value in other.items() if name != "loss")
    )


def test_another_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="for 4 classes and no object, the logits have 6"):
        loss_of(EomtCriterion(4), random_answers((1,)))


def test_softplus_and_its_gradient_are_those_of_torch():
    x = torch.tensor([-200.0, -30.0, -1.0, -1e-4, 0.0, 1e-4, 1.0, 30.0, 200.0], requires_grad=True)
    exact = torch.nn.functional.softplus(x.double())
    assert torch.allclose(softplus(x).double(), exact, rtol=1e-6, atol=2e-7)
    (ours,), (theirs,) = (
        torch.autograd.grad(softplus(x).sum(), x),
        torch.autograd.grad(exact.sum(), x),
    )
    assert torch.allclose(ours, theirs, rtol=1e-6, atol=1e-7)
