"""The units of the attention pipeline; `docs/attention-rtl.md` draws their registers."""

from topsieve_rtl.attention.core import AttentionCore
from topsieve_rtl.attention.dot_product import DotProductArray
from topsieve_rtl.attention.importance import HeadImportance, ImportanceAccumulators, TokenImportance
from topsieve_rtl.attention.operands import DotProductOnOperands, WeightedSumOnOperands
from topsieve_rtl.attention.selection import ValueSelection
from topsieve_rtl.attention.softmax import Decision, Softmax
from topsieve_rtl.attention.weighted_sum import WeightedSumArray

__all__ = [
    "AttentionCore",
    "Decision",
    "DotProductArray",
    "DotProductOnOperands",
    "HeadImportance",
    "ImportanceAccumulators",
    "Softmax",
    "TokenImportance",
    "ValueSelection",
    "WeightedSumArray",
    "WeightedSumOnOperands",
]
