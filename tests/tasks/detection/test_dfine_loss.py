"""D-FINE's criterion: equal to the plain one, and what must hold of it."""

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from dfine_outputs import evaluation_form, gradients, random_outputs, rows_of, with_gradients
from host_syncs import CountReads
from plain_dfine_loss import matching, plain_dfine_loss

from visionloop.engine.batch import Normalizers
from visionloop.tasks.detection.loss import TERMS, DFineCriterion, last_layer_losses

KEYS = ["loss", *(f"loss_{part}{name}" for part in ("", "dn_") for name in TERMS)]


def assert_equal_to_plain(outputs, targets, losses, plain):
    assert list(losses) == KEYS and set(plain) == set(KEYS)
    for name in KEYS:
        assert losses[name].dtype == torch.float32
        assert abs(losses[name].item() - plain[name].item()) <= 1e-6 * max(
            1, plain["loss"].item()
        ), name
    ours, theirs = gradients(outputs, losses["loss"]), gradients(outputs, plain["loss"])
    for name in ours:
        assert (ours[name] - theirs[name]).norm() <= 1e-5 * theirs[name].norm(), name


@pytest.mark.parametrize(
    ("sizes", "layers", "denoising"),
    [
        ((3, 1), 3, 6),
        ((4, 0, 2), 6, 8),
        ((0, 0), 2, 6),
        ((12, 3), 1, 6),
        ((2, 5), 4, 0),
        ((1,), 5, 3),
        ((0, 9), 2, 4),
    ],
)
def test_the_criterion_equals_the_plain_one(sizes, layers, denoising):
    outputs, targets = random_outputs(sizes, layers=layers, denoising=denoising, seed=layers)
    assert_equal_to_plain(
        outputs, targets, DFineCriterion(4)(outputs, targets), plain_dfine_loss(outputs, targets)
    )


def test_other_bins_and_scales_equal_the_plain_ones():
    outputs, targets = random_outputs((3, 2), layers=2, reg_max=16, seed=5)
    shape = {"reg_max": 16, "reg_scale": 8.0, "up": 0.7}
    assert_equal_to_plain(
        outputs,
        targets,
        DFineCriterion(4, **shape)(outputs, targets),
        plain_dfine_loss(outputs, targets, **shape),
    )


def test_the_loss_in_eval_mode_equals_the_plain_one():
    outputs, targets = random_outputs((3, 0, 2), layers=3)
    outputs = evaluation_form(outputs)
    assert (
        outputs.intermediate_logits.shape[1] == outputs.intermediate_predicted_corners.shape[1] == 1
    )
    losses = DFineCriterion(4)(outputs, targets)
    assert_equal_to_plain(outputs, targets, losses, plain_dfine_loss(outputs, targets))
    assert losses["loss_ddf"] == losses["loss_dn_vfl"] == 0
    outputs.enc_topk_logits = outputs.enc_topk_bboxes = None
    assert_equal_to_plain(
        outputs, targets, DFineCriterion(4)(outputs, targets), plain_dfine_loss(outputs, targets)
    )


def test_weights_multiply_their_terms():
    outputs, targets = random_outputs((3, 1))
    once = DFineCriterion(4)(outputs, targets)
    weights = {"vfl": 2.0, "bbox": 0.0, "giou": 1.0, "fgl": 0.3, "ddf": 3.0}
    other = DFineCriterion(4, weights=weights)(outputs, targets)
    for part in ("", "dn_"):
        for name, factor in {"vfl": 2, "bbox": 0, "giou": 0.5, "fgl": 2, "ddf": 2}.items():
            assert torch.allclose(other[f"loss_{part}{name}"], factor * once[f"loss_{part}{name}"])
    assert torch.allclose(
        other["loss"], sum(value for name, value in other.items() if name != "loss")
    )


