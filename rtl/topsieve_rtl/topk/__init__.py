"""The top-k engine and its parts; `docs/topk-engine.md` draws them."""

from topsieve_rtl.topk.axi_stream import AxiStreamTopK
from topsieve_rtl.topk.bitonic import BitonicSelect
from topsieve_rtl.topk.engine import TopKEngine, make_selector
from topsieve_rtl.topk.filter import Filter, Survivors
from topsieve_rtl.topk.loader import LoadBeat, Loader
from topsieve_rtl.topk.quick import QuickSelect
from topsieve_rtl.topk.radix import RadixSelect
from topsieve_rtl.topk.selector import Selector
from topsieve_rtl.topk.zero_eliminator import Compactor, MaskedBeat, ZeroEliminator

__all__ = [
    "AxiStreamTopK",
    "BitonicSelect",
    "Compactor",
    "Filter",
    "LoadBeat",
    "Loader",
    "MaskedBeat",
    "QuickSelect",
    "RadixSelect",
    "Selector",
    "Survivors",
    "TopKEngine",
    "ZeroEliminator",
    "make_selector",
]
