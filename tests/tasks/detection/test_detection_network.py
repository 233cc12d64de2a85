"""Our forward of D-FINE and its denoising queries against those of transformers."""

import pytest
import torch
import transformers
from transformers.models.d_fine.modeling_d_fine import get_contrastive_denoising_training_group

from visionloop.tasks.detection.denoising import noisy_queries
from visionloop.tasks.detection.matcher import Targets

FIELDS = (
    "intermediate_logits",
    "intermediate_reference_points",
    "intermediate_predicted_corners",
    "initial_reference_points",
    "enc_topk_logits",
    "enc_topk_bboxes",
)


def targets_of(*sizes):
    generator = torch.Generator().manual_seed(len(sizes))
    return [
        {
            "class_labels": torch.randint(3, (size,), generator=generator),
            "boxes": 0.2 + 0.3 * torch.rand(size, 4, generator=generator),
        }
        for size in sizes
    ]


def forward_and_backward(network, model, targets):
    """Return ({field: output}, {name: gradient}, layout of the denoising queries)."""
    torch.manual_seed(1)
    outputs = model(torch.rand(3, 3, 128, 160), labels=targets)
    gradients = {}
    if network.training:
        # sums of one kind of output alone could hide another's missing gradient
        sum((outputs[name] * torch.rand_like(outputs[name])).sum() for name in FIELDS).backward()
        gradients = {
            name: parameter.grad
            for name, parameter in network.named_parameters()
            if parameter.grad is not None
        }
    return {name: outputs[name] for name in FIELDS}, gradients, outputs.denoising_meta_values


@pytest.mark.parametrize(
    ("training", "sizes", "fields"),
    [
        (True, (2, 0, 5), {}),
        (True, (2, 0, 5), {"normalize_before": True, "num_denoising": 3}),
        (True, (0, 0, 0), {}),
        (True, None, {"num_feature_levels": 4, "decoder_n_points": [3, 6, 3, 3]}),
        (False, (1, 2, 3), {}),
    ],
)
def test_our_forward_equals_that_of_transformers_to_the_last_bit(
    training, sizes, fields, tiny_module
):
    ours = tiny_module(**fields).train(training)
    theirs = transformers.DFineForObjectDetection(ours.config).train(training)
    theirs.load_state_dict(ours.state_dict())
    targets = None if sizes is None else targets_of(*sizes)
    outputs, gradients, meta = forward_and_backward(ours, ours, targets)
    # their head adds their own loss
    expected, expected_gradients, expected_meta = forward_and_backward(
        theirs, theirs.model, targets
    )
    assert [name for name in FIELDS if not torch.equal(outputs[name], expected[name])] == []
    if training and not (sizes and any(sizes)):
        # a parameter that was not used has a gradient of zero, for the other ranks
        assert not gradients.pop("model.denoising_class_embed.weight").any()
    assert gradients.keys() == expected_gradients.keys()
    differ = [
        name for name in gradients if not torch.equal(gradients[name], expected_gradients[name])
    ]
    assert differ == []
    assert (meta is None) == (expected_meta is None)


@pytest.mark.parametrize("sizes", [(1,), (4, 0, 7), (60, 3)])
def test_denoising_queries_equal_those_of_transformers_to_the_last_bit(sizes, tiny_module):
    targets, module = targets_of(*sizes), tiny_module()
    config, class_embed = module.config, module.model.denoising_class_embed
    torch.manual_seed(0)
    ours = noisy_queries(Targets.concatenate(targets), config, class_embed)
    torch.manual_seed(0)
    embeddings, box_logits, mask, meta = get_contrastive_denoising_training_group(
        targets,
        config.num_labels,
        config.num_queries,
        class_embed,
        config.num_denoising,
        config.label_noise_ratio,
        config.box_noise_scale,
    )
    assert torch.equal(ours.embeddings, embeddings)
    assert torch.equal(ours.box_logits, box_logits)
    assert torch.equal(ours.mask, mask)
    positives = meta.pop("dn_positive_idx")
    assert [queries.tolist() for queries in ours.meta.pop("dn_positive_idx")] == [
        queries.tolist() for queries in positives
    ]
    assert ours.meta == meta


def test_the_encoder_clamps_what_is_not_finite_and_changes_nothing_else(tiny_module):
    (layer,) = tiny_module().model.encoder.aifi[0].layers
    theirs = transformers.models.d_fine.modeling_d_fine.DFineEncoderLayer.forward
    hidden_states = torch.randn(2, 5, layer.hidden_size)
    with torch.no_grad():
        layer.final_layer_norm.bias[3] = torch.inf
        outputs = layer(hidden_states), theirs(layer, hidden_states, None)
    assert torch.equal(*outputs) and outputs[0].isfinite().all()
