"""`Trace`: the contract between software and hardware, a list of typed operations with optional real operands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.trace.ops import Op

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Trace:
    """Operations in program order.

    An attention group is the run of operations from a `QueryKey` to the next `ProbabilityValue`, both included; its
    members work as one pipeline on the hardware. Everything else runs alone.

    Parameters
    ----------
    ops : the operations.
    operands : `(index of the operation, operand name)` to array, see `Op.operand_names`; may be empty.
    model : name of the model the trace was taken from.
    method : name and parameters of the reduction method, as text.
    layers, heads : shape of the model.
    notes : free facts that reports repeat, e.g. where scores were drawn at random because the trace holds none.
    """

    ops: tuple[Op, ...]
    operands: Mapping[tuple[int, str], NDArray[np.float32]] = field(default_factory=dict)
    model: str = ""
    method: str = ""
    layers: int = 0
    heads: int = 0
    notes: tuple[str, ...] = ()

    @property
    def flops(self) -> int:
        """Sum of the operations' FLOPs; equals `torch.utils.flop_counter` on the same run."""
        return sum(op.flops for op in self.ops)