def one_box_two_heads():
    """Query 0 of the layer and query 1 of the encoder are the box; query 2 is far off in both."""
    box, off = torch.tensor([0.5, 0.5, 0.2, 0.2]), torch.tensor([0.1, 0.1, 0.1, 0.1])
    near = torch.tensor([0.5, 0.52, 0.2, 0.2])
    outputs = SimpleNamespace(
        intermediate_logits=torch.zeros(1, 1, 3, 2),
        intermediate_reference_points=torch.stack([box, near, off])[None, None],
        intermediate_predicted_corners=torch.zeros(1, 1, 3, 132),
        initial_reference_points=torch.stack([box, near, off])[None, None],
        enc_topk_logits=torch.zeros(1, 3, 2),
        enc_topk_bboxes=torch.stack([off, box, near])[None],
        denoising_meta_values=None,
    )
    return with_gradients(outputs), [{"class_labels": torch.tensor([1]), "boxes": box[None]}]


def test_heads_that_disagree_share_boxes_but_not_classes():
    outputs, targets = one_box_two_heads()
    gradient_of = gradients(outputs, DFineCriterion(2)(outputs, targets)["loss"])
    # class: 1 (p - 1) at the own query, 0.75 p^3 anywhere else
    assert torch.allclose(
        gradient_of["intermediate_logits"][0, 0],
        torch.tensor([[0.09375, -0.5], [0.09375] * 2, [0.09375] * 2]).double(),
    )
    assert torch.allclose(
        gradient_of["enc_topk_logits"][0],
        torch.tensor([[0.09375] * 2, [0.09375, -0.5], [0.09375] * 2]).double(),
    )
    # boxes and edges: both queries that any head matched, and no other
    assert gradient_of["intermediate_reference_points"][0, 0].abs().sum(-1).bool().tolist() == [
        False,
        True,
        False,
    ]  # the first is exact
    assert gradient_of["intermediate_predicted_corners"][0, 0].abs().sum(-1).bool().tolist() == [
        True,
        True,
        False,
    ]
    assert gradient_of["enc_topk_bboxes"][0].abs().sum(-1).bool().tolist() == [True, False, False]


def test_a_student_equal_to_the_teacher_has_no_distillation_loss():
    outputs, targets = random_outputs((3, 1), layers=3)
    with torch.no_grad():
        outputs.intermediate_predicted_corners.copy_(outputs.intermediate_predicted_corners[:, -1:])
    losses = DFineCriterion(4)(outputs, targets)
    assert losses["loss_ddf"] == losses["loss_dn_ddf"] == 0


def test_the_teacher_gets_no_gradient_from_its_students():
    outputs, targets = random_outputs((3, 1), layers=3)
    losses = DFineCriterion(4)(outputs, targets)
    gradient_of = gradients(outputs, losses["loss_ddf"] + losses["loss_dn_ddf"])
    assert gradient_of["intermediate_predicted_corners"][:, :-1].abs().sum() > 0
    assert gradient_of["intermediate_predicted_corners"][:, -1].abs().sum() == 0
    assert (
        gradient_of["intermediate_logits"].abs().sum()
        == gradient_of["intermediate_reference_points"].abs().sum()
        == 0
    )


def test_a_batch_without_boxes_has_a_finite_loss_of_class_and_distillation_terms():
    outputs, targets = random_outputs((0, 0, 0))
    losses = DFineCriterion(4)(outputs, targets)
    assert {name for name, value in losses.items() if value != 0} == {
        "loss",
        "loss_vfl",
        "loss_ddf",
    }
    assert all(
        torch.isfinite(gradient).all() for gradient in gradients(outputs, losses["loss"]).values()
    )


def test_the_order_of_boxes_does_not_matter():
    outputs, targets = random_outputs((5, 3), denoising=0)
    flipped = [{name: values.flip(0) for name, values in target.items()} for target in targets]
    first, second = (DFineCriterion(4)(outputs, order)["loss"] for order in (targets, flipped))
    assert torch.allclose(first, second, rtol=1e-6)


