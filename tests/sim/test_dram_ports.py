"""Request ports and crossbar before the DRAM: rules of the ports, and the DRAM's answers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from topsieve_sim.dram import DramSimulator, load_dram_config
from topsieve_sim.dram.address import decode
from topsieve_sim.dram.port_program import PortProgram
from topsieve_sim.dram.ports import Ports, Streams

MEMORIES = {
    "hbm2-interleaved": load_dram_config("hbm2-interleaved", ["organization.channels=4"]),
    "hbm2-shared-buffer": load_dram_config("hbm2-shared-buffer"),
}


@st.composite
def traffic(draw):
    """Commands of three streams with ascending ready cycles, and ports."""
    name = draw(st.sampled_from(sorted(MEMORIES)))
    generator = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    commands = draw(st.integers(1, 12))
    stream = generator.choice(3, commands, p=(0.6, 0.2, 0.2))
    ready = np.cumsum(generator.integers(0, draw(st.sampled_from((1, 60, 400))), commands))
    offset = np.concatenate(([0], np.cumsum(generator.integers(0, 40, commands))))
    lines = generator.integers(0, draw(st.sampled_from((8, 1 << 10, 1 << 20))), offset[-1])
    ports = Ports(
        fetch_ports=draw(st.integers(1, 6)),
        outstanding=draw(st.integers(1, 9)),
        crossbar_cycles=draw(st.integers(0, 9)),
        numerator=draw(st.integers(1, 4)),
        denominator=draw(st.integers(1, 4)),
    )
    return name, Streams(stream.astype(np.int64), ready.astype(np.int64), offset.astype(np.int64)), lines, ports


@given(traffic())
@settings(max_examples=60, deadline=None)
def test_ports_keep_their_rules_and_the_memory_answers_as_it_does_alone(case):
    name, streams, lines, ports = case
    dram = MEMORIES[name]
    addresses = lines * dram.organization.access_bytes
    owner = np.repeat(np.arange(streams.stream.size), np.diff(streams.offset))
    stream = streams.stream[owner]
    writes = stream == 2
    times = PortProgram(dram, addresses, writes, streams.stream, streams.offset, ports).run(streams.ready)

    # A command begins when it is ready and the one before it on its stream has been issued.
    for s in range(3):
        chosen = np.flatnonzero(streams.stream == s)
        before = 0
        for c in chosen:
            own = slice(streams.offset[c], streams.offset[c + 1])
            begin = max(int(streams.ready[c]), before)
            if own.stop > own.start:
                assert times.issued[own].min() >= begin
                assert times.free[c] == times.issued[own].max() + 1
            else:
                assert times.free[c] == begin
            before = int(times.free[c])
    # An access a channel and cycle.
    channel = decode(dram, addresses).channel
    assert np.unique(np.stack((channel, times.issued)), axis=1).shape[1] == addresses.size
    # An access a port and cycle, in order, within the credit; the query port likewise.
    place = np.arange(addresses.size) - streams.offset[owner]
    starts, dealt = {}, 0
    for c in np.flatnonzero(streams.stream == 0):
        starts[c] = dealt
        dealt = (dealt + int(streams.offset[c + 1] - streams.offset[c])) % ports.fetch_ports
    port = np.array(
        [
            (starts[c] + p) % ports.fetch_ports if s == 0 else -int(s)
            for c, p, s in zip(owner, place, stream, strict=True)
        ],
        np.int64,
    )
    for p in np.unique(port):
        own = np.flatnonzero(port == p)
        assert (np.diff(times.issued[own]) > 0).all()
        if p != -2:
            earlier, later = own[: -ports.outstanding], own[ports.outstanding :]
            assert (times.back[earlier] < times.issued[later]).all()
    # The memory's answers are those of the same requests at the same cycles without ports.
    order = np.argsort(times.issued, kind="stable")
    alone = DramSimulator(dram)
    arrival = -(-(times.issued[order] + 1) * ports.numerator // ports.denominator)
    numbers = alone.submit(addresses[order], writes[order], arrival)
    alone.finish()
    complete = alone.complete_cycles(numbers)
    reads = ~writes[order]
    expected = -(-complete[reads] * ports.denominator // ports.numerator) + ports.crossbar_cycles
    assert (times.back[order][reads] == expected).all()
    assert (times.back[writes] == times.issued[writes] + 1).all()


def test_a_lone_stream_comes_near_the_peak():
    """Sequential lines over sixteen channels with full credit: at least 90 % of the bus, as without ports."""
    dram = load_dram_config("hbm2-interleaved", ["organization.channels=16"])
    size = dram.organization.access_bytes
    count = 20_000
    start = np.zeros(1, np.int64)
    program = PortProgram(dram, np.arange(count) * size, False, start, np.array([0, count]), Ports(32, 64, 4))
    times = program.run(start)
    assert count * size / times.back.max() > 0.9 * 512


@given(traffic(), st.data())
@settings(max_examples=60, deadline=None)
def test_running_again_with_other_cycles_equals_a_run_from_the_beginning(case, data):
    name, streams, lines, ports = case
    dram = MEMORIES[name]
    addresses = lines * dram.organization.access_bytes
    writes = np.repeat(streams.stream == 2, np.diff(streams.offset))
    fixed = (dram, addresses, writes, streams.stream, streams.offset, ports)
    program = PortProgram(*fixed)
    ready = streams.ready
    for _ in range(4):
        program.run(ready)
        again = PortProgram(*fixed)
        fresh = again.run(ready)
        for kept, new in zip(program.run(ready), fresh, strict=True):
            assert (kept == new).all()
        assert program.counters() == again.counters()
        # Later commands move, each stream stays in order.
        first = data.draw(st.integers(0, ready.size - 1))
        ready = ready.copy()
        ready[first:] += data.draw(st.integers(-40, 90))
        ready = np.maximum.accumulate(np.maximum(ready, 0))
