"""How far the edge distributions of earlier decoder layers are from those of the last one, with a gradient in closed form."""

import torch
from torch.autograd.function import once_differentiable


class _Divergence(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, temperature):
        log_p = (logits / temperature).log_softmax(-1)
        students, teacher = log_p[:, :-1], log_p[:, -1:]
        ctx.save_for_backward(log_p)
        ctx.temperature = temperature
        return (teacher - students).mul_(teacher.exp()).sum((-2, -1))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (log_p,) = ctx.saved_tensors
        slope = log_p.exp()
        slope[:, :-1].sub_(slope[:, -1:]).mul_(gradient[..., None, None] / ctx.temperature)
        slope[:, -1].zero_()
        return slope, None


def divergence_from_last(logits, temperature=5.0):
    """KL(softmax(teacher / T) || softmax(student / T)), summed over the four sides: [B, L - 1, Q].

    logits: edge distributions [B, L, Q, 4, bins]; the last layer is the teacher and gets no gradient.
    """
    return _Divergence.apply(logits, temperature)
