"""The EoMT of transformers with a forward that predicts at every level and anneals its masks.

The two network classes have the names of those in transformers, because `save_pretrained` writes
the name of the class into config.json. Source: models/eomt.py of `tue-mps/eomt`.
"""

from collections.abc import Mapping, Sequence

import torch
import transformers
from torch import nn
from torch.nn import functional as F
from torch.nn.functional import scaled_dot_product_attention
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from visionloop.engine.seeding import hashed
from visionloop.engine.system.kernels import is_half_on_cpu, multiplies_for_transposed_conv

SPLIT_ATTENTION = "eomt_split"
FEW_TOKENS = 640


class PredictionHeads(nn.Module):
    """The final norm and `predict` of an EoMT, as a module without own weights.

    Gradient checkpointing wraps modules; this one makes the heads one.
    """

    def __init__(self, owner: PreTrainedModel) -> None:
        super().__init__()
        self._owner = (owner,)  # in a tuple, or it would be registered as a submodule

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict from tokens [B, N, C]: mask logits [B, Q, h, w], class logits [B, Q, K + 1]."""
        owner = self._owner[0]
        mask_logits, class_logits = owner.predict(owner.layernorm(tokens))
        return mask_logits, class_logits


class AnnealedMaskForward:
    """The forward of both networks.

    A query block is one of the last `config.num_blocks` blocks, in which queries and patches attend
    to each other.

    Attributes:
        mask_probs: probability that a query is masked, for each query block; with 0 the block
            computes no mask.
        heads: see PredictionHeads.
    """

    # of the networks of transformers
    config: PretrainedConfig
    training: bool
    layers: nn.ModuleList
    query: nn.Embedding
    upscale_block: PreTrainedModel
    mask_head: nn.Module
    class_predictor: nn.Linear
    attn_mask_probs: torch.Tensor
    grid_size: tuple[int, int]

    def prepare_forward(self) -> None:
        """Add what the forward needs; called at the end of a subclass's `__init__`."""
        self.heads = PredictionHeads(self)
        self.config._attn_implementation = SPLIT_ATTENTION
        self.mask_probs = [1.0] * self.config.num_blocks

    def read_mask_probs(self) -> None:
        """Set `mask_probs` from the buffer, after weights were loaded into it.

        The buffer itself never changes in memory: an EMA would mix the probabilities of many steps
        in it.
        """
        self.mask_probs = self.attn_mask_probs.tolist()
        self.attn_mask_probs.fill_(1.0)

    @property
    def num_prefix(self) -> int:
        """Number of class and register tokens, which are between queries and patches."""
        return 1 + int(self.config.num_register_tokens)

    def embed(
        self, pixel_values: torch.Tensor
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor | None]]:
        """Return (tokens [B, prefix + G, C], further keyword arguments of every block)."""
        raise NotImplementedError

    def forward(
        self,
        pixel_values: torch.Tensor,
        draws: torch.Tensor | None = None,
        all_levels: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict masks and classes.

        Args:
            pixel_values: [B, 3, H, W].
            draws: [B, blocks, Q] in 0..1; a query is masked where its number is at most the block's
                probability. None: drawn here, where a probability is between 0 and 1.
            all_levels: predict at all levels, as in train mode.

        Returns:
            (mask logits [B, S, Q, h, w], class logits [B, S, Q, K + 1]), h = H / 4 for patches of 8
            and 16. In train mode or with all_levels, S is the number of query blocks plus one: the
            predictions before each of them and at the end. Otherwise S = 1, the last level, and
            with no query masked nothing else is computed.
        """
        config = self.config
        tokens, arguments = self.embed(pixel_values)
        first_query_block = config.num_hidden_layers - config.num_blocks
        levels = []
        for i, layer in enumerate(self.layers):
            mask, block = None, i - first_query_block
            if block == 0:
                # not len(tokens): it would write the batch's size into an ONNX file
                queries = self.query.weight.expand(tokens.shape[0], -1, -1)
                tokens = torch.cat([queries, tokens], dim=1)
            if block >= 0 and (self.training or all_levels or self.mask_probs[block] > 0):
                levels.append(self.heads(tokens))
                mask = self.attention_mask(
                    levels[-1][0], block, None if draws is None else draws[:, block]
                )
            tokens = layer(tokens, attention_mask=mask, **arguments)
        levels.append(self.heads(tokens))
        if not (self.training or all_levels):
            levels = levels[-1:]
        mask_logits, class_logits = zip(*levels, strict=True)
        return torch.stack(mask_logits, dim=1), torch.stack(class_logits, dim=1)

    def predict(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict from normalized tokens [B, N, C].

        Returns:
            (mask logits [B, Q, h, w], class logits [B, Q, K + 1]).
        """
        num_queries = self.config.num_queries
        queries, patches = tokens[:, :num_queries], tokens[:, num_queries + self.num_prefix :]
        maps = upscale(self.upscale_block, patches.mT.unflatten(2, self.grid_size))
        mask_logits = self.mask_head(queries) @ maps.flatten(2)
        return mask_logits.unflatten(2, maps.shape[-2:]), self.class_predictor(queries)

    @torch.no_grad()
    def attention_mask(
        self, mask_logits: torch.Tensor, block: int, draws: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Return the tokens that each query attends to, None when no query is masked.

        Args:
            mask_logits: [B, Q, h, w].
            block: number of the query block.
            draws: [B, Q] in 0..1, see `forward`.

        Returns:
            bool [B, 1, Q, N], True for queries, prefix and the patches in the query's mask.
        """
        probability = self.mask_probs[block]
        if probability == 0:
            return None
        resized = F.interpolate(mask_logits, size=self.grid_size, mode="bilinear")
        inside = resized.flatten(2) > 0  # [B, Q, G]
        if probability < 1:
            if draws is None:
                draws = torch.rand(inside.shape[:2], device=inside.device)
            inside |= (draws > probability)[..., None]
        return F.pad(inside, (self.config.num_queries + self.num_prefix, 0), value=True)[:, None]


class EomtForUniversalSegmentation(AnnealedMaskForward, transformers.EomtForUniversalSegmentation):
    """EoMT on a ViT with learned positions: square images of one size."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.prepare_forward()

    def embed(
        self, pixel_values: torch.Tensor
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor | None]]:
        """See AnnealedMaskForward."""
        return self.embeddings(pixel_values), {}


class EomtDinov3ForUniversalSegmentation(
    AnnealedMaskForward,
    transformers.EomtDinov3ForUniversalSegmentation,
):
    """EoMT on DINOv3, whose rotary positions fit images of any size."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.prepare_forward()

    def embed(
        self, pixel_values: torch.Tensor
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor | None]]:
        """See AnnealedMaskForward; jittered positions are drawn once per forward."""
        height, width = pixel_values.shape[-2:]
        self.grid_size = (height // self.config.patch_size, width // self.config.patch_size)
        tokens = self.dropout(self.embeddings(pixel_values))
        return tokens, {"position_embeddings": self.rope_embeddings(pixel_values.to(tokens.dtype))}


def query_mask_draws(
    module: PreTrainedModel, keys: Sequence[tuple[int, int]], device: torch.device
) -> torch.Tensor | None:
    """Draw the numbers that decide which queries are masked, each row from its key alone.

    Args:
        module: the EoMT.
        keys: (sample id, window) of each of N inputs; window -1 is the whole image.
        device: of the result.

    Returns:
        float32 [N, blocks, Q] in 0..1; None when every block masks all queries or none.
    """
    if not any(0 < probability < 1 for probability in module.mask_probs):
        return None
    shape = len(module.mask_probs), module.config.num_queries
    rows = [
        torch.rand(shape, generator=torch.Generator().manual_seed(hashed(*key) >> 1))
        for key in keys
    ]
    return torch.stack(rows).to(device)


# attention kernels --------------------


def split_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Compute attention in which only the first rows have a mask; an interface of transformers.

    transformers' own form of the mask is a float [B, heads, N, N], kept for the backward pass. Two
    calls leave the rows without a mask to a flash kernel.

    Args:
        module: the attention layer.
        query, key, value: [B, heads, N, D].
        attention_mask: bool [B, 1, Q, N], True where query token q attends to a token, for the
            first Q rows; None: nothing is masked.
        scaling: factor on the scores.
        dropout: probability.

    Returns:
        ([B, N, heads, D], None).
    """
    attend = (
        plain_attention
        if is_half_on_cpu(query) and key.shape[2] <= FEW_TOKENS and not dropout
        else scaled_dot_product_attention
    )
    if attention_mask is None:
        return attend(query, key, value, dropout_p=dropout, scale=scaling).transpose(1, 2), None
    num_masked = attention_mask.shape[-2]
    masked, unmasked = query[:, :, :num_masked], query[:, :, num_masked:]
    parts = [
        attend(masked, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling),
        attend(unmasked, key, value, dropout_p=dropout, scale=scaling),
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def plain_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    *,
    scale: float,
) -> torch.Tensor:
    """Compute attention in three plain operations, without dropout, for half precision on a CPU.

    torch 2.14.1's flash kernel takes 3.1 times as long in bf16 with 169 tokens and 1.7 times with
    600, where this one begins to need much memory: it keeps all N x N weights. Those of bf16 are
    fp32's, rounded once (softmax computes in fp32 inside); a copy in fp32 for the backward pass
    makes a step of `tiny` a tenth longer and its gradient no better.
    """
    scores = (query * scale) @ key.mT
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    return scores.softmax(-1) @ value


ALL_ATTENTION_FUNCTIONS.register(SPLIT_ATTENTION, split_attention)


# upscaling of patches to the grid of the masks --------------------


def upscale(scale_block: PreTrainedModel, maps: torch.Tensor) -> torch.Tensor:
    """Run an EomtScaleBlock of n layers with channels last: [B, C, h, w] to [B, C, 2^n h, 2^n w].

    Patches are tokens, so their channels are last already. A transposed convolution of 2 x 2 pixels
    with stride 2 is a linear layer whose result is rearranged: it is computed so where that is
    faster. Without it in fp32 a step of `tiny` takes 0.96 times as long; with AVX2 alone one of
    small takes 1.05 times.
    """
    maps = maps.contiguous(memory_format=torch.channels_last)
    as_product = multiplies_for_transposed_conv(maps.device)
    for layer in scale_block.block:
        maps = transposed_conv(layer.conv1, maps) if as_product else layer.conv1(maps)
        maps = layer.layernorm2d(layer.conv2(layer.activation(maps)))
    return maps


def transposed_conv(layer: nn.ConvTranspose2d, maps: torch.Tensor) -> torch.Tensor:
    """Run a ConvTranspose2d of kernel 2 and stride 2 as one matrix product.

    maps: [B, C, h, w], channels last. Returns [B, D, 2 h, 2 w], channels last.
    """
    weight, channels = layer.weight, layer.out_channels  # [C, D, 2, 2]
    assert layer.bias is not None
    quarters = F.linear(
        maps.permute(0, 2, 3, 1),
        weight.permute(2, 3, 1, 0).flatten(0, 2),
        layer.bias.repeat(4),
    )
    # [B, h, w, 2, 2, D]: rows, then columns of each four pixels
    quarters = quarters.unflatten(-1, (2, 2, channels))
    return quarters.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
