"""Facts about the EoMT of transformers 5.23 that visionloop relies on."""

import warnings
from collections import Counter

import pytest
import torch
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode
from transformers import Dinov2Config, Dinov2Model, EomtConfig, EomtForUniversalSegmentation
from transformers.models.eomt.modeling_eomt import EomtLoss

CLASSES, BLOCKS, QUERIES, SIDE, PATCH = 5, 2, 6, 32, 8
TRUNK = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": PATCH,
}
HEADS = {
    "num_blocks": BLOCKS,
    "num_queries": QUERIES,
    "num_upscale_blocks": 1,
    "num_labels": CLASSES,
    "train_num_points": 64,
}


def small_eomt(**fields):
    """Return an EoMT with random weights. fields: of its config."""
    return EomtForUniversalSegmentation(EomtConfig(**TRUNK | HEADS | fields))


def random_targets(*sizes):
    """Return (masks as floats, class ids) of images with that many masks each."""
    masks = [(torch.rand(size, SIDE, SIDE) > 0.5).float() for size in sizes]
    return masks, [torch.randperm(CLASSES)[:size] for size in sizes]


def random_predictions(images):
    """Return (mask logits, class logits) of one level."""
    return torch.randn(images, QUERIES, 8, 8), torch.randn(images, QUERIES, CLASSES + 1)


def upstream_loss(predictions, masks, labels):
    """Return {term: value} of one level."""
    config = EomtConfig(**TRUNK | HEADS)
    weights = {
        "loss_cross_entropy": config.class_weight,
        "loss_mask": config.mask_weight,
        "loss_dice": config.dice_weight,
    }
    return EomtLoss(config, weights)(*predictions, masks, labels)


class CountCpuCopies(TorchFunctionMode):
    """Count the calls of `Tensor.cpu`."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.calls[getattr(function, "__name__", "")] += 1
        return function(*args, **(kwargs or {}))


# The loss: the criterion of the segmentation task replaces it ------------------------------------


def test_the_mask_loss_is_divided_by_the_masks_of_one_rank(request):
    """The segmentation criterion divides by counts of the whole step, averaged over ranks."""
    predictions, targets = random_predictions(2), random_targets(2, 3)

    def mask_loss():
        torch.manual_seed(0)  # of the sampled points
        return upstream_loss(predictions, *targets)["loss_mask"]

    alone = mask_loss()
    summed = request.getfixturevalue("second_rank")
    assert torch.equal(mask_loss(), alone)
    assert summed == []


def test_matching_costs_are_copied_to_the_host_once_per_image_and_level():
    """The segmentation matcher copies all costs at once."""
    masks, labels = random_targets(1, 2, 3)
    with CountCpuCopies() as counter:
        small_eomt().train()(torch.rand(3, 3, SIDE, SIDE), mask_labels=masks, class_labels=labels)
    assert counter.calls["cpu"] == 3 * (BLOCKS + 1)


@pytest.mark.parametrize(
    ("mask_dtype", "logits_dtype"),
    [
        (torch.bool, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
    ],
)
def test_the_loss_fails_on_bool_masks_and_in_half_precision(mask_dtype, logits_dtype):
    """The segmentation criterion takes masks as class ids and computes in fp32 under autocast."""
    predictions, (masks, labels) = random_predictions(2), random_targets(2, 3)
    upstream_loss(predictions, masks, labels)
    predictions = [logits.to(logits_dtype) for logits in predictions]
    with pytest.raises(RuntimeError):
        upstream_loss(predictions, [mask.to(mask_dtype) for mask in masks], labels)


# The network: modules of ours configure, load and run it -----------------------------------------


def test_training_never_anneals_the_attention_masks():
    """The mask annealing of the segmentation task writes `attn_mask_probs` itself."""
    network, (masks, labels) = small_eomt().train(), random_targets(2, 3)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    for _ in range(3):
        network(
            torch.rand(2, 3, SIDE, SIDE), mask_labels=masks, class_labels=labels
        ).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert network.attn_mask_probs.min() == 1
    calls = []
    network.class_predictor.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        network.eval()(torch.rand(1, 3, SIDE, SIDE))
    assert len(calls) == BLOCKS + 1  # intermediate masks are predicted in evaluation too


def load_with_fused_swiglu(network, folder):
    """Save the network with fused SwiGLU weights, as old files have them; load it twice.

    Returns ([networks], names of the missing weights).
    """
    weights = {}
    for name, tensor in network.state_dict().items():
        if name.endswith(("gate_proj.weight", "gate_proj.bias")):
            up = network.state_dict()[name.replace("gate_proj", "up_proj")]
            weights[name.replace("gate_proj", "weights_in")] = torch.cat([tensor, up])
        elif "up_proj" not in name:
            weights[name.replace("down_proj", "weights_out")] = tensor
    folder.mkdir()
    network.config.save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    loads = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        loads.append(
            type(network).from_pretrained(folder, output_loading_info=True, use_safetensors=True)
        )
    return [module for module, _ in loads], loads[0][1]["missing_keys"]


def test_fused_swiglu_weights_are_split_for_dinov2_and_random_in_an_eomt(tmp_path):
    """The segmentation loader of fused weights splits them before the network is loaded."""
    eomt = small_eomt(use_swiglu_ffn=True)
    (first, second), missing = load_with_fused_swiglu(eomt, tmp_path / "eomt")
    assert sorted(missing) == sorted(name for name in eomt.state_dict() if ".mlp." in name)
    assert not torch.equal(
        first.layers[0].mlp.gate_proj.weight, second.layers[0].mlp.gate_proj.weight
    )
    dinov2 = Dinov2Model(Dinov2Config(**TRUNK, use_swiglu_ffn=True))
    assert not load_with_fused_swiglu(dinov2, tmp_path / "dinov2")[1]


def test_a_network_runs_at_one_size_and_draws_the_positions_of_another_at_random(tmp_path):
    """The segmentation positions resize the stored table before the weights are loaded."""
    network, tables = small_eomt(), []
    with pytest.raises(RuntimeError):
        network(torch.rand(1, 3, 48, 48))
    network.save_pretrained(tmp_path)
    for seed in (0, 1):
        torch.manual_seed(seed)
        other = EomtForUniversalSegmentation.from_pretrained(
            tmp_path, image_size=48, ignore_mismatched_sizes=True, use_safetensors=True
        )
        tables.append(other.embeddings.position_embeddings.weight)
    assert not torch.equal(*tables)


def test_an_image_size_of_two_sides_is_refused():
    """The segmentation config holds one number, so models are square."""
    with pytest.raises(TypeError):
        small_eomt(image_size=[SIDE, SIDE])


def test_attention_masks_are_floats_for_every_head_and_pair_of_tokens():
    """The segmentation attention replaces them by bool masks of [B, 1, queries, tokens]."""
    network, masks = small_eomt().train(), []
    network.layers[-1].register_forward_pre_hook(lambda _, inputs: masks.append(inputs[1]))
    network(torch.rand(2, 3, SIDE, SIDE))
    tokens = QUERIES + network.embeddings.num_prefix_tokens + (SIDE // PATCH) ** 2
    assert masks[0].dtype == torch.float32
    assert masks[0].shape == (2, TRUNK["num_attention_heads"], tokens, tokens)


def test_eomt_refuses_gradient_checkpointing():
    """Gradient checkpointing of the engine wraps the blocks itself."""
    with warnings.catch_warnings(), pytest.raises(ValueError, match="checkpointing"):
        warnings.simplefilter("ignore", FutureWarning)
        small_eomt().gradient_checkpointing_enable()
