"""What we say of the library's D-FINE; of its loss and of its graphs see the files named after this one."""

from functools import partial

from visionloop.bin.benchmarks.faults import detection_graphs, detection_loss
from visionloop.bin.benchmarks.faults.detectors import CLASSES, random_targets, small_detector
from visionloop.bin.benchmarks.faults.report import NOTHING, Claim, biggest, failure_of, named_version, refuses_recomputing

TASK = "detection"
PAGE, NETWORK = "tasks/detection/README.md", "tasks/detection/network.py"


def reads_of_a_forward():
    from visionloop.bin.benchmarks.loss_detection import reads_of_the_network

    reads = reads_of_the_network()
    return reads == {"local_scalar_dense": 4, "nonzero": 1}, reads


def anchors_in_bf16():
    import torch

    module = small_detector().eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        used = module.model(torch.rand(1, 3, 256, 256)).enc_outputs_coord_logits.dtype  # the sum of a bf16 head and the anchors
    shapes = tuple((640 // stride,) * 2 for stride in (8, 16, 32))
    (exact, valid), (rough, kept) = (module.model.generate_anchors(shapes, dtype=dtype) for dtype in (torch.float32, used))
    moved = 640 * (exact.sigmoid() - rough.float().sigmoid()).abs()[..., :2][(valid & kept)[..., 0]]
    most, flipped = moved.max().item(), (valid != kept).sum().item()
    figures = {"type": str(used), "off by up to px": most, "mean px": moved.mean().item(), "flipped": flipped}
    return used == torch.bfloat16 and 1.4 < most < 1.6 and flipped > 0, figures


def denoising_of_a_crowd():
    import torch
    from transformers.models.d_fine.modeling_d_fine import get_contrastive_denoising_training_group as denoise

    embed = torch.nn.Embedding(CLASSES + 1, 8)
    splits, sides = [], []
    for boxes in (7, 600):
        *_, mask, meta = denoise(random_targets(boxes, 1), CLASSES, 300, embed, num_denoising_queries=100)
        splits.append(meta["dn_num_split"][0])
        sides.append(len(mask))
    figures = {"queries for 7 boxes": splits[0], "for 600": splits[1], "attention over": sides[1]}
    return 150 < splits[0] <= 200 and splits[1] == 1200 and sides[1] == 1500, figures


def start_of_the_weights():
    import torch

    drawn, narrow = 0, 0
    for layer in small_detector().modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) and layer.weight.std():
            drawn += layer.weight.numel()
            narrow += layer.weight.numel() * any(abs(layer.weight.std() / deviation - 1) < 0.2 for deviation in (0.01, 0.02))
    share = narrow / drawn
    return share > 0.95, {"share of the drawn weights": share}


def positions_of_an_eval_size():
    import torch

    figures = {}
    for side in (256, None):
        layer, made = small_detector(eval_size=side).model.encoder.aifi[0], []
        layer.position_embedding.register_forward_hook(lambda *_, made=made: made.append(1))
        layer.eval()(torch.rand(1, layer.encoder_hidden_dim, 8, 8))
        figures[f"positions made with eval_size {side}"] = len(made)
    return list(figures.values()) == [0, 1], figures


def anchors_of_one_size():
    import torch

    module, other = small_detector(anchor_image_size=[256, 256]).eval(), torch.rand(1, 3, 192, 192)
    failed = failure_of(partial(module.model, other), RuntimeError)
    free = failure_of(partial(small_detector().eval().model, other), RuntimeError)
    return failed != NOTHING == free, {"192 px after 256": failed, "without anchor_image_size": free}


def values_of_the_inputs():
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    network, features = small_detector().eval().model, torch.rand(2, 3, 256, 256)
    levels = network.backbone(features, features[:, 0])
    levels = [project(level) for project, (level, _) in zip(network.encoder_input_proj, levels, strict=True)]
    encoded = BaseModelOutput(last_hidden_state=network.encoder(levels).last_hidden_state)
    answers = [network(None, inputs_embeds=given, encoder_outputs=encoded) for given in (torch.rand(2), torch.zeros(2, 5))]
    difference = biggest(answers[0].intermediate_logits - answers[1].intermediate_logits)
    return difference == 0, {"change of the logits": difference}


def heads_in_a_file():
    import tempfile

    from safetensors import safe_open

    module = small_detector()
    with tempfile.TemporaryDirectory() as folder:
        module.save_pretrained(folder)
        with safe_open(f"{folder}/model.safetensors", framework="pt") as file:
            stored = list(file.keys())
    found = [sum(name.endswith("class_embed.0.weight") for name in names) for names in (module.state_dict(), stored)]
    return found == [2, 1], {"times in the module": found[0], "in the file": found[1]}


def refused_recomputing():
    return refuses_recomputing(small_detector())


CLAIMS = (
    Claim(
        "our network is the library's, of the release named",
        ((PAGE, "the network is the `DFineForObjectDetection` of `transformers` 5.23"),),
        partial(named_version, "visionloop.tasks.detection.network", "DFineForObjectDetection"),
    ),
    *detection_loss.CLAIMS,
    *detection_graphs.CLAIMS,
    Claim(
        "a forward in training reads 4 scalars and a nonzero",
        ((PAGE, "in training: 4 scalars and one `nonzero`"),),
        reads_of_a_forward,
    ),
    Claim(
        "bf16 moves the anchors",
        (
            (PAGE, "makes its anchors in bf16 (up to 1.5 px off at 640 px)"),
            (NETWORK, "makes anchors in bf16, which moves them by up to 1.5 px at 640 px and flips whether they are valid"),
        ),
        anchors_in_bf16,
    ),
    Claim(
        "denoising queries are as many as the fullest picture asks for",
        (
            ("tasks/detection/denoising.py", "with 600 boxes 1200 more, and attention over 1500 of them"),
            ("bin/benchmarks/loss_detection.py", "the library makes about twice as many queries of it"),
        ),
        denoising_of_a_crowd,
    ),
    Claim(
        "weights start from 0.01 or 0.02",
        (("tasks/detection/initialization.py", "draws almost every weight from N(0, 0.01) or N(0, 0.02) instead"),),
        start_of_the_weights,
    ),
    Claim(
        "with eval_size there are no positions in evaluation",
        (("tasks/detection/model.py", "else the library leaves position embeddings out in evaluation"),),
        positions_of_an_eval_size,
    ),
    Claim("anchors made once fit one size", (("tasks/detection/model.py", "else anchors fit one size alone"),), anchors_of_one_size),
    Claim(
        "after the encoder, inputs_embeds gives a size and a device alone",
        ((NETWORK, "the library reads the batch size and device of `inputs_embeds`, and nothing else"),),
        values_of_the_inputs,
    ),
    Claim(
        "tied heads are written once",
        (("tasks/detection/folder.py", "The class and box heads stand in the module twice, tied; the library writes them once"),),
        heads_in_a_file,
    ),
    Claim(
        "activations cannot be recomputed by its own switch",
        (("engine/grad_checkpointing.py", "Several of our models refuse the library's own switch"),),
        refused_recomputing,
    ),
)