def test_normalizers_of_this_batch_change_nothing():
    outputs, targets = random_outputs((5, 0, 3))
    alone, counted = (
        DFineCriterion(4)(outputs, targets, normalizers)
        for normalizers in (None, Normalizers({"boxes": 8.0}))
    )
    assert all(torch.allclose(alone[name], counted[name], rtol=1e-6) for name in KEYS)
    outputs, targets = random_outputs((0, 0))
    alone, counted = (
        DFineCriterion(4)(outputs, targets, normalizers)
        for normalizers in (None, Normalizers({"boxes": 1.0}))
    )
    assert all(torch.allclose(alone[name], counted[name], rtol=1e-6) for name in KEYS)


def test_micro_batches_add_up():
    """Class and denoising terms give the whole batch, the others a mean weighted by boxes."""
    outputs, targets = random_outputs((5, 2, 0, 3), seed=2)
    whole = DFineCriterion(4)(outputs, targets)
    micro_batches = [rows_of(outputs, targets, rows) for rows in (slice(0, 1), slice(1, 4))]
    normalizers = Normalizers({"boxes": 10.0})
    counted = [DFineCriterion(4)(*rows, normalizers) for rows in micro_batches]
    alone = [DFineCriterion(4)(*rows) for rows in micro_batches]
    for name in KEYS[1:]:
        total, mean = (
            sum(losses[name] for losses in counted),
            sum(losses[name] for losses in alone) / 2,
        )
        assert torch.allclose(total, mean, rtol=1e-5), name  # both micro-batches have five boxes
        if name == "loss_vfl" or (name.startswith("loss_dn") and not name.endswith("ddf")):
            assert torch.allclose(total, whole[name], rtol=1e-5), name


@pytest.mark.parametrize("sizes", [(2, 1), (0, 0)])
def test_counts_are_summed_over_ranks_once_with_or_without_boxes(sizes):
    calls = []
    outputs, targets = random_outputs(sizes)
    normalizers = Normalizers(
        {"boxes": 3.0}, sum_over_ranks=lambda numbers: calls.append(numbers) or numbers
    )
    DFineCriterion(4)(outputs, targets, normalizers)
    assert len(calls) == 1 and len(calls[0]) == 5


def test_denoising_queries_may_be_made_of_some_of_the_boxes():
    outputs, chosen = random_outputs((2, 2), layers=2, seed=4)
    another = {"class_labels": torch.tensor([1]), "boxes": torch.full((1, 4), 0.3)}
    targets = [
        {name: torch.cat([values, another[name]]) for name, values in target.items()}
        for target in chosen
    ]
    losses, of_chosen = (
        DFineCriterion(4)(outputs, targets, denoising_targets=chosen),
        DFineCriterion(4)(outputs, chosen),
    )
    for name in ("vfl", "bbox", "giou", "fgl"):
        assert torch.allclose(6 * losses[f"loss_dn_{name}"], 4 * of_chosen[f"loss_dn_{name}"]), (
            name
        )  # the same sum over more boxes
    with pytest.raises(ValueError, match="were not made of"):
        DFineCriterion(4)(outputs, targets)


def test_600_boxes_in_an_image_get_as_many_queries_as_there_are():
    outputs, targets = random_outputs((600, 2), queries=30, layers=2, denoising=1)
    losses = DFineCriterion(4)(outputs, targets)
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(
        torch.isfinite(gradient).all() for gradient in gradients(outputs, losses["loss"]).values()
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -2.0])
def test_no_box_makes_the_criterion_raise(value):
    outputs, targets = random_outputs((3, 2))
    with torch.no_grad():
        outputs.intermediate_reference_points[0, :, ::2] = value
        outputs.enc_topk_bboxes[1] = value
        outputs.initial_reference_points = outputs.initial_reference_points * value
    DFineCriterion(4)(outputs, targets)["loss"].backward()


