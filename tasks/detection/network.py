"""The library's D-FINE with a forward of our own: autocast for the convolutions alone, and what our criterion reads as answer."""

import torch
import transformers
from transformers.modeling_outputs import BaseModelOutput


class DFineForObjectDetection(transformers.DFineForObjectDetection):
    """The library's network; its own loss never runs.

    The name is the library's, because `save_pretrained` writes the name of the class into config.json.
    """

    def forward(self, pixel_values, labels=None):
        """pixel_values: [B, 3, H, W] in 0..1, H and W multiples of 32; labels: [{"class_labels": [G], "boxes": [G, 4]}] or None.

        Returns the library's DFineModelOutput, in fp32: all heads in train mode, with denoising queries for `labels`; the last layer
        alone in eval mode. Backbone and encoder follow the autocast around the call. The decoder never does: under bf16 the library
        makes anchors in bf16, which moves them by up to 1.5 px at 640 px and flips whether they are valid.
        """
        network = self.model
        features = network.backbone.model(pixel_values).feature_maps
        levels = [project(feature) for project, feature in zip(network.encoder_input_proj, features, strict=True)]
        levels = [level.float() for level in network.encoder(levels).last_hidden_state]
        with torch.autocast(pixel_values.device.type, enabled=False):
            # the library reads the batch size and device of `inputs_embeds`, and nothing else, once the encoder's answer is there
            outputs = network(
                pixel_values=None, inputs_embeds=levels[0], encoder_outputs=BaseModelOutput(last_hidden_state=levels), labels=labels
            )
        if self.training and outputs.denoising_meta_values is None and self.config.num_denoising:
            # a rank without a box gives this parameter a gradient too; zero times the parameter, which is finite
            outputs.enc_topk_logits = outputs.enc_topk_logits + 0.0 * network.denoising_class_embed.weight.sum()
        return outputs
