"""`RandomGate` and `FixedGate`: gates that look at nothing, the baselines of MrT5's learned one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

import torch
from torch import Tensor

from topsieve.reduction.budget import exact
from topsieve.reduction.ordering import top_k_mask
from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve.reduction.scorers.random_score import RandomScore
from topsieve_sim.trace import Op


@dataclass(frozen=True)
class RandomGate:
    """`scale` for int(p n) tokens drawn at random, 0 for the others: specification `methods-text`, section 5.

    The seed draws p from the normal distribution around `share`. Each sequence counts alone (published: the flat
    batch), and a token's draw depends on seed, layer and position only.

    Parameters
    ----------
    scale : the gate of deleted tokens, negative.
    share : mean of p. spread : its standard deviation.
    seed : added to the context's.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset()

    scale: float
    share: float
    spread: float
    seed: int

    def score(self, context: Context) -> Tensor:
        random = torch.Generator().manual_seed(self.seed + context.seed)
        p = float(torch.randn((), generator=random, dtype=torch.float64)) * self.spread + self.share
        gone = torch.tensor([int(min(max(p, 0.0), 1.0) * n) for n in context.live.tolist()], device=context.live.device)
        drawn = top_k_mask(RandomScore(self.seed).score(context), gone, context.valid)
        return torch.where(drawn, self.scale, 0.0)

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        return ()


@dataclass(frozen=True)
class FixedGate:
    """0 for the first ceil((1 - share) n) of each unit's n tokens, `scale` for the others: `methods-text`, section 5.

    Units are those given with the text, see `topsieve.delete_gate.segments`; a token without a unit given is one of its own,
    and stays.

    Parameters
    ----------
    scale : the gate of deleted tokens, negative.
    share : of a unit that goes.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.UNIT})

    scale: float
    share: float

    def score(self, context: Context) -> Tensor:
        unit, valid = context.signals[Signal.UNIT], context.valid
        score = torch.zeros(valid.shape, device=valid.device)
        for row in range(len(unit)):
            ids = valid[row].nonzero().flatten()
            first = 0
            for _, same in groupby(unit[row, ids].tolist()):
                length = len(list(same))
                kept = math.ceil((1 - exact(self.share)) * length)
                score[row, ids[first + kept : first + length]] = self.scale
                first += length
        return score

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        return ()
