"""The plane fetcher on an AXI RAM that pauses at random: data, and the rules of the AR channel."""

from __future__ import annotations

import itertools
import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiRamRead, AxiReadBus

from rtl.harness.plane_fetch_shape import SHAPE
from topsieve_rtl.cosim.codec import pack, unpack
from topsieve_rtl.memory.rows import FetchCommand as CommandLayout
from topsieve_rtl.memory.unpack import FetchBeat as BeatLayout
from topsieve_sim.golden.plane_fetch import FetchCommand, fetch_beats, plan_fetch

SIZE = 1 << 16


def commands_of(seed: int) -> tuple[list[FetchCommand], list[int]]:
    """Rows of every plane, whole heads and sparse tokens, from a seed."""
    draw = random.Random(seed)
    commands: list[FetchCommand] = []
    indices: list[int] = []
    for _ in range(5):
        plane = draw.randrange(3)
        elements = draw.randrange(1, 65)
        stride = SHAPE.row_bytes(elements, plane) + draw.choice([0, 0, 5])
        gather = draw.randrange(2)
        rows = draw.randrange(1, 30)
        if gather:
            live = sorted(draw.sample(range(60), rows))
            indices += live
        commands.append(FetchCommand(draw.randrange(SIZE // 2), stride, rows, elements, plane, gather))
    return commands, indices


async def feed(clock: Any, valid: Any, ready: Any, payload: Any, values: list[int], draw: random.Random) -> None:
    """A source that pauses at random and holds what it offers."""
    for value in values:
        while draw.random() < 0.3:
            await RisingEdge(clock)
        payload.value = value
        valid.value = 1
        while True:
            await RisingEdge(clock)
            if int(ready.value):
                break
        valid.value = 0


async def watch_addresses(dut: Any, seen: list[tuple[int, int]]) -> None:
    """Note every burst; an offered one stays, unchanged, until it is taken."""
    pending = None
    while True:
        await RisingEdge(dut.clk)
        now = None
        if int(dut.m_axi_arvalid.value):
            now = (int(dut.m_axi_araddr.value), int(dut.m_axi_arlen.value))
            assert int(dut.m_axi_arburst.value) == 1
            assert 8 << int(dut.m_axi_arsize.value) == SHAPE.data_bits
        assert pending is None or now == pending, "AR changed while it waited"
        taken = now is not None and int(dut.m_axi_arready.value)
        if taken:
            seen.append((now[0], now[1] + 1))
        pending = None if taken else now


@cocotb.test()
async def rows_from_a_ram(dut: Any) -> None:
    """Five commands; every byte of the RAM differs from its neighbours."""
    draw = random.Random(7)
    contents = random.Random(3).randbytes(SIZE)
    for name in ("command__valid", "index__valid", "o__ready"):
        getattr(dut, name).value = 0
    dut.rst.value = 1
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    for _ in range(4):
        await RisingEdge(dut.clk)
    ram = AxiRamRead(AxiReadBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=SIZE)
    ram.write(0, contents)
    ram.ar_channel.set_pause_generator(draw.random() < 0.4 for _ in itertools.count())
    ram.r_channel.set_pause_generator(draw.random() < 0.3 for _ in itertools.count())
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)

    commands, indices = commands_of(5)
    bursts: list[tuple[int, int]] = []
    cocotb.start_soon(watch_addresses(dut, bursts))
    words = [pack(CommandLayout(SHAPE), command) for command in commands]
    cocotb.start_soon(feed(dut.clk, dut.command__valid, dut.command__ready, dut.command__payload, words, draw))
    cocotb.start_soon(feed(dut.clk, dut.index__valid, dut.index__ready, dut.index__payload, indices, draw))

    def word(address: int) -> tuple[int, int]:
        return int.from_bytes(contents[address : address + SHAPE.data_bytes], "little"), 0

    for expected in fetch_beats(SHAPE, commands, indices, word):
        for _ in range(10_000):
            ready = draw.random() < 0.7
            dut.o__ready.value = ready
            await RisingEdge(dut.clk)
            if ready and int(dut.o__valid.value):
                break
        else:
            raise AssertionError(f"no beat within 10000 cycles, expected {expected}")
        lanes, count, *rest = unpack(BeatLayout(SHAPE), int(dut.o__payload.value))
        got = (tuple(lane if n < count else None for n, lane in enumerate(lanes)), count, *rest)
        assert got == expected
    assert bursts == [tuple(burst) for burst in plan_fetch(SHAPE, commands, indices).bursts]
