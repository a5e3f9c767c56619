"""Kernels of token pruning, merging and progressive decode for GPUs, each beside its plain torch reference.

Every function runs on CPU tensors through torch and on CUDA tensors through Triton, chosen by where the operands are.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topsieve_kernels.decode import DecodeResult, decode_gathered
    from topsieve_kernels.gather import gather_rows
    from topsieve_kernels.importance import AttentionImportance, attention_importance
    from topsieve_kernels.merging import Merge, bipartite_merge
    from topsieve_kernels.nibble_planes import NibblePlanes, pack_planes, quantise_rows, unpack_planes
    from topsieve_kernels.progressive import ProgressiveResult, decode_progressive
    from topsieve_kernels.selection import TopK, topk_select

__all__ = [
    "AttentionImportance",
    "DecodeResult",
    "Merge",
    "NibblePlanes",
    "ProgressiveResult",
    "TopK",
    "attention_importance",
    "bipartite_merge",
    "decode_gathered",
    "decode_progressive",
    "gather_rows",
    "pack_planes",
    "quantise_rows",
    "topk_select",
    "unpack_planes",
]

# Loaded on first use: shapes and floors of the benchmark are read by programs that need no torch.
_LAZY = {
    "AttentionImportance": "importance",
    "DecodeResult": "decode",
    "Merge": "merging",
    "NibblePlanes": "nibble_planes",
    "ProgressiveResult": "progressive",
    "TopK": "selection",
    "attention_importance": "importance",
    "bipartite_merge": "merging",
    "decode_gathered": "decode",
    "decode_progressive": "progressive",
    "gather_rows": "gather",
    "pack_planes": "nibble_planes",
    "quantise_rows": "nibble_planes",
    "topk_select": "selection",
    "unpack_planes": "nibble_planes",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"topsieve_kernels.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
