# amaranth: UnusedElaboratable=no
"""No port of a stream part reaches another without a register."""

import pytest
from amaranth import Module, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from rtl.harness.datapaths import Affine
from topsieve_rtl.formal import combinational_paths
from topsieve_rtl.stream import CreditPipeline, Fifo, Storage


@pytest.mark.parametrize("storage", Storage)
def test_fifos_register_every_path(storage):
    assert combinational_paths(Fifo(unsigned(4), 3, storage)) == []


def test_pipelines_register_every_path():
    assert combinational_paths(CreditPipeline(Affine(4, 0), 2)) == []


class Wire(wiring.Component):
    """A unit that breaks the rule in both directions."""

    i: In(stream.Signature(4))
    o: Out(stream.Signature(4))

    def elaborate(self, platform):
        m = Module()
        wiring.connect(m, wiring.flipped(self.i), wiring.flipped(self.o))
        return m


def test_a_wire_is_found():
    assert combinational_paths(Wire()) == [
        ("i__payload", "o__payload"),
        ("i__valid", "o__valid"),
        ("o__ready", "i__ready"),
    ]
