"""The zero eliminator: valid lanes move to the front, order kept (SpAtten, section IV-C and figure 10)."""

from __future__ import annotations

from amaranth import Cat, Module, Mux
from amaranth.hdl import Shape, ShapeLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from topsieve_rtl.stream import Beat, CreditPipeline, Datapath
from topsieve_rtl.topk.networks import delayed, layers_per_rank, prefix_counts, registered
from topsieve_sim.golden.topk_latency import zero_eliminator_stages
from topsieve_sim.timing.zero_eliminator import zero_eliminator_shape


class MaskedBeat(data.StructLayout):
    """`lanes` elements, of which those with their bit of `valid` set count; `last` closes a packet."""

    def __init__(self, element: ShapeLike, lanes: int) -> None:
        super().__init__({"lanes": data.ArrayLayout(element, lanes), "valid": lanes, "last": 1})


class Compactor(Datapath):
    """The datapath of the zero eliminator: prefix count of the invalid lanes, then log2(P) shift layers.

    In layer j an element moves 2^j lanes down if bit j of the number of invalid lanes below it is set; an arriving
    element wins over the resident one, which has left or was invalid. Lanes at and beyond `count` hold anything.
    """

    def __init__(self, element: ShapeLike, lanes: int) -> None:
        self.element = element
        self.lanes = lanes
        super().__init__(MaskedBeat(element, lanes), Beat(element, lanes), zero_eliminator_stages(lanes))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        width = Shape.cast(self.element).width
        ranks = self.stages // 2
        lanes = self.lanes
        arriving = self.i.lanes.as_value()
        holes = prefix_counts(m, [~bit for bit in self.i.valid], "holes")
        data_in = delayed(m, arriving, ranks, "data")
        valid_in = delayed(m, self.i.valid, ranks, "valid")
        last = delayed(m, self.i.last, self.stages, "last")
        values = [data_in[lane * width : (lane + 1) * width] for lane in range(lanes)]
        valid = [valid_in[lane] for lane in range(lanes)]
        # A valid lane is no hole itself, so the inclusive count is the number of holes below it.
        shifts = list(holes)
        count = lanes - holes[-1]
        for rank, layers in enumerate(layers_per_rank(lanes)):
            for layer in layers:
                step = 1 << layer
                moved_values, moved_valid, moved_shifts = [], [], []
                for lane in range(lanes):
                    stays = valid[lane] & ~shifts[lane][layer]
                    if lane + step < lanes:
                        comes = valid[lane + step] & shifts[lane + step][layer]
                        moved_values.append(Mux(comes, values[lane + step], values[lane]))
                        moved_shifts.append(Mux(comes, shifts[lane + step], shifts[lane]))
                        moved_valid.append(comes | stays)
                    else:
                        moved_values.append(values[lane])
                        moved_shifts.append(shifts[lane])
                        moved_valid.append(stays)
                values, valid, shifts = moved_values, moved_valid, moved_shifts
            values = [registered(m, value, f"value_{rank}_{lane}") for lane, value in enumerate(values)]
            valid = [registered(m, bit, f"moving_{rank}_{lane}") for lane, bit in enumerate(valid)]
            shifts = [registered(m, shift, f"shift_{rank}_{lane}") for lane, shift in enumerate(shifts)]
            count = registered(m, count, f"count_{rank}", range(lanes + 1))
        m.d.comb += [
            self.o.lanes.as_value().eq(Cat(values)),
            self.o.count.eq(count),
            self.o.last.eq(last),
        ]
        return m


class ZeroEliminator(wiring.Component):
    """A stream of masked beats to a stream of packed beats, one beat per cycle at every width.

    Parameters
    ----------
    element : shape of one lane; any.
    lanes : lanes per beat, at least 1; any number.

    Members
    -------
    i : In(stream.Signature(MaskedBeat(element, lanes)))
    o : Out(stream.Signature(Beat(element, lanes)))
    """

    def __init__(self, element: ShapeLike, lanes: int) -> None:
        if lanes < 1:
            raise ValueError(f"lanes must be at least 1, got {lanes}")
        latency_cycles, depth = zero_eliminator_shape(lanes)
        self.pipeline = CreditPipeline(Compactor(element, lanes), depth)
        assert self.pipeline.latency_cycles == latency_cycles
        super().__init__(
            {
                "i": In(stream.Signature(MaskedBeat(element, lanes))),
                "o": Out(stream.Signature(Beat(element, lanes))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.pipeline = pipeline = self.pipeline
        wiring.connect(m, wiring.flipped(self.i), pipeline.i)
        wiring.connect(m, pipeline.o, wiring.flipped(self.o))
        return m
