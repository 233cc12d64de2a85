"""What the network said and what was true, in the layout that the criterion computes in."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)
class Answers:
    """All heads of one forward in fp32; T = Nd + Q queries, the Nd denoising ones first.

    H heads of the decoder ("pre" first where there is one more than layers), K = H + 1 with the encoder's proposals, L layers.
    """

    logits: torch.Tensor  # [B, H, T, C]
    boxes: torch.Tensor  # [B, K, T, 4], cxcywh; the proposals have nothing at denoising queries
    proposals: torch.Tensor | None  # [B, Q, C], class logits of the encoder
    edges: torch.Tensor  # [B, L, T, 4, bins], logits over the bins of left, top, right, bottom
    references: torch.Tensor  # [B, T, 4], cxcywh, that the edges count from; the same for all layers
    num_denoising: int

    @classmethod
    def read(cls, outputs):
        """From the library's DFineModelOutput, or anything with the same attributes, in train or eval form."""
        logits, boxes = outputs.intermediate_logits.float(), outputs.intermediate_reference_points.float()
        edges = outputs.intermediate_predicted_corners.float()
        denoising = outputs.denoising_meta_values
        num_denoising = denoising["dn_num_split"][0] if denoising else 0
        proposals = outputs.enc_topk_logits
        if proposals is not None:
            proposals = proposals.float()
            # as one more head; twelve bytes a query are cheaper than a second round of everything
            boxes = torch.cat([boxes, F.pad(outputs.enc_topk_bboxes.float(), (0, 0, num_denoising, 0))[:, None]], 1)
        references = outputs.initial_reference_points[:, 0].detach().float()
        return cls(logits, boxes, proposals, edges.unflatten(-1, (4, -1)), references, num_denoising)

    @property
    def num_queries(self):
        """Q: without those of denoising."""
        return self.logits.shape[2] - self.num_denoising

    @property
    def layer_heads(self):
        """Which of the H heads are the decoder layers."""
        return slice(self.logits.shape[1] - self.edges.shape[1], self.logits.shape[1])

    def normal_heads(self):
        """[(logits [B, H, Q, C], boxes [B, H, Q, 4])] without denoising: the decoder's, then the encoder's."""
        num_heads, boxes = self.logits.shape[1], self.boxes[:, :, self.num_denoising :]
        heads = [(self.logits[:, :, self.num_denoising :], boxes[:, :num_heads])]
        if self.proposals is not None:
            heads.append((self.proposals[:, None], boxes[:, num_heads:]))
        return heads


@dataclass(frozen=True, eq=False)
class Truth:
    """The true boxes of all pictures of a batch, one after another."""

    labels: torch.Tensor  # int64 [N]
    boxes: torch.Tensor  # float32 [N, 4], cxcywh
    sizes: tuple  # boxes in each picture, on the host

    @classmethod
    def join(cls, targets):
        """targets: [{"class_labels": [G], "boxes": [G, 4]}]. Reads shapes only."""
        labels = torch.cat([target["class_labels"] for target in targets])
        boxes = torch.cat([target["boxes"] for target in targets]).float()
        return cls(labels, boxes, tuple(len(target["class_labels"]) for target in targets))

    def __len__(self):
        return sum(self.sizes)

    def images(self):
        """Whose picture each box is in: int64 [N], on the host."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)
