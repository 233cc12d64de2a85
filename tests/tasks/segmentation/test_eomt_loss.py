"""EoMT's criterion against a plain implementation, and its invariants."""

import random

import pytest
import torch
from eomt_outputs import CLASSES, Record, gradients, loss_of, random_outputs
from host_syncs import CountReads
from plain_eomt_loss import plain_eomt_loss

from visionloop.tasks.segmentation.loss import EomtCriterion, softplus

KEYS = ["loss", "loss_class", "loss_mask", "loss_dice"]
SAMPLERS = [{"points": 0}, {"points": 12}, {"points": 12, "share_candidates": False}]
# no mask, one, several, more than there are queries
SIZES = [(2, 3), (0, 2), (1,), (0, 0), (7, 1), (3, 0, 4)]


def assert_equal_to_plain(outputs, criterion, record):
    losses = loss_of(criterion, outputs)
    plain = plain_eomt_loss(
        outputs.mask_logits,
        outputs.class_logits,
        outputs.masks,
        outputs.labels,
        points=criterion.points,
        drawn=record.drawn,
        shared=criterion.share_candidates,
        valid=outputs.valid if criterion.mask_ignore else None,
    )
    assert list(losses) == list(plain) == KEYS
    for name in KEYS:
        assert losses[name].dtype == torch.float32
        assert abs(losses[name].item() - plain[name].item()) <= 1e-6 * plain["loss"].item(), name
    expected = torch.autograd.grad(
        plain["loss"],
        (outputs.mask_logits, outputs.class_logits),
        allow_unused=True,
        materialize_grads=True,
    )
    for ours, other in zip(gradients(outputs, losses["loss"]), expected, strict=True):
        assert (ours - other).norm() <= 1e-5 * other.norm()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["dense", "shared", "own"])
@pytest.mark.parametrize("mask_ignore", [False, True])
@pytest.mark.parametrize(("seed", "sizes"), list(enumerate(SIZES)))
def test_the_criterion_equals_the_plain_one(sampler, mask_ignore, seed, sizes):
    record = Record(seed)
    outputs = random_outputs(sizes, seed=seed, ignored=0.3)
    assert_equal_to_plain(
        outputs, EomtCriterion(CLASSES, mask_ignore=mask_ignore, draw=record, **sampler), record
    )


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["dense", "shared", "own"])
def test_random_shapes_equal_the_plain_ones(sampler):
    for seed in range(20):
        record, chance = Record(seed), random.Random(seed)
        sizes = [chance.randrange(5) for _ in range(chance.randint(1, 3))]
        shape = {
            "levels": chance.randint(1, 2),
            "queries": chance.randint(1, 5),
            "grid": (chance.randint(2, 5), chance.randint(3, 5)),
        }
        outputs = random_outputs(
            sizes,
            **shape,
            side=(chance.randint(3, 12), 8),
            seed=seed,
            ignored=chance.choice([0.0, 0.2, 0.8]),
        )
        criterion = EomtCriterion(
            CLASSES, mask_ignore=chance.random() < 0.5, draw=record, **sampler
        )
        criterion.points = criterion.num_points(outputs.mask_logits)
        assert_equal_to_plain(outputs, criterion, record)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["dense", "shared", "own"])
def test_masks_of_any_size_equal_the_plain_ones(sampler):
    for seed, (grid, side) in enumerate([((4, 3), (4, 3)), ((4, 4), (9, 7)), ((6, 2), (3, 5))]):
        record = Record(seed)
        outputs = random_outputs(
            (2, 1), levels=1, queries=3, grid=grid, side=side, seed=seed, ignored=0.2
        )
        criterion = EomtCriterion(CLASSES, mask_ignore=True, draw=record, **sampler)
        criterion.points = criterion.num_points(outputs.mask_logits)
        assert_equal_to_plain(outputs, criterion, record)


def test_there_are_never_more_points_than_pixels_in_the_logits():
    record = Record()
    loss_of(EomtCriterion(CLASSES, draw=record), random_outputs((2,), grid=(4, 6)))
    loss_of(EomtCriterion(CLASSES, draw=record, points=20), random_outputs((2,), grid=(4, 6)))
    assert [points.shape for points in record.drawn] == [(1, 24 * 3 + 6, 2), (1, 20 * 3 + 5, 2)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["dense", "shared", "own"])
def test_without_a_mask_every_output_gets_a_gradient_and_the_mask_terms_are_zero(sampler):
    outputs = random_outputs((0, 0))
    with torch.no_grad():
        outputs.mask_logits[0, 0, 0] = torch.inf  # 0 x inf would be nan
    losses = loss_of(EomtCriterion(CLASSES, **sampler), outputs)
    assert losses["loss_mask"] == losses["loss_dice"] == 0 and losses["loss_class"] > 0
    of_masks, of_classes = gradients(outputs, losses["loss"])
    assert (of_masks == 0).all() and torch.isfinite(of_classes).all() and (of_classes != 0).any()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["dense", "shared", "own"])
def test_an_image_that_is_ignored_everywhere_is_an_image_without_points(sampler):
    outputs = random_outputs((2, 1))
    outputs.valid[0] = False
    losses = loss_of(EomtCriterion(CLASSES, mask_ignore=True, **sampler), outputs)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(outputs, losses["loss"]))
    of_masks, _ = gradients(outputs, losses["loss"])
    assert (of_masks[0] == 0).all() and (of_masks[1] != 0).any()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["dense", "shared", "own"])
