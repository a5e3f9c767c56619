"""Soft deletion, by which MrT5's gate learns, and the controller that holds the deleted share at its target.

Specification `methods-text`, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def soft_mask(gate: Tensor, valid: Tensor, scale: float) -> Tensor:
    """float [B, 1, 1, N]: what is added to the scores of each key, in the gate's layer and all after it.

    Parameters
    ----------
    gate : float [B, N]. valid : bool [B, N]; padding gets `scale`.
    """
    return torch.where(valid, gate, torch.full_like(gate, scale))[:, None, None]


def deletion_loss(gate: Tensor, valid: Tensor) -> Tensor:
    """Mean gate over live tokens: negative, so a positive weight on it pushes towards deletion."""
    return (gate * valid).sum() / valid.sum()


def deleted_share(gate: Tensor, valid: Tensor, threshold: float) -> float:
    """Share of the live tokens whose gate is under the threshold."""
    return float(((gate < threshold) & valid).sum() / valid.sum())


def gumbel_noise(shape: Sequence[int], draw: torch.Generator) -> Tensor:
    """float of `shape`: standard Gumbel numbers, added to a gate's logits in training only."""
    uniform = torch.rand(*shape, generator=draw, dtype=torch.float64).clamp(min=torch.finfo(torch.float64).tiny)
    return -(-uniform.log()).log()


def score_penalty(scores: Tensor, seen: Tensor, bar: float = 5.0) -> Tensor:
    """Mean of max(score, bar) - bar: what keeps attention scores small, in the gate's layer and all after it.

    Parameters
    ----------
    scores : float [B, H, N, M], before the softmax. seen : bool that broadcasts to it, scores that count.
    """
    counted = seen.expand(scores.shape)
    return ((scores.clamp(min=bar) - bar) * counted).sum() / counted.sum()


def deletes_hard(probability: float, draw: torch.Generator) -> bool:
    """Whether a training step removes tokens as inference does, with this probability (published default: 0)."""
    return bool(torch.rand((), generator=draw, dtype=torch.float64) < probability)


@dataclass(frozen=True)
class ShareController:
    """Weight of `deletion_loss` from one step to the next, so that the deleted share comes to `target`.

    error = target - share; p = 0.9 p + 0.1 k_p error; i = i + k_i error; weight = max(0, p + i). The weight of a step is
    the one computed after the step before.

    Parameters
    ----------
    target : deleted share. weight : of the next step, 0 at first.
    k_p, k_i : the paper's; one of its published examples has k_i = 5e-5.
    delay : steps at the beginning whose weight stays 0 and whose errors are not counted.
    """

    target: float
    weight: float = 0.0
    k_p: float = 0.5
    k_i: float = 1e-5
    p: float = 0.0
    i: float = 0.0
    delay: int = 0

    def after(self, share: float) -> ShareController:
        """The controller after a step in which `share` was deleted."""
        if self.delay:
            return replace(self, delay=self.delay - 1)
        error = self.target - share
        p = 0.9 * self.p + 0.1 * self.k_p * error
        i = self.i + self.k_i * error
        return replace(self, p=p, i=i, weight=max(0.0, p + i))
