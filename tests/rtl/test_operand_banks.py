"""Operand banks: beats are counted a cycle ahead; a collision of words is noticed, and synthesis is told that there is none."""

from __future__ import annotations

import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from topsieve_rtl.attention.banks import WordBank
from topsieve_rtl.attention.beat_count import BeatCount
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


BEATS = 5


@settings(max_examples=40, deadline=None)
@given(
    cycles=st.lists(
        st.tuples(st.booleans(), st.integers(0, 9).map(lambda n: n == 0), st.booleans(), st.integers(0, BEATS)),
        min_size=1,
        max_size=40,
    )
)
def test_a_beat_is_there_when_the_count_is_beyond_it(cycles):
    """What is awaited moves on or stays, beats complete, banks begin anew, also in the same cycle."""
    unit = BeatCount(BEATS)

    async def bench(context):
        count, beat = 0, 0
        for completes, restarts, starts, following in cycles:
            completes = completes and count < BEATS
            for port, value in (
                (unit.completes, completes),
                (unit.restarts, restarts),
                (unit.awaited.beat, beat),
                (unit.awaited.following, following),
                (unit.awaited.starts, starts),
            ):
                context.set(port, value)
            assert context.get(unit.has_beat) == (count > beat)
            await context.tick()
            count = 0 if restarts else count + completes
            beat = following if starts else beat
        context.set(unit.awaited.beat, beat)
        assert context.get(unit.has_beat) == (count > beat)

    simulator = Simulator(unit)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()
