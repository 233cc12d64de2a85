"""What we say of the library's EoMT; of its loss see segmentation_loss.py."""

import tempfile
from functools import partial
from pathlib import Path

from visionloop.bin.benchmarks.faults import segmentation_loss
from visionloop.bin.benchmarks.faults.report import NOTHING, Claim, biggest, failure_of, named_version, refuses_recomputing
from visionloop.bin.benchmarks.faults.segmenters import BLOCKS, QUERIES, SIDE, random_masks, small_eomt

TASK = "segmentation"
PAGE = "tasks/segmentation/README.md"


def masks_that_stay():
    import torch

    network, (masks, labels) = small_eomt().train(), random_masks(2, 3)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    for _ in range(3):
        network(torch.rand(2, 3, SIDE, SIDE), mask_labels=masks, class_labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    answers = []
    network.class_predictor.register_forward_hook(lambda *_: answers.append(1))
    with torch.no_grad():
        network.eval()(torch.rand(1, 3, SIDE, SIDE))
    share = network.attn_mask_probs.min().item()
    return share == 1 and len(answers) == BLOCKS + 1, {"attn_mask_probs after 3 steps": share, "predictions for an answer": len(answers)}


def fused_layers():
    """Folders whose SwiGLU layers are in one piece, as old files have them: what an EoMT misses, and what a DINOv2 does."""
    from transformers import Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 8}
    eomt, dino = small_eomt(use_swiglu_ffn=True), Dinov2Model(Dinov2Config(**sizes, use_swiglu_ffn=True))
    (loaded, again), missing = loaded_fused(eomt)
    _, missing_of_dino = loaded_fused(dino)
    random = biggest(loaded.layers[0].mlp.gate_proj.weight - again.layers[0].mlp.gate_proj.weight)
    layers = sum(".mlp." in name for name in eomt.state_dict())
    figures = {"missing of an EoMT": f"{len(missing)} of {layers} in SwiGLU layers", "of a DINOv2": len(missing_of_dino)}
    return len(missing) == layers and not missing_of_dino and random > 0, figures | {"largest difference between two loads": random}


def loaded_fused(network):
    """([the network twice from a folder with fused layers], names of its weights that were missing there)."""
    import torch
    from safetensors.torch import save_file

    weights = {}
    for name, tensor in network.state_dict().items():
        if name.endswith(("gate_proj.weight", "gate_proj.bias")):
            up = network.state_dict()[name.replace("gate_proj", "up_proj")]
            weights[name.replace("gate_proj", "weights_in")] = torch.cat([tensor, up])
        elif "up_proj" not in name:
            weights[name.replace("down_proj", "weights_out")] = tensor
    loads = []
    with tempfile.TemporaryDirectory() as folder:
        network.config.save_pretrained(folder)
        save_file(weights, Path(folder) / "model.safetensors", metadata={"format": "pt"})
        for seed in (0, 1):
            torch.manual_seed(seed)
            loads.append(type(network).from_pretrained(folder, output_loading_info=True, use_safetensors=True))
    return [module for module, _ in loads], loads[0][1]["missing_keys"]


def one_size():
    import torch
    from transformers import EomtForUniversalSegmentation

    network, tables = small_eomt(), []
    failed = failure_of(partial(network, torch.rand(1, 3, 48, 48)), RuntimeError)
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        for seed in (0, 1):
            torch.manual_seed(seed)
            other = EomtForUniversalSegmentation.from_pretrained(folder, image_size=48, ignore_mismatched_sizes=True, use_safetensors=True)
            tables.append(other.embeddings.position_embeddings.weight)
    between = biggest(tables[0] - tables[1])
    return failed != NOTHING and between > 0, {"48 px after 32": failed, "largest difference between two loads": between}


def sides_as_a_list():
    failed = failure_of(partial(small_eomt, image_size=[SIDE, SIDE]), TypeError)
    return failed != NOTHING, {"image_size [32, 32]": failed}


def form_of_the_mask():
    import torch

    network, seen = small_eomt().train(), []
    network.layers[-1].register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    network(torch.rand(2, 3, SIDE, SIDE))
    mask = seen[0]
    tokens = QUERIES + network.embeddings.num_prefix_tokens + (SIDE // 8) ** 2
    return mask.dtype == torch.float32 and mask.shape == (2, 2, tokens, tokens), {"mask": f"{mask.dtype} {list(mask.shape)}"}


def both_networks():
    module = "visionloop.tasks.segmentation.network"
    found = [named_version(module, name) for name in ("EomtForUniversalSegmentation", "EomtDinov3ForUniversalSegmentation")]
    return all(holds for holds, _ in found), found[0][1] | {"and": found[1][1]["class"]}


def refused_recomputing():
    return refuses_recomputing(small_eomt())


CLAIMS = (
    Claim(
        "our network is the library's, of the release named",
        ((PAGE, "the network is the `EomtForUniversalSegmentation` (or `EomtDinov3ForUniversalSegmentation`) of `transformers` 5.23"),),
        both_networks,
    ),
    *segmentation_loss.CLAIMS,
    Claim(
        "the share of masked queries never changes",
        ((PAGE, "transformers 5.23.0 never changes that buffer: its models stay masked"),),
        masks_that_stay,
    ),
    Claim(
        "fused SwiGLU layers are split for DINOv2 alone, and random in an EoMT",
        (
            (PAGE, "transformers 5.23.0 would leave those layers random"),
            ("tasks/segmentation/fused.py", "The library splits such layers for DINOv2 alone; in an EoMT file it takes them for unknown"),
        ),
        fused_layers,
    ),
    Claim(
        "a network has one size, and another's positions are drawn anew",
        (("tasks/segmentation/positions.py", "loading a table of another would draw all positions anew"),),
        one_size,
    ),
    Claim(
        "a list of sides is refused",
        (("tasks/segmentation/model.py", "the library's network fails on a list"),),
        sides_as_a_list,
    ),
    Claim(
        "masks are floats for every head and pair of tokens",
        (("tasks/segmentation/attention.py", "form is a float [B, heads, N, N]"),),
        form_of_the_mask,
    ),
    Claim(
        "activations cannot be recomputed by its own switch",
        (("engine/grad_checkpointing.py", "Several of our models refuse the library's own switch"),),
        refused_recomputing,
    ),
)
