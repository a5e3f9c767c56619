"""The zero eliminator's function: valid lanes move to the front and keep their order (SpAtten, section IV-C)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Payload = TypeVar("Payload")


def compact(lanes: Sequence[Payload], valid: Sequence[bool], empty: Payload) -> tuple[tuple[Payload, ...], int]:
    """The valid lanes first, then `empty`, and how many are valid."""
    kept = [lane for lane, keep in zip(lanes, valid, strict=True) if keep]
    return tuple(kept) + (empty,) * (len(lanes) - len(kept)), len(kept)
