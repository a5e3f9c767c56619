"""The benchmark of the library itself: every way runs in every round, and ratios are taken within a round."""

from __future__ import annotations

import torch

from topsieve.bench import library_overhead, model, side_by_side

# Two threads on tensors this small only wait for each other.
torch.set_num_threads(1)


def test_ways_run_in_turns() -> None:
    called: list[str] = []
    ways = {name: lambda name=name: called.append(name) or sum(range(20_000)) for name in ("a", "b", "c")}
    found = side_by_side(ways, repeats=3)
    rounds = ["".join(called[start : start + 3]) for start in range(0, len(called), 3)]
    assert rounds == ["cba", "abc", "cba", "abc"], "a round that is not counted, then every other one backwards"
    assert list(found.seconds) == list(found.ratio) == ["a", "b", "c"]
    assert found.ratio["a"] == 1
    assert min(found.seconds.values()) > 0


def test_the_library_is_timed_beside_the_model() -> None:
    found = library_overhead(model(width=32, layers=2, heads=2, hidden=64), tokens=16, repeats=1)
    assert list(found.ratio) == ["plain", "dense", "spatten"]
    # So small a model is all library: the ratios say that something more was done, and nothing about BERT.
    assert found.ratio["dense"] > found.ratio["plain"] == 1
