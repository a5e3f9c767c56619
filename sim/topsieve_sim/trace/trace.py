"""`Trace`: the contract between software and hardware, a list of typed operations with optional real operands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.errors import InputError
from topsieve_sim.trace.groups import AttentionGroup, SingleOp, units
from topsieve_sim.trace.ops import Op, QueryKey

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Trace:
    """Operations in program order.

    An attention group is the run of operations from a `QueryKey` to the next `ProbabilityValue`, both included; its
    members work as one pipeline on the hardware. Everything else runs alone.

    Parameters
    ----------
    ops : the operations.
    operands : `(index of the operation, operand name)` to float32 array, see `Op.operand_names`; may be empty. An
        attention group has query, key and value or none of them.
    model : name of the model the trace was taken from.
    method : name and parameters of the reduction method, as text.
    layers, heads : shape of the model.
    notes : free facts that reports repeat, e.g. where scores were drawn at random because the trace holds none.

    Raises
    ------
    InputError
        the trace is empty, an attention group is not well formed, or an operand is missing, has no operation, or has
        the wrong shape, dtype or a value that is not finite.
    """

    ops: tuple[Op, ...]
    operands: Mapping[tuple[int, str], NDArray[np.float32]] = field(default_factory=dict)
    model: str = ""
    method: str = ""
    layers: int = 0
    heads: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.ops:
            raise InputError("a trace needs at least one operation")
        for (index, name), array in self.operands.items():
            self._check_operand(index, name, array)
        for group in self.attention_groups():
            places = ((group.start, "query"), (group.start, "key"), (group.stop - 1, "value"))
            missing = [place for place in places if place not in self.operands]
            if len(missing) == len(places) and (group.start, "bias") not in self.operands:
                continue
            if missing:
                index, name = missing[0]
                raise InputError("operand is missing", field=f"op {index} ({self.ops[index].kind}): {name}")

    def _check_operand(self, index: int, name: str, array: NDArray[np.float32]) -> None:
        if not 0 <= index < len(self.ops):
            raise InputError("operand without an operation", field=f"op {index}: {name}")
        op = self.ops[index]
        where = f"op {index} ({op.kind}): {name}"
        if name not in op.operand_names:
            raise InputError("unknown operand", field=where, allowed=", ".join(op.operand_names) or "none")
        if array.dtype != np.float32:
            raise InputError("operand has the wrong dtype", field=where, value=str(array.dtype), allowed="float32")
        shape = op.operand_shape(name)
        if array.shape != shape:
            raise InputError("operand has the wrong shape", field=where, value=array.shape, allowed=str(shape))
        if not np.isfinite(array).all():
            raise InputError("operand holds values that are not finite", field=where)

    def units(self) -> Iterator[AttentionGroup | SingleOp]:
        """The trace in program order, each attention group taken as one."""
        return units(self.ops)

    def attention_groups(self) -> Iterator[AttentionGroup]:
        """The attention groups in program order."""
        return (unit for unit in units(self.ops) if isinstance(unit, AttentionGroup))

    def operand(self, index: int, name: str) -> NDArray[np.float32] | None:
        """The operand `name` of operation `index`, None where the trace holds none."""
        return self.operands.get((index, name))

    @property
    def has_attention_operands(self) -> bool:
        """Whether every attention group has its query, key and value."""
        starts = [index for index, op in enumerate(self.ops) if isinstance(op, QueryKey)]
        return bool(starts) and all((index, "query") in self.operands for index in starts)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all operations, decisions included."""
        return sum(op.macs for op in self.ops)

    @property
    def flops(self) -> int:
        """Sum of the operations' FLOPs; equals `torch.utils.flop_counter` on the same run."""
        return sum(op.flops for op in self.ops)

    @property
    def attention_flops(self) -> int:
        """FLOPs of the attention groups alone."""
        return sum(group.query_key.flops + group.probability_value.flops for group in self.attention_groups())

    @property
    def key_value_bytes(self) -> int:
        """DRAM bytes of keys and values, see `AttentionGroup.key_bits` and `value_bits`; the whole rounded up."""
        return -(-sum(group.key_bits + group.value_bits for group in self.attention_groups()) // 8)