def test_predictions_under_ignored_pixels_do_not_matter(sampler):
    outputs = random_outputs((2, 3), grid=(6, 6), side=(12, 12))
    outputs.valid[:, :, 6:] = False
    values = []
    for fill in (False, True):
        for maps in outputs.masks:
            maps[:, :, 6:] = fill
        criterion = EomtCriterion(CLASSES, mask_ignore=True, draw=Record(), **sampler)
        values.append(loss_of(criterion, outputs)["loss"])
    assert values[0] == values[1]
    assert loss_of(EomtCriterion(CLASSES, draw=Record(), **sampler), outputs)["loss"] != values[0]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["dense", "shared", "own"])
def test_nothing_ignored_changes_nothing(sampler):
    outputs = random_outputs((2, 3))
    plain, other = (
        loss_of(EomtCriterion(CLASSES, draw=Record(), mask_ignore=on, **sampler), outputs)
        for on in (False, True)
    )
    assert torch.allclose(plain["loss"], other["loss"], rtol=1e-6)


def test_least_certain_points_are_taken_from_what_is_not_ignored():
    outputs = random_outputs((1,), levels=1, queries=1, grid=(8, 8), side=(8, 8))
    outputs.valid[:, :, 4:] = False
    with torch.no_grad():
        outputs.mask_logits[..., 4:] = 0.0  # uncertain where it does not count
    losses = loss_of(EomtCriterion(CLASSES, points=16, mask_ignore=True, draw=Record()), outputs)
    of_masks, _ = gradients(outputs, losses["loss"])
    assert (of_masks[..., :4] != 0).sum() > 16


def test_masks_of_one_class_may_overlap():
    """Two instances of one class over each other: each query learns its own."""
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :, :5] = masks[1, :, 3:] = True
    logits = torch.where(masks, 9.0, -9.0).flip(0)[None, None]
    classes = torch.full((1, 1, 2, CLASSES + 1), -9.0)
    classes[..., 3] = 9.0
    losses = EomtCriterion(CLASSES, points=0)(logits, classes, [masks], [torch.tensor([3, 3])])
    assert losses["loss"] < 0.01


def test_the_order_of_masks_does_not_matter():
    outputs = random_outputs((3, 4))
    first = loss_of(EomtCriterion(CLASSES, draw=Record()), outputs)["loss"]
    outputs.masks, outputs.labels = (
        [values.flip(0) for values in lists] for lists in (outputs.masks, outputs.labels)
    )
    assert torch.allclose(
        first, loss_of(EomtCriterion(CLASSES, draw=Record()), outputs)["loss"], rtol=1e-6
    )


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["dense", "shared", "own"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_masks_may_be_bytes_or_floats_and_logits_half_precision(sampler, dtype):
    outputs = random_outputs((2, 3))
    with torch.no_grad():
        for leaf in (outputs.mask_logits, outputs.class_logits):
            leaf.copy_(leaf.bfloat16())
    expected = loss_of(EomtCriterion(CLASSES, draw=Record(), **sampler), outputs)["loss"]
    outputs.masks = [maps.to(dtype) for maps in outputs.masks]
    outputs.mask_logits, outputs.class_logits = (
        leaf.detach().bfloat16().requires_grad_()
        for leaf in (outputs.mask_logits, outputs.class_logits)
    )
    with torch.autocast("cpu", torch.bfloat16):
        losses = loss_of(EomtCriterion(CLASSES, draw=Record(), **sampler), outputs)
    assert losses["loss"].dtype == torch.float32 and losses["loss"] == expected
    assert len(gradients(outputs, losses["loss"])) == 2


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["dense", "shared", "own"])
def test_logits_that_are_nan_give_a_nan_loss_and_no_error(sampler):
    outputs = random_outputs((2, 3))
    with torch.no_grad():
        outputs.mask_logits[0] = torch.nan
    assert torch.isnan(loss_of(EomtCriterion(CLASSES, **sampler), outputs)["loss"])


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["dense", "shared", "own"])
def test_the_logits_are_not_changed(sampler):
    outputs = random_outputs((2, 3))
    before = outputs.mask_logits.detach().clone()
    loss_of(EomtCriterion(CLASSES, **sampler), outputs)
    assert torch.equal(before, outputs.mask_logits)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=["dense", "shared", "own"])
def test_nothing_but_the_costs_is_read_from_the_device(sampler):
    outputs = random_outputs((2, 0, 3), levels=3)
    with CountReads() as counter:
        gradients(
            outputs, loss_of(EomtCriterion(CLASSES, mask_ignore=True, **sampler), outputs)["loss"]
        )
    assert not counter.reads  # the one copy of the costs is no read of a value


def test_weights_multiply_their_terms():
    outputs = random_outputs((1, 1), queries=1)  # nothing to choose from
    once = loss_of(EomtCriterion(CLASSES, draw=Record()), outputs)
    other = loss_of(EomtCriterion(CLASSES, weights=(1.0, 0.0, 10.0), draw=Record()), outputs)
    for name, factor in (("class", 0.5), ("mask", 0.0), ("dice", 2.0)):
        assert torch.allclose(other[f"loss_{name}"], factor * once[f"loss_{name}"])
    assert torch.allclose(
        other["loss"], sum(value for name, value in other.items() if name != "loss")
    )


def test_another_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="for 4 classes and no object, the logits have 6"):
        loss_of(EomtCriterion(4), random_outputs((1,)))


def test_softplus_and_its_gradient_are_those_of_torch():
    x = torch.tensor([-200.0, -30.0, -1.0, -1e-4, 0.0, 1e-4, 1.0, 30.0, 200.0], requires_grad=True)
    exact = torch.nn.functional.softplus(x.double())
    assert torch.allclose(softplus(x).double(), exact, rtol=1e-6, atol=2e-7)
    (ours,), (expected,) = (
        torch.autograd.grad(softplus(x).sum(), x),
        torch.autograd.grad(exact.sum(), x),
    )
    assert torch.allclose(ours, expected, rtol=1e-6, atol=1e-7)
