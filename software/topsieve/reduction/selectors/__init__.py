"""Selectors: which tokens or heads stay."""

from topsieve.reduction.selectors.bipartite import Bipartite
from topsieve.reduction.selectors.diverse import Diverse
from topsieve.reduction.selectors.dominant_contextual import DominantContextual
from topsieve.reduction.selectors.inverse_cdf import InverseCdf
from topsieve.reduction.selectors.stride import Stride
from topsieve.reduction.selectors.threshold import AboveThreshold
from topsieve.reduction.selectors.top_k import TopScores
from topsieve.reduction.selectors.unhalted import Unhalted

__all__ = [
    "AboveThreshold",
    "Bipartite",
    "Diverse",
    "DominantContextual",
    "InverseCdf",
    "Stride",
    "TopScores",
    "Unhalted",
]
