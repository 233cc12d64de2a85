"""Facts about the D-FINE of transformers 5.23 that visionloop relies on."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from torch import nn
from transformers import DFineConfig, DFineForObjectDetection
from transformers.loss.loss_d_fine import DFineForObjectDetectionLoss
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.d_fine.modeling_d_fine import get_contrastive_denoising_training_group

from visionloop.tasks.detection.model import new_config

CLASSES, LAYERS, QUERIES = 3, 3, 6


def small_dfine(**fields):
    """Return a D-FINE of our smallest size with random weights. fields: of its config."""
    config = new_config("tiny")
    config.num_labels = CLASSES
    for name, value in fields.items():
        setattr(config, name, value)
    return DFineForObjectDetection(config)


def random_targets(*sizes):
    """Return the targets of one image for each size, with that many boxes (cxcywh, relative)."""
    return [
        {
            "class_labels": torch.randint(0, CLASSES, (size,)),
            "boxes": torch.cat(
                [0.2 + 0.6 * torch.rand(size, 2), 0.05 + 0.3 * torch.rand(size, 2)], -1
            ),
        }
        for size in sizes
    ]


def random_outputs(images):
    """Return the loss inputs of a training forward without denoising, as leaves with gradients."""
    centers = 0.2 + 0.6 * torch.rand(images, 1, QUERIES, 2)
    base = torch.cat([centers, 0.1 + 0.2 * torch.rand(images, 1, QUERIES, 2)], -1)
    noise = 0.02 * torch.randn(images, LAYERS + 1, QUERIES, 4)
    leaves = {
        "logits": torch.randn(images, LAYERS + 1, QUERIES, CLASSES),
        "boxes": (base + noise).clamp(0.01, 0.99),
        "corners": torch.randn(images, LAYERS, QUERIES, 4 * 33),
        "proposal_logits": torch.randn(images, QUERIES, CLASSES),
        "proposals": base[:, 0].clone(),
    }
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    return SimpleNamespace(**leaves, start=base.expand(-1, LAYERS, -1, -1))


def upstream_loss(outputs, targets):
    """Return (loss, {term: value}, auxiliary outputs as the loss used them)."""
    return DFineForObjectDetectionLoss(
        outputs.logits[:, -1],
        targets,
        outputs.logits.device,
        outputs.boxes[:, -1],
        DFineConfig(num_labels=CLASSES, auxiliary_loss=True),
        outputs.logits,
        outputs.boxes,
        enc_topk_logits=outputs.proposal_logits,
        enc_topk_bboxes=outputs.proposals,
        predicted_corners=outputs.corners,
        initial_reference_points=outputs.start,
    )


# The loss: the criterion of the detection task replaces it ---------------------------------------


def test_the_loss_pairs_each_head_with_the_distributions_of_the_next_layer():
    """The D-FINE criterion of ours pairs classes, boxes and distributions of one layer."""
    outputs = random_outputs(2)
    heads = [
        head for head in upstream_loss(outputs, random_targets(2, 3))[2] if "pred_corners" in head
    ]
    assert heads
    for head in heads:
        is_logits = [torch.equal(head["logits"], outputs.logits[:, i]) for i in range(LAYERS + 1)]
        is_corners = [
            torch.equal(head["pred_corners"], outputs.corners[:, i]) for i in range(LAYERS)
        ]
        # the logits have one head more in front, so head i + 1 and corners i belong to one layer
        assert is_corners.index(True) == is_logits.index(True)


def test_the_last_layer_has_no_distribution_loss():
    """The D-FINE criterion of ours trains the distributions of every layer."""
    outputs = random_outputs(2)
    loss = upstream_loss(outputs, random_targets(2, 3))[0]
    gradient = torch.autograd.grad(loss, outputs.corners)[0]
    assert gradient[:, -1].norm() == 0 < gradient[:, 0].norm()


def test_boxes_are_matched_per_layer_and_not_by_the_union_of_layers():
    """The matcher of ours unites the matches of all layers for box terms, as the authors do."""
    outputs, targets = random_outputs(1), random_targets(1)
    with torch.no_grad():  # each layer prefers another query for the one box
        outputs.boxes.fill_(0.05)
        for layer in range(LAYERS + 1):
            outputs.boxes[0, layer, layer] = 0.98 * targets[0]["boxes"][0]
    gradient = torch.autograd.grad(upstream_loss(outputs, targets)[0], outputs.boxes)[0]
    has_gradient = gradient.abs().sum(-1) > 0  # [1, LAYERS + 1, QUERIES]
    assert has_gradient.sum(-1).max() == 1 < has_gradient.any(1).sum()


def test_the_loss_is_divided_by_the_boxes_of_one_rank(request):
    """The D-FINE criterion of ours divides by counts of the whole step, averaged over ranks."""
    outputs, targets = random_outputs(2), random_targets(2, 3)
    alone = upstream_loss(outputs, targets)[0]
    summed = request.getfixturevalue("second_rank")
    assert torch.equal(upstream_loss(outputs, targets)[0], alone)
    assert summed == []


# The network: a subclass of ours corrects or configures it ---------------------------------------


def test_anchors_are_made_in_bf16_under_autocast_and_move_by_up_to_1_5_pixels():
    """The detection network makes its anchors in fp32."""
    network = small_dfine().eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        outputs = network.model(torch.rand(1, 3, 256, 256))
    # the sum of a head's output and the anchors is bf16 only if both are
    assert outputs.enc_outputs_coord_logits.dtype == torch.bfloat16
    shapes = tuple((640 // stride,) * 2 for stride in (8, 16, 32))
    (exact, valid), (rough, rough_valid) = (
        network.model.generate_anchors(shapes, dtype=dtype)
        for dtype in (torch.float32, torch.bfloat16)
    )
    moved = 640 * (exact.sigmoid() - rough.float().sigmoid()).abs()[..., :2]
    assert 1.4 < moved[(valid & rough_valid)[..., 0]].max() < 1.6
    assert not torch.equal(valid, rough_valid)


def test_one_image_with_many_boxes_multiplies_the_denoising_queries():
    """The denoising of the detection task bounds the number of queries."""
    embedding = nn.Embedding(CLASSES + 1, 8)
    splits, lengths = [], []
    for boxes in (7, 600):
        *_, mask, meta = get_contrastive_denoising_training_group(
            random_targets(boxes, 1), CLASSES, 300, embedding, num_denoising_queries=100
        )
        splits.append(meta["dn_num_split"][0])
        lengths.append(len(mask))
    assert 150 < splits[0] <= 200
    assert (splits[1], lengths[1]) == (1200, 1500)


def test_almost_every_weight_is_drawn_with_a_deviation_of_001_or_002():
    """The detection initialization draws the weights of a model from scratch as the authors do."""
    drawn = narrow = 0
    for layer in small_dfine().modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.std():
            is_narrow = any(abs(layer.weight.std() / std - 1) < 0.2 for std in (0.01, 0.02))
            drawn, narrow = drawn + layer.weight.numel(), narrow + layer.weight.numel() * is_narrow
    assert narrow > 0.95 * drawn


@pytest.mark.parametrize(("eval_size", "calls"), [(256, 0), (None, 1)])
def test_a_config_with_eval_size_evaluates_without_position_embeddings(eval_size, calls):
    """The detection model sets eval_size to None."""
    layer, embedded = small_dfine(eval_size=eval_size).model.encoder.aifi[0], []
    layer.position_embedding.register_forward_hook(lambda *_: embedded.append(1))
    layer.eval()(torch.rand(1, layer.encoder_hidden_dim, 8, 8))
    assert len(embedded) == calls


def test_a_config_with_anchor_image_size_evaluates_at_that_size_only():
    """The detection model sets anchor_image_size to None."""
    pixel_values = torch.rand(1, 3, 192, 192)
    with pytest.raises(RuntimeError):
        small_dfine(anchor_image_size=[256, 256]).eval().model(pixel_values)
    small_dfine(anchor_image_size=None).eval().model(pixel_values)


def test_after_the_encoder_only_length_and_device_of_inputs_embeds_are_read():
    """The detection network runs the encoder itself and passes a placeholder for inputs_embeds."""
    network, pixel_values = small_dfine().eval().model, torch.rand(2, 3, 256, 256)
    levels = network.backbone(pixel_values, pixel_values[:, 0])
    projected = [
        project(level)
        for project, (level, _) in zip(network.encoder_input_proj, levels, strict=True)
    ]
    encoded = BaseModelOutput(last_hidden_state=network.encoder(projected).last_hidden_state)
    first, second = (
        network(None, inputs_embeds=embeds, encoder_outputs=encoded).intermediate_logits
        for embeds in (torch.rand(2), torch.zeros(2, 5))
    )
    assert torch.equal(first, second)


def test_tied_heads_are_written_once(tmp_path):
    """The detection model folder writes its files the same way, for from_pretrained."""
    network = small_dfine()
    network.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        stored = list(file.keys())
    in_module, in_file = (
        sum(name.endswith("class_embed.0.weight") for name in names)
        for names in (network.state_dict(), stored)
    )
    assert (in_module, in_file) == (2, 1)


def test_dfine_refuses_gradient_checkpointing():
    """Gradient checkpointing of the engine wraps the blocks itself."""
    with warnings.catch_warnings(), pytest.raises(ValueError, match="checkpointing"):
        warnings.simplefilter("ignore", FutureWarning)
        small_dfine().gradient_checkpointing_enable()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_the_forward_reads_the_batch_size_with_len_which_export_makes_constant():
    """The ONNX export of detection replaces that function during the export."""
    network, pixel_values = small_dfine().eval().requires_grad_(False), torch.rand(2, 3, 256, 256)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.jit.trace(
            lambda pixels: network.model(pixels).intermediate_logits[:, -1],
            pixel_values,
            check_trace=False,
        )
    assert any("Using len to get tensor shape" in str(warning.message) for warning in caught)
