"""The accelerator between cocotbext-axi's memories and register master, all of which pause at random."""

from __future__ import annotations

import itertools
import mmap
import random
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import RisingEdge
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiRamRead,
    AxiRamWrite,
    AxiReadBus,
    AxiResp,
    AxiWriteBus,
)

from topsieve_rtl.accelerator.driver import AcceleratorDriver
from topsieve_rtl.units.accelerator_jobs import draw_job
from topsieve_sim.arch import load_config
from topsieve_sim.golden.accelerator import run

SIZE = 1 << 14


@cocotb.test()
async def a_job_from_a_ram(dut: Any) -> None:
    """A layer by the Python driver; the memory afterwards is that of the golden machine."""
    draw = random.Random(5)
    config = load_config("tiny")
    job = draw_job(config, np.random.default_rng(6), 1, 5, 2)
    shared = mmap.mmap(-1, SIZE)
    shared[: len(job.image)] = bytes(job.image)
    dut.rst.value = 1
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    for _ in range(4):
        await RisingEdge(dut.clk)
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
    ports = [
        AxiRamRead(AxiReadBus.from_prefix(dut, f"m_axi_{name}"), dut.clk, dut.rst, mem=shared) for name in ("kv", "q")
    ]
    writes = AxiRamWrite(AxiWriteBus.from_prefix(dut, "m_axi_w"), dut.clk, dut.rst, mem=shared)
    channels = [channel for port in ports for channel in (port.ar_channel, port.r_channel)]
    for channel in (*channels, writes.aw_channel, writes.w_channel, writes.b_channel):
        channel.set_pause_generator(draw.random() < 0.2 for _ in itertools.count())
    dut.rst.value = 0
    await RisingEdge(dut.clk)

    @resume
    async def read32(offset: int) -> int:
        answer = await master.read(offset, 4)
        assert answer.resp == AxiResp.OKAY
        return int.from_bytes(answer.data, "little")

    @resume
    async def write32(offset: int, word: int) -> None:
        assert (await master.write(offset, word.to_bytes(4, "little"))).resp == AxiResp.OKAY

    @bridge
    def play() -> dict[str, int]:
        driver = AcceleratorDriver(read32, write32, config.digest)
        driver.run(0, threshold=job.threshold)
        return driver.counters()

    counters = await play()
    golden = run(job.image, 0, config, job.threshold)
    assert bytes(shared[: len(golden.memory)]) == golden.memory
    assert counters["lsb_rows"] == sum(int(layer.result.lsb_rows.sum()) for layer in golden.layers if layer.result)
    assert counters["dram_bytes_vector_read"] > 128
    assert int(dut.irq.value) == 0