def test_the_loss_is_fp32_whatever_autocast_did():
    outputs, targets = random_outputs((3, 2))
    rounded = copy.copy(outputs)
    for name, value in vars(outputs).items():
        if isinstance(value, torch.Tensor):
            setattr(rounded, name, value.detach().bfloat16())
    exact = copy.copy(rounded)
    for name, value in vars(rounded).items():
        if isinstance(value, torch.Tensor):
            setattr(exact, name, value.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first = DFineCriterion(4)(rounded, targets)
    second = DFineCriterion(4)(exact, targets)
    assert all(
        first[name].dtype == torch.float32 and torch.equal(first[name], second[name])
        for name in KEYS
    )


def test_the_host_reads_the_device_once(monkeypatch):
    outputs, targets = random_outputs((3, 0, 2))
    reads = []

    def noted(name):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor,
            name,
            lambda self, *args, **kwargs: reads.append(name) or original(self, *args, **kwargs),
        )

    for name in (
        "cpu",
        "numpy",
        "item",
        "tolist",
        "__array__",
        "__float__",
        "__int__",
        "__bool__",
        "__index__",
    ):
        noted(name)
    with CountReads() as counter:
        DFineCriterion(4)(outputs, targets)["loss"].backward()
    assert reads == ["cpu", "numpy"]  # the costs, and the same memory as an array
    assert not counter.reads


def test_nothing_but_the_costs_leaves_the_device(monkeypatch):
    outputs, targets = random_outputs((3, 0, 2))
    costs, original = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: costs.append(original(self)) or costs[-1])
    DFineCriterion(4)(outputs, targets)
    # tensors without values: whatever else would read one, or meet a tensor of the host, raises
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: costs.pop())
    monkeypatch.setattr(
        torch, "autocast", lambda *args, **kwargs: nullcontext()
    )  # knows no such device
    values = {
        k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in vars(outputs).items()
    }
    far = with_gradients(SimpleNamespace(**values))
    positives = [queries.to("meta") for queries in outputs.denoising_meta_values["dn_positive_idx"]]
    far.denoising_meta_values = outputs.denoising_meta_values | {"dn_positive_idx": positives}
    losses = DFineCriterion(4)(
        far, [{k: v.to("meta") for k, v in target.items()} for target in targets]
    )
    losses["loss"].backward()
    assert not costs and all(value.device.type == "meta" for value in losses.values())


def test_another_number_of_classes_is_refused():
    outputs, targets = random_outputs((1, 1), classes=5)
    with pytest.raises(ValueError, match="4 classes"):
        DFineCriterion(4)(outputs, targets)


@pytest.mark.parametrize("layer", range(3))
def test_every_layer_learns_classes_boxes_and_edges_from_normal_queries(layer):
    outputs, targets = random_outputs((3, 1), layers=3)
    skip = outputs.denoising_meta_values["dn_num_split"][0]
    gradient_of = gradients(outputs, DFineCriterion(4)(outputs, targets)["loss"])
    for queries in (slice(0, skip), slice(skip, None)):
        assert gradient_of["intermediate_logits"][:, layer + 1, queries].abs().sum() > 0
        assert gradient_of["intermediate_reference_points"][:, layer + 1, queries].abs().sum() > 0
        assert gradient_of["intermediate_predicted_corners"][:, layer, queries].abs().sum() > 0


def test_losses_of_the_last_layer_are_sums_over_each_image():
    outputs, targets = random_outputs((3, 0, 12), denoising=0)
    logits, boxes = (
        outputs.intermediate_logits[:, -1].detach(),
        outputs.intermediate_reference_points[:, -1].detach(),
    )
    losses = last_layer_losses(logits, boxes, targets)
    assert losses.shape == (3,) and losses.dtype == torch.float32
    for b, target in enumerate(targets):
        single = [target]
        form = SimpleNamespace(
            intermediate_logits=logits[b, None, None],
            intermediate_reference_points=boxes[b, None, None],
            intermediate_predicted_corners=torch.zeros(1, 1, 10, 132),
            initial_reference_points=boxes[b, None, None],
            enc_topk_logits=None,
            enc_topk_bboxes=None,
            denoising_meta_values=None,
        )
        plain = plain_dfine_loss(form, single)  # one head: the union is its own matching
        pairs = len(matching(logits[b].double(), boxes[b].double(), target))
        expected = plain["loss_vfl"] * max(1, len(target["boxes"])) + (
            plain["loss_bbox"] + plain["loss_giou"]
        ) * max(1, pairs)
        assert torch.allclose(losses[b].double(), expected, rtol=1e-6)
