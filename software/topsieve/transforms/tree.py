"""`Tree`: a fixed tree of draft ranks in breadth-first order, with its mask and its paths."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tree:
    """A tree whose node 0 is the root; children follow their parents level by level.

    Parameters
    ----------
    children : number of children of each node in breadth-first order; nodes behind its end are leaves.
    """

    children: tuple[int, ...]

    @property
    def nodes(self) -> int:
        """Number of nodes, the root included."""
        return 1 + sum(self.children)

    @cached_property
    def parents(self) -> NDArray[np.int64]:
        """int64 [nodes]: the parent of each node, -1 for the root."""
        return np.concatenate(([-1], np.repeat(np.arange(len(self.children)), self.children)))

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """int64 [nodes]: which child of its parent each node is, 0 for the root."""
        return np.concatenate(([0], *(np.arange(count) for count in self.children)))

    @cached_property
    def depths(self) -> NDArray[np.int64]:
        """int64 [nodes]: distance from the root."""
        depths = np.zeros(self.nodes, np.int64)
        for node in range(1, self.nodes):
            depths[node] = depths[self.parents[node]] + 1
        return depths

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """bool [nodes, nodes]: row i is true at node i and its ancestors."""
        mask = np.eye(self.nodes, dtype=bool)
        for node in range(1, self.nodes):
            mask[node] |= mask[self.parents[node]]
        return mask

    @cached_property
    def paths(self) -> tuple[tuple[int, ...], ...]:
        """Root-to-leaf paths, leaves ascending."""
        leaves = sorted(set(range(self.nodes)) - set(self.parents.tolist()))
        return tuple(tuple(np.flatnonzero(self.mask[leaf]).tolist()) for leaf in leaves)
