"""How many of the tokens that leave an encoder stay."""

from __future__ import annotations

from topsieve.reduction.budget import Budget, Rounding
from topsieve.reduction.roles import ModelShape


def output_budget(
    shape: ModelShape, keep: float, tokens: int | None = None, rounding: Rounding = Rounding.FLOOR
) -> Budget:
    """A share `keep`, or a number `tokens`, of the patches; a class token that leaves the encoder stays beside them."""
    first = 1 if shape.class_token else 0
    if tokens is not None:
        return Budget(count=tokens + first, protect_first=first)
    return Budget(ratio=keep, rounding=rounding, protect_first=first, ratio_excludes_protected=True)
