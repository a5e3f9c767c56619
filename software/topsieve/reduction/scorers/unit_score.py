"""`UnitScore`: how much a token weighs within its unit, the learned weights of token merging for code."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from topsieve.reduction.roles import Context, ModelShape, Signal
from topsieve_sim.errors import InputError
from topsieve_sim.trace import Op
from topsieve_sim.trace.ops import Projection


@lru_cache(maxsize=32)
def unit_weights(weights: str, width: int) -> dict[str, Tensor]:
    """The maps of a safetensors file: `vector` [D], and for the form with tanh `matrix` [D, C] and `bias` [D].

    Without a file a vector of zeros: every token of a unit weighs the same.

    Raises
    ------
    InputError
        the file is missing or does not fit a model of this width.
    """
    if not weights:
        return {"vector": torch.zeros(width)}
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise InputError(f"not a safetensors file: {error}", field="weights", value=Path(weights).name) from error
    inner = len(found.get("vector", ()))
    shapes = {"vector": (inner,)} | ({"matrix": (inner, width), "bias": (inner,)} if "matrix" in found else {})
    if {name: tuple(x.shape) for name, x in found.items()} != shapes or ("matrix" not in found and inner != width):
        raise InputError(
            "does not hold the weights of units",
            field="weights",
            value=Path(weights).name,
            allowed=f"vector [{width}]; or vector [D], matrix [D, {width}] and bias [D]",
        )
    return found


@dataclass(frozen=True)
class UnitScore:
    """w x, or v tanh(W x + b): specification `methods-text`, section 9. The weights are a softmax of it within the unit.

    Parameters
    ----------
    weights : safetensors file, see `unit_weights`.
    """

    needs: ClassVar[frozenset[Signal]] = frozenset({Signal.HIDDEN, Signal.UNIT})

    weights: str = ""

    def score(self, context: Context) -> Tensor:
        hidden = context.signals[Signal.HIDDEN]
        maps = {name: x.to(hidden) for name, x in unit_weights(self.weights, hidden.shape[-1]).items()}
        if "matrix" in maps:
            hidden = torch.nn.functional.linear(hidden, maps["matrix"], maps["bias"]).tanh()
        return torch.nn.functional.linear(hidden, maps["vector"].unsqueeze(0)).squeeze(-1)

    def work(self, shape: ModelShape, layer: int, tokens: int) -> tuple[Op, ...]:
        maps = unit_weights(self.weights, shape.width)
        inner = len(maps["vector"])
        place = {"layer": layer, "tokens": tokens}
        first = (Projection(**place, inputs=shape.width, outputs=inner, role="other"),) if "matrix" in maps else ()
        return (*first, Projection(**place, inputs=inner, outputs=1, role="other"))
