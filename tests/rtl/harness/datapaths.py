# amaranth: UnusedElaboratable=no
"""Small datapaths for the tests of the stream parts."""

from __future__ import annotations

from amaranth import Module, Signal, unsigned

from topsieve_rtl.stream import Datapath


def affine(value: int, bits: int) -> int:
    """The function of `Affine`."""
    return (3 * value + 1) % (1 << bits)


class Affine(Datapath):
    """`o` = 3 `i` + 1 modulo 2^bits, then a delay line of `stages` registers."""

    def __init__(self, bits: int, stages: int) -> None:
        super().__init__(unsigned(bits), unsigned(bits), stages)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value = Signal(self.output_shape)
        m.d.comb += value.eq(3 * self.i + 1)
        for stage in range(self.stages):
            register = Signal(self.output_shape, name=f"stage_{stage}")
            m.d.sync += register.eq(value)
            value = register
        m.d.comb += self.o.eq(value)
        return m
