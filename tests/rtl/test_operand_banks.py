"""Words of an operand bank: a collision is noticed, and synthesis is told that there is none."""

from __future__ import annotations

import pytest
from amaranth.sim import Simulator

from topsieve_rtl.attention.banks import WordBank
from topsieve_rtl.attention.row_buffer import RowBuffer
from topsieve_rtl.verilog.convert import rtlil_text, verilog_text


@pytest.mark.parametrize(
    ("reads", "enable", "read_address", "collides"),
    [(1, 0b10, 3, 1), (0, 0b10, 3, 0), (1, 0b00, 3, 0), (1, 0b11, 2, 0)],
)
def test_a_word_that_is_used_while_it_is_written_is_an_overflow(reads, enable, read_address, collides):
    bank = WordBank(4, 2, 8)

    async def bench(context):
        context.set(bank.address, 3)
        context.set(bank.enable, enable)
        context.set(bank.read_address, read_address)
        context.set(bank.reads, reads)
        assert context.get(bank.overflow) == collides

    simulator = Simulator(bank)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(("component", "memories"), [(WordBank(4, 2, 64), 2), (RowBuffer(4, 64), 1)])
def test_the_verilog_tells_synthesis_that_no_word_is_read_while_it_is_written(component, memories):
    text = verilog_text(rtlil_text(component, "words"))
    assert text.count("(* no_rw_check = ") == memories
    # It is the one attribute that is kept.
    assert text.count("(*") == memories
