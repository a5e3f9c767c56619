"""Kernels of token pruning, merging and progressive decode for GPUs, each beside its plain torch reference.

Every function runs on CPU tensors through torch and on CUDA tensors through Triton, chosen by where the operands are.
"""

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
