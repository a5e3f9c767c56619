"""The row writer on an AXI RAM that pauses at random: what the RAM holds afterwards, and the rules of AW and W."""

from __future__ import annotations

import itertools
import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiRamWrite, AxiWriteBus

from rtl.harness.row_writer_cases import machine
from topsieve_rtl.accelerator.writer import LiveHeadWrite, WriterJob
from topsieve_rtl.attention.core_layouts import RowNumber, TokenWrite
from topsieve_rtl.attention.layouts import OutputRow
from topsieve_rtl.cosim.codec import pack
from topsieve_sim.golden.row_write import packed_row

CONFIG = machine(4, 4, 2, head_dim=9, output_bits=13)
SIZE = 1 << 16
UNTOUCHED = 0xA5
JOB = {
    "output": 0x0FE0,
    "row_bytes": 16,
    "head_bytes": 0x1000,
    "report": 0x8FF0,
    "head_dim": 9,
    "live_queries": 1,
    "live_heads": 1,
}


async def holds(dut: Any, channel: str, payload: tuple[str, ...]) -> None:
    """An offered beat stays, unchanged, until it is taken."""
    pending = None
    while True:
        await RisingEdge(dut.clk)
        now = None
        if int(getattr(dut, f"m_axi_{channel}valid").value):
            now = tuple(int(getattr(dut, f"m_axi_{channel}{name}").value) for name in payload)
        assert pending is None or now == pending, f"{channel.upper()} changed while it waited"
        pending = None if int(getattr(dut, f"m_axi_{channel}ready").value) else now


async def offer(dut: Any, port: str, value: int, draw: random.Random) -> None:
    """One beat into a stream port, after a random pause."""
    while draw.random() < 0.3:
        await RisingEdge(dut.clk)
    getattr(dut, f"{port}__payload").value = value
    getattr(dut, f"{port}__valid").value = 1
    while True:
        await RisingEdge(dut.clk)
        if int(getattr(dut, f"{port}__ready").value):
            break
    getattr(dut, f"{port}__valid").value = 0


async def until_idle(dut: Any) -> None:
    for _ in range(10_000):
        await RisingEdge(dut.clk)
        if int(dut.idle.value):
            return
    raise AssertionError("not idle within 10000 cycles")


@cocotb.test()
async def rows_then_a_report(dut: Any) -> None:
    """Rows of permuted tokens and heads, then records; every other byte of the RAM keeps its value."""
    draw = random.Random(11)
    for name in ("row__valid", "record__valid", "reports", "clear", "head_write", "token_write"):
        getattr(dut, name).value = 0
    dut.job.value = pack(WriterJob(CONFIG), JOB)
    dut.rst.value = 1
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    for _ in range(4):
        await RisingEdge(dut.clk)
    ram = AxiRamWrite(AxiWriteBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=SIZE)
    ram.write(0, bytes([UNTOUCHED]) * SIZE)
    for channel, share in ((ram.aw_channel, 0.4), (ram.w_channel, 0.3), (ram.b_channel, 0.6)):
        channel.set_pause_generator(draw.random() < share for _ in itertools.count())
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    cocotb.start_soon(holds(dut, "aw", ("addr", "len", "size", "burst")))
    cocotb.start_soon(holds(dut, "w", ("data", "strb", "last")))

    heads, tokens = [2, 0, 3, 1], draw.sample(range(CONFIG.capacity), CONFIG.capacity)
    for slot, head in enumerate(heads):
        dut.head_write.value = pack(LiveHeadWrite(CONFIG), (1, slot, head))
        await RisingEdge(dut.clk)
    dut.head_write.value = 0
    for position, token in enumerate(tokens):
        dut.token_write.value = pack(TokenWrite(CONFIG), (1, position, token))
        await RisingEdge(dut.clk)
    dut.token_write.value = 0

    image = bytearray([UNTOUCHED]) * SIZE
    limit = 1 << (CONFIG.formats.output_bits - 1)
    for number in draw.sample(range(len(heads) * CONFIG.capacity), 16):
        slot, query = divmod(number, CONFIG.capacity)
        elements = [draw.randrange(-limit, limit) for _ in range(JOB["head_dim"])]
        row = pack(OutputRow(CONFIG, RowNumber(CONFIG).size), (elements, pack(RowNumber(CONFIG), (query, slot))))
        await offer(dut, "row", row, draw)
        address = JOB["output"] + heads[slot] * JOB["head_bytes"] + tokens[query] * JOB["row_bytes"]
        data = packed_row(elements, CONFIG.formats.output_bits)
        image[address : address + len(data)] = data
    await until_idle(dut)
    dut.reports.value = 1
    await RisingEdge(dut.clk)
    for n in range(7):
        data = draw.randbytes(8)
        await offer(dut, "record", int.from_bytes(data, "little") | (n == 6) << 64, draw)
        image[JOB["report"] + 8 * n : JOB["report"] + 8 * n + 8] = data
    await until_idle(dut)
    assert ram.read(0, SIZE) == bytes(image)
    assert int(dut.failed.value) == 0
