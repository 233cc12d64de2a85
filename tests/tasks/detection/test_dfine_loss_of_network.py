"""D-FINE's criterion on outputs of the model of transformers."""

import pytest
import torch
from dfine_outputs import random_outputs
from plain_dfine_loss import plain_dfine_loss
from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config

from visionloop.tasks.detection.loss import DFineCriterion


def tiny_network():
    backbone = HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 16, 32, 48],
        stage_mid_channels=[8, 8, 16, 16],
        stage_out_channels=[16, 32, 48, 64],
        stage_num_blocks=[1] * 4,
        stage_numb_of_layers=[1] * 4,
        stage_downsample=[False, True, True, True],
        depths=[1] * 4,
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 5, 5],
        hidden_sizes=[16, 32, 48, 64],
        embedding_size=8,
        use_learnable_affine_block=True,
        out_indices=[2, 3, 4],
    )
    config = DFineConfig(
        backbone_config=backbone,
        num_labels=5,
        d_model=32,
        encoder_hidden_dim=32,
        encoder_in_channels=[32, 48, 64],
        decoder_in_channels=[32] * 3,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        decoder_layers=3,
        num_queries=30,
        num_denoising=20,
        decoder_n_points=[3, 6, 3],
        depth_mult=0.34,
        hidden_expansion=0.5,
        freeze_backbone_batch_norms=False,
        initializer_bias_prior_prob=0.01,
    )
    return DFineForObjectDetection(config)


def test_gradients_reach_every_head_of_the_network():
    torch.manual_seed(0)
    network, targets = tiny_network(), random_outputs((3, 1), classes=5)[1]
    decoder = network.model.decoder
    criterion = DFineCriterion(5, reg_scale=decoder.reg_scale.item(), up=decoder.up.item())
    network.train()
    outputs = network.model(torch.rand(2, 3, 128, 128), labels=targets)
    losses = criterion(outputs, targets)
    losses["loss"].backward()
    heads = {f"class_embed.{i}": head for i, head in enumerate(network.class_embed)}
    heads |= {f"bbox_embed.{i}": head for i, head in enumerate(network.bbox_embed)}
    heads |= {f"lqe.{i}": layer.reg_conf.layers[-1] for i, layer in enumerate(decoder.lqe_layers)}
    heads |= {
        name: getattr(network.model, name)
        for name in ("enc_score_head", "enc_bbox_head", "denoising_class_embed")
    }
    heads["pre_bbox_head"] = decoder.pre_bbox_head
    assert len(heads) == 13
    for name, head in heads.items():
        assert all(parameter.grad is not None for parameter in head.parameters()), name
        assert list(head.parameters())[-1].grad.abs().sum() > 0, name
    plain = plain_dfine_loss(outputs, targets)
    for name in plain:
        assert losses[name].item() == pytest.approx(plain[name].item(), rel=1e-5), name


def test_outputs_in_eval_mode_have_a_loss():
    torch.manual_seed(0)
    network, targets = tiny_network().eval(), random_outputs((3, 0), classes=5)[1]
    with torch.no_grad():
        outputs = network.model(torch.rand(2, 3, 128, 128))
    losses, plain = DFineCriterion(5)(outputs, targets), plain_dfine_loss(outputs, targets)
    for name in plain:
        assert losses[name].item() == pytest.approx(plain[name].item(), rel=1e-5), name
