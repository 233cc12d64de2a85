"""The library's EoMT with a forward of our own: every level's prediction, masks of bits, and none at all where they are lifted.

The two classes have the library's names, because `save_pretrained` writes the name of the class
into config.json. Source: models/eomt.py of `tue-mps/eomt`.
"""

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

# Masked attention for the rows that need it: queries see their own patches, everything else is
# unmasked.

SPLIT_ATTENTION = "eomt_split"
FEW_TOKENS = 640


def split_attention(module, query, key, value, attention_mask, *, scaling, dropout=0.0, **_):
    """The library's attention interface: query, key, value [B, heads, N, D] -> ([B, N, heads, D], None).

    attention_mask: bool [B, 1, Q, N], True where query token q may look, for the first Q rows;
    None: nothing is masked. The library's own form is a float [B, heads, N, N], kept for the
    backward pass. Two calls leave the rows without a mask to a flash kernel.
    """
    half_on_cpu = query.device.type == "cpu" and query.dtype != torch.float32
    attend = (
        plain_attention
        if half_on_cpu and key.shape[2] <= FEW_TOKENS and not dropout
        else scaled_dot_product_attention
    )
    if attention_mask is None:
        return attend(query, key, value, dropout_p=dropout, scale=scaling).transpose(1, 2), None
    num_masked = attention_mask.shape[-2]
    parts = [
        attend(
            query[:, :, :num_masked],
            key,
            value,
            attn_mask=attention_mask,
            dropout_p=dropout,
            scale=scaling,
        ),
        attend(query[:, :, num_masked:], key, value, dropout_p=dropout, scale=scaling),
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def plain_attention(query, key, value, attn_mask=None, dropout_p=0.0, *, scale):
    """The same in three plain operations, without dropout, for the CPU.

    torch 2.14.1's flash kernel takes 3.1 times as long in bf16 with 169 tokens and 1.7 times with
    600, where this one begins to need much memory: it keeps all N x N shares. Those of bf16 are
    fp32's, rounded once (softmax computes in fp32 inside); a copy in fp32 for the backward pass
    makes a step of `tiny` a tenth longer and its gradient no better.
    """
    scores = (query * scale) @ key.mT
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    return scores.softmax(-1) @ value


ALL_ATTENTION_FUNCTIONS.register(SPLIT_ATTENTION, split_attention)


# The library's upscaling of patches to the grid of the masks, with channels last and the doubling
# as one matrix product.
#
# The same numbers in half the time on a CPU: patches are tokens, so their channels lie last
# already, and a transposed convolution of 2 x 2 pixels with stride 2 is a linear layer whose result
# is laid out anew.


def upscale(scale_block, maps):
    """maps: [B, C, h, w] -> [B, C, 2^n h, 2^n w] for the n layers of an EomtScaleBlock."""
    maps = maps.contiguous(memory_format=torch.channels_last)
    for layer in scale_block.block:
        maps = layer.layernorm2d(layer.conv2(layer.activation(double(layer.conv1, maps))))
    return maps


def double(transposed, maps):
    """A ConvTranspose2d of kernel 2 and stride 2. maps: [B, C, h, w], channels last -> [B, D, 2 h, 2 w], channels last."""
    weight, channels = transposed.weight, transposed.out_channels  # [C, D, 2, 2]
    quarters = F.linear(
        maps.permute(0, 2, 3, 1),
        weight.permute(2, 3, 1, 0).flatten(0, 2),
        transposed.bias.repeat(4),
    )
    quarters = quarters.unflatten(
        -1, (2, 2, channels)
    )  # [B, h, w, 2, 2, D]: rows, then columns of each four pixels
    return quarters.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


class Heads(nn.Module):
    """A module's final norm and `predict`, as a module without weights of its own: what recomputes activations wraps modules."""

    def __init__(self, owner):
        super().__init__()
        self._owner = (owner,)  # in a tuple, or it would be registered as a part

    def forward(self, tokens):
        """tokens: [B, N, C] -> (mask logits [B, Q, h, w], class logits [B, Q, K + 1])."""
        owner = self._owner[0]
        return owner.predict(owner.layernorm(tokens))


class MaskedForward:
    """The forward of both kinds. mask_probs: for each joint block the share of queries that are masked; 0: its mask is lifted."""

    def prepare_forward(self):
        """To be called at the end of a subclass's `__init__`."""
        self.heads = Heads(self)
        self.config._attn_implementation = SPLIT_ATTENTION
        self.mask_probs = [1.0] * self.config.num_blocks

    def read_mask_probs(self):
        """Take over what the buffer holds, after weights were loaded into it.

        The buffer itself never changes in memory: an average of weights would mix the probabilities
        of many steps in it.
        """
        self.mask_probs = self.attn_mask_probs.tolist()
        self.attn_mask_probs.fill_(1.0)

    @property
    def num_prefix(self):
        """Class and register tokens, which stand between queries and patches."""
        return 1 + self.config.num_register_tokens

    def forward(self, pixel_values, draws=None, all_levels=False):
        """pixel_values: [B, 3, H, W] -> (mask logits [B, S, Q, h, w], class logits [B, S, Q, K + 1]), h = H / 4 for patches of 8 and 16.

        S counts the joint blocks and one in train mode or with all_levels: what is seen before each
        of them and at the end. Otherwise S = 1, the last, and with all masks lifted nothing else is
        computed. draws: [B, blocks, Q] in 0..1, a query is masked where its number is at most the
        block's probability; None: drawn here.
        """
        config = self.config
        tokens, extra = self.embed(pixel_values)
        first_joint = config.num_hidden_layers - config.num_blocks
        levels = []
        for i, layer in enumerate(self.layers):
            mask, block = None, i - first_joint
            if block == 0:
                queries = self.query.weight.expand(
                    tokens.shape[0], -1, -1
                )  # len() would write the batch's size into an ONNX file
                tokens = torch.cat([queries, tokens], dim=1)
            if block >= 0 and (self.training or all_levels or self.mask_probs[block] > 0):
                levels.append(self.heads(tokens))
                mask = self.attention_mask(
                    levels[-1][0], block, None if draws is None else draws[:, block]
                )
            tokens = layer(tokens, attention_mask=mask, **extra)
        levels.append(self.heads(tokens))
        if not (self.training or all_levels):
            levels = levels[-1:]
        mask_logits, class_logits = zip(*levels, strict=True)
        return torch.stack(mask_logits, dim=1), torch.stack(class_logits, dim=1)

    def predict(self, tokens):
        """tokens: [B, N, C], normed -> (mask logits [B, Q, h, w], class logits [B, Q, K + 1])."""
        queries, patches = (
            tokens[:, : self.config.num_queries],
            tokens[:, self.config.num_queries + self.num_prefix :],
        )
        maps = upscale(self.upscale_block, patches.mT.unflatten(2, self.grid_size))
        return (self.mask_head(queries) @ maps.flatten(2)).unflatten(
            2, maps.shape[-2:]
        ), self.class_predictor(queries)

    @torch.no_grad()
    def attention_mask(self, mask_logits, block, draws):
        """bool [B, 1, Q, N], True where a query may look: at queries, prefix and the patches in its mask; None when lifted."""
        probability = self.mask_probs[block]
        if probability == 0:
            return None
        inside = (
            F.interpolate(mask_logits, size=self.grid_size, mode="bilinear").flatten(2) > 0
        )  # [B, Q, G]
        if probability < 1:
            if draws is None:
                draws = torch.rand(inside.shape[:2], device=inside.device)
            inside |= (draws > probability)[..., None]
        return F.pad(inside, (self.config.num_queries + self.num_prefix, 0), value=True)[:, None]


class EomtForUniversalSegmentation(MaskedForward, transformers.EomtForUniversalSegmentation):
    """EoMT on a ViT with learned positions: one square size of image."""

    def __init__(self, config):
        super().__init__(config)
        self.prepare_forward()

    def embed(self, pixel_values):
        """(tokens [B, prefix + G, C], what every block is given besides)."""
        return self.embeddings(pixel_values), {}


class EomtDinov3ForUniversalSegmentation(
    MaskedForward, transformers.EomtDinov3ForUniversalSegmentation
):
    """EoMT on DINOv3, whose rotary positions fit images of any size."""

    def __init__(self, config):
        super().__init__(config)
        self.prepare_forward()

    def embed(self, pixel_values):
        """Like the other kind's; positions that jitter are drawn once a forward."""
        height, width = pixel_values.shape[-2:]
        self.grid_size = (height // self.config.patch_size, width // self.config.patch_size)
        tokens = self.dropout(self.embeddings(pixel_values))
        return tokens, {"position_embeddings": self.rope_embeddings(pixel_values.to(tokens.dtype))}
