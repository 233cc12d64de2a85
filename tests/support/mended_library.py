"""The library as it would be with one fault mended, or another release: what a check must notice."""

import functools
from importlib import metadata

import torch
import transformers
from torch import nn
from transformers.loss import loss_d_fine, loss_rt_detr, loss_utils
from transformers.models.eomt import modeling_eomt
from transformers.models.swin2sr import modeling_swin2sr


def repair_soft_targets(monkeypatch):
    def cross_entropy(labels, logits, *_, **__):
        return nn.functional.cross_entropy(logits, labels)

    monkeypatch.setitem(loss_utils.LOSS_MAPPING, "ForImageClassification", cross_entropy)


def repair_pairing(monkeypatch):
    original = loss_d_fine.DFineForObjectDetectionLoss

    def paired(logits, labels, device, boxes, config, all_logits, all_boxes, **more):
        return original(logits, labels, device, boxes, config, all_logits[:, 1:], all_boxes[:, 1:], **more)

    monkeypatch.setattr(loss_d_fine, "DFineForObjectDetectionLoss", paired)


def repair_boxes_of_ranks(monkeypatch):
    original = loss_rt_detr.RTDetrLoss.forward

    def over_ranks(self, outputs, targets):
        own = torch.tensor([float(sum(len(target["boxes"]) for target in targets))])
        boxes = own.clone()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(boxes)
            boxes /= torch.distributed.get_world_size()
        return {name: value * own / boxes for name, value in original(self, outputs, targets).items()}

    monkeypatch.setattr(loss_rt_detr.RTDetrLoss, "forward", over_ranks)


def repair_masks_of_ranks(monkeypatch):
    def over_ranks(self, class_labels, device):
        masks = torch.tensor(float(sum(map(len, class_labels))))
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(masks)
            masks /= torch.distributed.get_world_size()
        return masks.clamp(min=1)

    monkeypatch.setattr(modeling_eomt.EomtLoss, "get_num_masks", over_ranks)


def repair_types(monkeypatch):
    original = modeling_eomt.EomtLoss.forward

    def in_fp32(self, masks_queries_logits, class_queries_logits, mask_labels, class_labels, auxiliary_predictions=None):
        answers = masks_queries_logits.float(), class_queries_logits.float()
        return original(self, *answers, [maps.float() for maps in mask_labels], class_labels, auxiliary_predictions)

    monkeypatch.setattr(modeling_eomt.EomtLoss, "forward", in_fp32)


def repair_copies(monkeypatch):
    def without_a_copy(self, masks, classes, mask_labels, class_labels):
        return [(torch.arange(len(ids)), torch.arange(len(ids))) for ids in class_labels]

    monkeypatch.setattr(modeling_eomt.EomtHungarianMatcher, "forward", without_a_copy)


def repair_annealing(monkeypatch):
    original = transformers.EomtForUniversalSegmentation.forward

    @functools.wraps(original)
    def annealed(self, *given, **more):
        answer = original(self, *given, **more)
        self.attn_mask_probs.mul_(0.5)
        return answer

    monkeypatch.setattr(transformers.EomtForUniversalSegmentation, "forward", annealed)


def repair_convolutions(monkeypatch):
    original = modeling_swin2sr.Swin2SRPreTrainedModel._init_weights

    def as_torch(self, module):
        if not isinstance(module, nn.Conv2d):
            original(self, module)

    monkeypatch.setattr(modeling_swin2sr.Swin2SRPreTrainedModel, "_init_weights", as_torch)


def repair_padding(monkeypatch):
    monkeypatch.setattr(transformers.Swin2SRImageProcessor, "pad", lambda self, images, *_, **__: images)


def repair_head(monkeypatch):
    original = transformers.Swin2SRForImageSuperResolution.forward

    def as_the_authors(self, pixel_values, labels=None):
        answer = original(self, pixel_values)
        if not self.upsampler:
            answer.reconstruction = pixel_values + (answer.reconstruction - self.swin2sr.mean) - pixel_values / self.swin2sr.img_range
        return answer

    monkeypatch.setattr(transformers.Swin2SRForImageSuperResolution, "forward", as_the_authors)


def repair_recomputing(monkeypatch):
    monkeypatch.setattr(modeling_eomt.EomtPreTrainedModel, "gradient_checkpointing_enable", lambda self: None)


def release_another(monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: "6.0.0")
