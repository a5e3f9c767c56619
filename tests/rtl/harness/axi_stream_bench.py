"""The top-k engine behind an AXI4-Stream source and sink of cocotbext-axi that pause at random."""

from __future__ import annotations

import itertools
import json
import os
import random
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, with_timeout
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource


@cocotb.test()
async def packets(dut: Any) -> None:
    """Every packet of the file comes back as the file says, in order, with its status on the last beat."""
    job = json.loads(Path(os.environ["TOPSIEVE_PACKETS"]).read_text(encoding="utf-8"))
    draw = random.Random(5)
    dut.rst.value = 1
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    for _ in range(3):
        await RisingEdge(dut.clk)
    source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis"), dut.clk, dut.rst)
    sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis"), dut.clk, dut.rst)
    source.set_pause_generator(draw.random() < 0.3 for _ in itertools.count())
    sink.set_pause_generator(draw.random() < 0.4 for _ in itertools.count())
    dut.rst.value = 0
    for packet in job:
        sent = bytes(packet["sent"])
        await source.send(AxiStreamFrame(sent, tkeep=packet["keep"], tuser=[packet["k"]] * len(sent)))
    for packet in job:
        frame = await with_timeout(sink.recv(compact=False), 20_000, "ns")
        kept = [byte for byte, keep in zip(frame.tdata, frame.tkeep, strict=True) if keep]
        status = frame.tuser if isinstance(frame.tuser, int) else frame.tuser[-1]
        assert (kept, int(status)) == (packet["received"], packet["status"])
