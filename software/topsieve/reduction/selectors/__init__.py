"""Selectors: which tokens or heads stay."""

from topsieve.reduction.selectors.all_or_nothing import AllOrNothing
from topsieve.reduction.selectors.bipartite import Bipartite
from topsieve.reduction.selectors.changed_frames import ChangedFrames
from topsieve.reduction.selectors.density_count import DensityCount
from topsieve.reduction.selectors.density_peaks import DensityPeaks
from topsieve.reduction.selectors.dissimilar_to_pivots import DissimilarToPivots
from topsieve.reduction.selectors.distance_bounded import DistanceBounded
from topsieve.reduction.selectors.diverse import Diverse
from topsieve.reduction.selectors.dominant_contextual import DominantContextual
from topsieve.reduction.selectors.entropy_paced import EntropyPaced
from topsieve.reduction.selectors.inverse_cdf import InverseCdf
from topsieve.reduction.selectors.outliers import Outliers
from topsieve.reduction.selectors.stride import Stride
from topsieve.reduction.selectors.threshold import AboveThreshold
from topsieve.reduction.selectors.top_k import TopScores
from topsieve.reduction.selectors.undeleted import Undeleted
from topsieve.reduction.selectors.unhalted import Unhalted
from topsieve.reduction.selectors.units import Units

__all__ = [
    "Units",
    "Undeleted",
    "AboveThreshold",
    "AllOrNothing",
    "Bipartite",
    "ChangedFrames",
    "DensityCount",
    "DensityPeaks",
    "DissimilarToPivots",
    "DistanceBounded",
    "Diverse",
    "DominantContextual",
    "EntropyPaced",
    "InverseCdf",
    "Outliers",
    "Stride",
    "TopScores",
    "Unhalted",
]
