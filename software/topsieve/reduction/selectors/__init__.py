"""Selectors: which tokens or heads stay."""

from topsieve.reduction.selectors.bipartite import Bipartite
from topsieve.reduction.selectors.stride import Stride
from topsieve.reduction.selectors.threshold import AboveThreshold
from topsieve.reduction.selectors.top_k import TopScores

__all__ = ["AboveThreshold", "Bipartite", "Stride", "TopScores"]
