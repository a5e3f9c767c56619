"""How much a chunk depends on what stood before it, and what of it has to be computed again behind another text.

Specification `methods-text`, section 7. Attention is averaged over heads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from topsieve.reduction.budget import exact
from topsieve.reduction.ordering import stable_top_k


def context_influence(outside: float, inside: float) -> float:
    """CCI in [1/2, 1]: 1 / (1 + exp(-a / b)); without any attention inside 1, or 1/2 where there is none outside either.

    Parameters
    ----------
    outside : a, mean over the layers of the attention to earlier chunks a pair of tokens. inside : b, within the chunk.
    """
    if inside == 0:
        return 1.0 if outside > 0 else 0.5
    return 1 / (1 + math.exp(-outside / inside))


def prefix_overlap(attention: Mapping[str, float], prefix: Sequence[str]) -> float:
    """beta: of the chunk's attention to the chunks before it then, the share that goes to those before it now.

    Parameters
    ----------
    attention : to each chunk before it when it was stored. prefix : chunks before it now.
    """
    total = sum(attention.values())
    return sum(mass for chunk, mass in attention.items() if chunk in prefix) / total if total > 0 else 1.0


def order_penalty(before: Sequence[str], now: Sequence[str]) -> float:
    """gamma: share of the pairs of common chunks that stand in another order now."""
    place = {chunk: index for index, chunk in enumerate(now)}
    pairs = list(itertools.combinations([place[chunk] for chunk in dict.fromkeys(before) if chunk in place], 2))
    return sum(a > b for a, b in pairs) / len(pairs) if pairs else 0.0


def fix_share(influence: float, overlap: float, penalty: float, alpha: float = 1.0) -> float:
    """CFO in [0, 1]: the share of the chunk's tokens that should be computed again."""
    return min(max(alpha * influence * (1 - overlap * (1 - penalty)), 0.0), 1.0)


def recompute_count(share: float, tokens: int, *, given: bool = False) -> int:
    """ceil(share x tokens); a `given` share is the decimal its writer meant."""
    return math.ceil(exact(share) * tokens) if given else math.ceil(share * tokens)


def recomputed(scores: Tensor, count: int) -> Tensor:
    """int64 [count]: the tokens of largest `scores` [C], their attention to earlier chunks; ascending, ties lower."""
    every = torch.ones((1, len(scores)), dtype=torch.bool)
    return stable_top_k(scores.unsqueeze(0), torch.tensor([count]), every)[0][0]


def chunks_in_focus(attention: Tensor, mass: float) -> tuple[int, ...]:
    """The fewest chunks that hold the share `mass` of `attention` [m], the most attended first; ascending."""
    order = attention.sort(descending=True, stable=True).indices
    held = attention[order].cumsum(0)
    count = int((held < mass * attention.sum()).sum()) + 1
    return tuple(sorted(order[:count].tolist()))
