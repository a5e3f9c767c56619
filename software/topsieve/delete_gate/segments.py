"""Segments of a text between separators, the units of MrT5's fixed gate.

Specification `methods-text`, section 5.
"""

from __future__ import annotations

import string
from collections.abc import Collection

import torch
from torch import Tensor

# ByT5 numbers bytes from 3. The published list has 36 numbers: as many as ASCII has marks and the usual blanks.
FIRST_BYTE = 3
BYTE_SEPARATORS = frozenset(FIRST_BYTE + ord(mark) for mark in string.punctuation + " \t\n\r")


def segments(ids: Tensor, separators: Collection[int] = BYTE_SEPARATORS) -> Tensor:
    """int64 [B, N]: the number of each token's segment in its row; a separator ends the segment it stands in.

    Parameters
    ----------
    ids : int64 [B, N], tokens.
    """
    ends = torch.isin(ids, torch.tensor(sorted(separators), dtype=ids.dtype, device=ids.device))
    return ends.cumsum(-1) - ends.to(torch.int64)
