"""What a reduction is: the result object, the four roles that make it, and the budget that bounds it."""

from topsieve.reduction.budget import Base, Budget, Rounding
from topsieve.reduction.deciding import decide
from topsieve.reduction.ordering import compact, live_rank, stable_top_k, top_k_mask
from topsieve.reduction.reduction import Axis, Reduction
from topsieve.reduction.roles import (
    AttentionPolicy,
    BitPlan,
    Context,
    Decision,
    Method,
    ModelShape,
    Reducer,
    Schedule,
    Scorer,
    Selection,
    Selector,
    Signal,
    Site,
    Stage,
    Step,
    Tower,
)
from topsieve.reduction.sparse_map import SparseMap

__all__ = [
    "AttentionPolicy",
    "Axis",
    "Base",
    "BitPlan",
    "Budget",
    "Context",
    "Decision",
    "Method",
    "ModelShape",
    "Reducer",
    "Reduction",
    "Rounding",
    "Schedule",
    "Scorer",
    "Selection",
    "Selector",
    "Signal",
    "Site",
    "SparseMap",
    "Stage",
    "Step",
    "Tower",
    "compact",
    "decide",
    "live_rank",
    "stable_top_k",
    "top_k_mask",
]
