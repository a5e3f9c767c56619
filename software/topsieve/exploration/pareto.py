"""Which points no other point beats in everything."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(costs: Sequence[Sequence[float]]) -> list[int]:
    """Places of the points that no other dominates, in order; smaller is better in every column.

    A point dominates another if it is nowhere worse and somewhere better. Of equal points all are in the front.
    """
    front: list[int] = []
    # Sorted so that whatever dominates a point comes before it.
    for place in sorted(range(len(costs)), key=lambda place: tuple(costs[place])):
        if not any(_dominates(costs[other], costs[place]) for other in front):
            front.append(place)
    return sorted(front)


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(first, second, strict=True)) and tuple(first) != tuple(second)
