# amaranth: UnusedElaboratable=no
"""The whole machine on a memory that stalls: hardware and models draw the same stalls, and both feel them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from amaranth import Signal
from amaranth.sim import Simulator
from hypothesis import given
from hypothesis import strategies as st

from topsieve_rtl.accelerator.stall_source import STALLS, StallSource, stall_cycles
from topsieve_rtl.cosim import Engine, Source, first_divergence, run
from topsieve_rtl.units.accelerator import AcceleratorUnit, run_stalls
from topsieve_sim.arch import load_config

TINY = load_config("tiny")


@pytest.mark.parametrize(("seed", "channel", "chance"), [(0, 0, 255), (12345, 3, 70), (0xFFFF_FFFF, 8, 130)])
def test_the_source_is_its_model(seed, channel, chance):
    load, seeds, chances = Signal(), Signal(32), Signal(8)
    source = StallSource(channel, load, seeds, chances)
    found = []

    async def bench(context):
        assert context.get(source.cycles) == 0
        for port, value in ((load, 1), (seeds, seed), (chances, chance)):
            context.set(port, value)
        await context.tick()
        context.set(load, 0)
        for cycle in range(300):
            # It stands still where nothing asks it to go on.
            context.set(source.advance, cycle % 3 != 1)
            if cycle % 3 != 1:
                found.append(context.get(source.cycles))
            await context.tick()

    simulator = Simulator(source)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()
    assert found == stall_cycles(seed, channel, chance, len(found)).tolist()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0, 20, 130]))
def test_stalls_come_as_often_as_asked_and_channels_are_strangers(seed, chance):
    drawn = np.array([stall_cycles(seed, channel, chance, 2000) for channel in range(len(STALLS))])
    share = chance / 256
    # Six standard deviations of 2000 independent draws.
    assert np.abs((drawn > 0).mean(1) - share).max() <= 6 * np.sqrt(share * (1 - share) / 2000)
    assert drawn.max() <= 8
    if chance:
        assert set(drawn[drawn > 0].tolist()) == set(range(1, 9))
        together = np.corrcoef(drawn > 0) - np.eye(len(STALLS))
        assert np.abs(together).max() <= 6 / np.sqrt(2000)


def test_a_longer_pattern_begins_with_the_shorter_one():
    short, long = run_stalls(7, 70, 100), run_stalls(7, 70, 400)
    for few, many in zip(
        (*short.operands, *short.queries, *short.writes), (*long.operands, *long.queries, *long.writes), strict=True
    ):
        assert (few == many[: few.size]).all()


def test_stalls_of_another_seed_or_none_are_caught():
    unit = AcceleratorUnit()
    design = unit.design(TINY)
    case = unit.draw(TINY, np.random.default_rng([0, 3]))
    assert unit.compared(TINY, case)["jobs under stalls of the memory"] == 1
    (log,) = run(design, [case], Engine.PYTHON)
    assert first_divergence(unit.expect(TINY, case), log.channels) is None

    def replaced(change):
        steps = [change(step) for step in case.sources["i"].beats]
        kept = [step for step in steps if step is not None]
        return dataclasses.replace(case, sources={"i": Source(kept, [0] * len(kept))})

    for change in (
        lambda step: (5, step[1], step[2] ^ 1) if step[0] == 5 else step,
        lambda step: None if step[0] == 5 else step,
    ):
        assert first_divergence(unit.expect(TINY, replaced(change)), log.channels) is not None
