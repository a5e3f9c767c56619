"""A gated FFN that is whole in the forward pass and keeps some of its channels for the gradient, as LeMo's.

Specification `methods-text`, section 6, step 9.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from topsieve.reduction.ordering import stable_top_k


def kept_channels(channels: int, drop: float) -> int:
    """int(I (1 - drop)), the published expression, and at least one."""
    return max(int(channels * (1 - drop)), 1)


class ApproximateFfn(torch.autograd.Function):
    """down(silu(gate x) up x); the gradient goes through the channels of largest ||silu(gate x)|| + ||up x|| over the tokens.

    Only those channels are kept in memory. The three maps are frozen, as under LoRA: they get no gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, up: Tensor, down: Tensor, drop: float) -> Tensor:
        opened, raised = nn.functional.linear(x, gate), nn.functional.linear(x, up)
        active = nn.functional.silu(opened)
        score = active.flatten(0, -2).norm(dim=0) + raised.flatten(0, -2).norm(dim=0)
        count = torch.tensor([kept_channels(len(score), drop)])
        kept = stable_top_k(score.unsqueeze(0), count, torch.ones_like(score, dtype=torch.bool).unsqueeze(0))[0][0]
        ctx.save_for_backward(opened[..., kept], raised[..., kept], gate, up, down, kept)
        return nn.functional.linear(active * raised, down)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        opened, raised, gate, up, down, kept = ctx.saved_tensors
        share = torch.sigmoid(opened)
        inner = gradients[0] @ down[:, kept]
        to_gate = inner * raised * share * (1 + opened * (1 - share))
        to_up = inner * opened * share
        return to_gate @ gate[kept] + to_up @ up[kept], None, None, None, None
