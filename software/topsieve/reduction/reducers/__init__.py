"""Reducers: what happens to the tokens that do not stay."""

from topsieve.reduction.reducers.add_mean import AddMean
from topsieve.reduction.reducers.drop import Drop
from topsieve.reduction.reducers.fuse_rest import FuseRest
from topsieve.reduction.reducers.merge_to import MergeTo
from topsieve.reduction.reducers.neighbour_sums import NeighbourSums
from topsieve.reduction.reducers.softmax_merge import SoftmaxMerge

__all__ = [
    "SoftmaxMerge",
    "AddMean",
    "Drop",
    "FuseRest",
    "MergeTo",
    "NeighbourSums",
]
