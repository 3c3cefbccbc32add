"""Vectors of length 1."""

from typing import Any

import torch
from torch import Tensor

SMALLEST = 1e-12
"""Vectors shorter than this stay shorter than 1; zeros stay zeros."""


def unit(vectors: Tensor) -> Tensor:
    """[..., dim] → [..., dim], each divided by its length: `torch.nn.functional.normalize` in fewer passes."""
    found: Tensor = _Unit.apply(vectors)  # type: ignore[no-untyped-call]
    return found


class _Unit(torch.autograd.Function):
    """u = x / |x|, and ∂x = (∂u − (∂u · u) u) / |x|."""

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        share = 1 / vectors.norm(dim=-1, keepdim=True).clamp_(min=SMALLEST)
        found: Tensor = vectors * share
        ctx.save_for_backward(found, share)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,), (found, share) = gradients, ctx.saved_tensors
        along = (gradient * found).sum(dim=-1, keepdim=True)
        of_vectors: Tensor = torch.addcmul(gradient, found, along, value=-1).mul_(share)
        return of_vectors
