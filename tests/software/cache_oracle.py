"""Caches re-computed slot by slot in plain Python and numpy, from queries, keys and values alone.

Nothing of `topsieve.cache` is used: each method of `test_cache_oracles.py` is a function that looks at slots and says
which stay. A slot is a dictionary; a cache is a list of them, oldest first, one cache a key-value head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Slot = dict
Decide = Callable[["Head", int], None]


@dataclass
class Head:
    """One key-value head: its slots, and what its queries saw in the running pass.

    rows : a query of a group's head: (query position, {slot position: probability}), of this pass, oldest first.
    """

    number: int
    group: int
    prompt: int
    slots: list[Slot] = field(default_factory=list)
    rows: list[list[tuple[int, dict[int, float]]]] = field(default_factory=list)
    memory: dict = field(default_factory=dict)

    @property
    def positions(self) -> list[int]:
        return [slot["position"] for slot in self.slots]

    def column_sum(self, position: int, member: int) -> float:
        return sum(row.get(position, 0.0) for _, row in self.rows[member])

    def keep(self, positions) -> None:
        chosen = set(positions)
        self.slots = [slot for slot in self.slots if slot["position"] in chosen]


def best(candidates: list[Slot], score: Callable[[Slot], float], count: int) -> list[int]:
    """Positions of the `count` best, the oldest first among equals."""
    order = sorted(candidates, key=lambda slot: (-score(slot), slot["position"]))
    return [slot["position"] for slot in order[: max(count, 0)]]


def run(query: np.ndarray, key: np.ndarray, value: np.ndarray, prompt: int, decide: Callable) -> list[list[Head]]:
    """Feed a prompt and then single tokens; `decide(heads, number)` changes the caches after each pass.

    query [H, T, d], key and value [KV, T, d]; returns a snapshot of all heads after each pass.
    """
    group = len(query) // len(key)
    heads = [Head(number, group, prompt) for number in range(len(key))]
    snapshots = []
    for number, (start, stop) in enumerate([(0, prompt), *((t, t + 1) for t in range(prompt, key.shape[1]))]):
        for head in heads:
            for t in range(start, stop):
                head.slots.append({"position": t, "k": key[head.number, t].copy(), "v": value[head.number, t].copy()})
            head.rows = [
                [(t, row(query[head.number * group + member, t], head.slots, t)) for t in range(start, stop)]
                for member in range(group)
            ]
        decide(heads, number)
        snapshots.append([Head(h.number, group, prompt, [dict(s) for s in h.slots]) for h in heads])
    return snapshots


def row(query: np.ndarray, slots: list[Slot], position: int) -> dict[int, float]:
    """Probabilities of one query."""
    seen = [slot for slot in slots if slot["position"] <= position]
    scores = np.array([query @ slot["k"] for slot in seen]) / np.sqrt(len(query))
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    return dict(zip([slot["position"] for slot in seen], weights.tolist(), strict=True))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
