"""The network of D-FINE: the layers of transformers, in a forward that never waits for the device.

The forward of transformers 5.23 waits 11 times in each training forward of three decoder layers: it
writes the sizes of the feature levels into a tensor on the device, number by number, checks their
sum in each decoder layer, asks whether the encoder's output is finite, and reads the positions of
denoising queries back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import transformers
from torch import nn
from transformers import DFineConfig
from transformers.models.d_fine.modeling_d_fine import DFineEncoderLayer, DFineModelOutput

from visionloop.tasks.detection.denoising import noisy_queries
from visionloop.tasks.detection.matcher import Targets


class DFineForObjectDetection(transformers.DFineForObjectDetection):
    """D-FINE of transformers with a forward for our criterion; its own loss never runs.

    The class has the name of its base, because `save_pretrained` writes the name of the class into
    config.json.
    """

    def __init__(self, config: DFineConfig) -> None:
        super().__init__(config)
        for block in self.model.encoder.aifi:
            for layer in block.layers:
                layer.__class__ = EncoderLayer  # same parameters; a new layer would draw new ones

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: Sequence[Mapping[str, torch.Tensor]] | None = None,
    ) -> DFineModelOutput:
        """Run backbone and encoder under the autocast of the caller, and the decoder in fp32.

        In bf16 transformers computes the anchors in bf16, which moves them by up to 1.5 px at
        640 px and flips whether they are valid.

        Args:
            pixel_values: float [B, 3, H, W] in 0..1, H and W multiples of 32.
            labels: {"class_labels": int64 [G], "boxes": float [G, 4] cxcywh} per image, from which
                denoising queries are made in train mode; None: no denoising.

        Returns:
            DFineModelOutput in fp32: all heads in train mode, the last layer alone in eval mode.
        """
        model = self.model
        features = model.backbone.model(pixel_values).feature_maps
        levels = [
            project(feature)
            for project, feature in zip(model.encoder_input_proj, features, strict=True)
        ]
        levels = [level.float() for level in model.encoder(levels).last_hidden_state]
        targets = None if labels is None or not self.training else Targets.concatenate(labels)
        with torch.autocast(pixel_values.device.type, enabled=False):
            outputs = self._decode(levels, targets)
        if self.training and outputs.denoising_meta_values is None and self.config.num_denoising:
            # a rank without a box needs a gradient for this parameter too: zero times the
            # parameter, which is finite
            zero = 0.0 * model.denoising_class_embed.weight.sum()
            outputs.enc_topk_logits = outputs.enc_topk_logits + zero
        return outputs

    def _decode(self, levels: Sequence[torch.Tensor], targets: Targets | None) -> DFineModelOutput:
        """Compute the second half of `DFineModel.forward` of transformers: proposals and decoder.

        Args:
            levels: outputs of the encoder, float32 [B, C, H, W] each.
            targets: the boxes that denoising queries are made from, if any.
        """
        model, config = self.model, self.config
        # levels that the encoder lacks are made from its last
        num_missing = len(model.decoder_input_proj) - len(levels)
        levels = [*levels, *[levels[-1]] * num_missing]
        sources = [
            project(level) for project, level in zip(model.decoder_input_proj, levels, strict=True)
        ]
        shapes = tuple(tuple(source.shape[-2:]) for source in sources)
        memory = torch.cat([source.flatten(2).transpose(1, 2) for source in sources], 1)
        noisy = None
        if targets is not None and config.num_denoising > 0:
            noisy = noisy_queries(targets, config, model.denoising_class_embed)

        anchors, is_valid = model.generate_anchors(shapes, device=memory.device, dtype=memory.dtype)
        features = model.enc_output(is_valid.to(memory.dtype) * memory)
        class_logits = model.enc_score_head(features)  # [B, N, K]
        box_logits = model.enc_bbox_head(features) + anchors
        best = class_logits.max(-1).values.topk(config.num_queries, dim=1).indices[..., None]
        proposals = _gather(box_logits, best)
        queries = (
            model.weight_embedding.weight.expand(len(memory), -1, -1)
            if config.learn_initial_query
            else _gather(features, best).detach()
        )
        references = proposals
        if noisy is not None:
            references = torch.cat([noisy.box_logits, references], 1)
            queries = torch.cat([noisy.embeddings, queries], 1)
        decoded = model.decoder(
            inputs_embeds=queries,
            encoder_hidden_states=memory,
            encoder_attention_mask=None if noisy is None else noisy.mask,
            reference_points=references.detach(),
            # on the host: it is only read to check that the levels fill the memory
            spatial_shapes=torch.tensor(shapes),
            spatial_shapes_list=shapes,
        )
        return DFineModelOutput(
            intermediate_logits=decoded.intermediate_logits,
            intermediate_reference_points=decoded.intermediate_reference_points,
            intermediate_predicted_corners=decoded.intermediate_predicted_corners,
            initial_reference_points=decoded.initial_reference_points,
            enc_topk_logits=_gather(class_logits, best),
            enc_topk_bboxes=proposals.sigmoid(),
            denoising_meta_values=None if noisy is None else noisy.meta,
        )


def _gather(rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Return rows[b, index[b, q]] of [B, N, C] as [B, Q, C]; index: int64 [B, Q, 1]."""
    return rows.gather(1, index.expand(-1, -1, rows.shape[-1]))


class EncoderLayer(DFineEncoderLayer):
    """The encoder's layer, which clamps in train mode without asking the device whether it has to.

    Finite values stay as they are.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        spatial_position_embeddings: torch.Tensor | None = None,
        **kwargs: object,
    ) -> torch.Tensor:
        """Encode [B, N, d]; see `DFineEncoderLayer`."""
        is_pre_norm = self.normalize_before
        attended, _ = self.self_attn(
            hidden_states=self.self_attn_layer_norm(hidden_states)
            if is_pre_norm
            else hidden_states,
            attention_mask=attention_mask,
            position_embeddings=spatial_position_embeddings,
            **kwargs,
        )
        hidden_states = hidden_states + nn.functional.dropout(attended, self.dropout, self.training)
        norm = self.final_layer_norm if is_pre_norm else self.self_attn_layer_norm
        hidden_states = norm(hidden_states)
        hidden_states = hidden_states + self.mlp(hidden_states)
        if not is_pre_norm:
            hidden_states = self.final_layer_norm(hidden_states)
        if self.training:
            limit = torch.finfo(hidden_states.dtype).max
            hidden_states = hidden_states.clamp(-limit, limit)
        return hidden_states
