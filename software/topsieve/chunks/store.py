"""The store of chunks: keys and values of each, with what it looked at when they were computed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from topsieve.chunks.roles import ChunkPolicy
from topsieve.chunks.scores import context_influence, fix_share, order_penalty, prefix_overlap

LEAST_SHARE = 1e-6  # a variant that needed no repair at all is worth a million uses


def chunk_name(tokens: Tensor) -> str:
    """A name for the chunk of these token ids: a digest of them."""
    return hashlib.sha256(",".join(map(str, tokens.tolist())).encode()).hexdigest()[:16]


@dataclass
class Variant:
    """A chunk as it was computed behind certain others.

    Parameters
    ----------
    prefix : chunks before it then, in order. start : position of its first token then.
    keys, values : float [L, KV, C, d], keys as rotated then.
    attention : to each chunk of the prefix, mean over layers of the sum over token pairs.
    influence : CCI.
    token_scores : float [C], attention of each token to the prefix, mean over the layers.
    uses, share : how often it was taken, and the share computed again the last time.
    """

    prefix: tuple[str, ...]
    start: int
    keys: Tensor
    values: Tensor
    attention: Mapping[str, float]
    influence: float
    token_scores: Tensor
    uses: int = 1
    share: float = 1.0

    @property
    def worth(self) -> float:
        """Uses over the share that had to be computed again; the store gives up what is worth least."""
        return self.uses / max(self.share, LEAST_SHARE)

    def fix_share(self, prefix: Sequence[str], alpha: float) -> float:
        """CFO behind the chunks `prefix`."""
        overlap = prefix_overlap(self.attention, prefix)
        return fix_share(self.influence, overlap, order_penalty(self.prefix, prefix), alpha)


@dataclass
class ChunkStore:
    """Variants by chunk. Of a chunk it holds `policy.variants`, of chunks `policy.chunks`, those worth most."""

    policy: ChunkPolicy
    held: dict[str, list[Variant]] = field(default_factory=dict)

    def add(self, name: str, variant: Variant) -> None:
        """Store a variant in the place of one with the same prefix; what is worth least goes where there is no room."""
        here = [old for old in self.held.get(name, []) if old.prefix != variant.prefix]
        if len(here) == self.policy.variants:
            here.remove(min(here, key=lambda old: old.worth))
        if name not in self.held and len(self.held) == self.policy.chunks:
            del self.held[min(self.held, key=lambda chunk: sum(old.worth for old in self.held[chunk]))]
        self.held[name] = [*here, variant]

    def best(self, name: str, prefix: Sequence[str]) -> tuple[Variant, float] | None:
        """The variant with the smallest CFO behind `prefix`, the oldest of equal ones, and that share."""
        found = [(variant, variant.fix_share(prefix, self.policy.alpha)) for variant in self.held.get(name, [])]
        return min(found, key=lambda pair: pair[1]) if found else None


def made_variant(
    prefix: Sequence[tuple[str, int]], start: int, keys: Tensor, values: Tensor, taps: Tensor, inside: Tensor
) -> Variant:
    """A chunk from what its rows of attention gave.

    Parameters
    ----------
    prefix : name and tokens of each chunk before it.
    taps : float [L, C, m], attention of each of its tokens to each chunk before it. inside : float [L], within it.
    """
    tokens = keys.shape[2]
    sums = taps.sum(1).double()  # inter, [L, m]
    outside = sum((sums[:, index] / (tokens * length)).mean().item() for index, (_, length) in enumerate(prefix))
    within = (inside.double() / tokens**2).mean().item()
    attention: dict[str, float] = {}
    for index, (name, _) in enumerate(prefix):
        attention[name] = attention.get(name, 0.0) + sums[:, index].mean().item()
    influence = context_influence(outside, within)
    scores = taps.sum(2).mean(0)
    return Variant(tuple(name for name, _ in prefix), start, keys, values, attention, influence, scores)
