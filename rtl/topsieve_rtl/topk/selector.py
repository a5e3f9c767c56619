"""The interface behind which the three selectors stand."""

from __future__ import annotations

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out


class Command(data.StructLayout):
    """Select the `k`-th largest of the `n` scores in the row buffer."""

    def __init__(self, capacity: int) -> None:
        super().__init__({"n": range(capacity + 1), "k": range(capacity + 1)})


class Threshold(data.StructLayout):
    """Keep what is greater than `kth`, and the first `quota` scores equal to it."""

    def __init__(self, score_bits: int, capacity: int) -> None:
        super().__init__({"kth": score_bits, "quota": range(capacity + 1)})


class Selector(wiring.Component):
    """Base of the selectors; `topsieve_sim.stepped.topk_select.SteppedSelector` is the model.

    Parameters
    ----------
    lanes : elements per row (P), a power of two up to 128.
    score_bits : width of the unsigned scores.
    capacity : longest packet in elements.

    Members
    -------
    command : In(stream.Signature(Command(capacity))), offered when a packet's rows are in the buffer; k = 0 and
        k >= n are decided without a pass.
    result : Out(stream.Signature(Threshold(score_bits, capacity)))
    loading : In(1), a row of scores is on `loaded` on its way into the buffer.
    loading_first : In(1), it is a packet's first.
    loaded : In(ArrayLayout(score_bits, lanes))
    loaded_valid : In(lanes), its valid lanes.
    read : Out(1), read the row at `address`; it is on `row` in the next cycle.
    address : Out
    row : In(ArrayLayout(score_bits, lanes))
    """

    def __init__(self, lanes: int, score_bits: int, capacity: int) -> None:
        if lanes < 1 or lanes > 128 or lanes & (lanes - 1):
            raise ValueError(f"lanes must be a power of two from 1 to 128, got {lanes}")
        if score_bits < 1:
            raise ValueError(f"score_bits must be at least 1, got {score_bits}")
        if capacity < 2:
            raise ValueError(f"capacity must be at least 2, got {capacity}")
        self.lanes = lanes
        self.score_bits = score_bits
        self.capacity = capacity
        self.rows = -(-capacity // lanes)
        row = data.ArrayLayout(score_bits, lanes)
        super().__init__(
            {
                "command": In(stream.Signature(Command(capacity))),
                "result": Out(stream.Signature(Threshold(score_bits, capacity))),
                "loading": In(1),
                "loading_first": In(1),
                "loaded": In(row),
                "loaded_valid": In(lanes),
                "read": Out(1),
                "address": Out(range(self.rows)),
                "row": In(row),
            }
        )
