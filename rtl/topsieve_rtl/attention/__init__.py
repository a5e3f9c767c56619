"""The units of the attention pipeline; `docs/attention-rtl.md` draws their registers."""

from topsieve_rtl.attention.dot_product import DotProductArray
from topsieve_rtl.attention.importance import HeadImportance, ImportanceAccumulators, TokenImportance
from topsieve_rtl.attention.layouts import OutputRow, ProbabilityBeat, ScoreBeat, ScoredBeat, WeightedBeat
from topsieve_rtl.attention.softmax import Decision, Softmax
from topsieve_rtl.attention.weighted_sum import WeightedSumArray

__all__ = [
    "Decision",
    "DotProductArray",
    "HeadImportance",
    "ImportanceAccumulators",
    "OutputRow",
    "ProbabilityBeat",
    "ScoreBeat",
    "ScoredBeat",
    "Softmax",
    "TokenImportance",
    "WeightedBeat",
    "WeightedSumArray",
]
