"""The accelerator's registers behind an AXI-Lite master of cocotbext-axi that pauses at random."""

from __future__ import annotations

import itertools
import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

from rtl.harness.csr_model import RegisterModel
from topsieve_rtl.csr import ACCELERATOR_MAP, fixed_fields
from topsieve_sim.arch import load_config


@cocotb.test()
async def every_register(dut: Any) -> None:
    """Each register and each counter once, then random writes with partial words."""
    draw = random.Random(11)
    model = RegisterModel(ACCELERATOR_MAP, fixed_fields(load_config("tiny")))
    for handle in dut:
        if handle._name.startswith("count_") or handle._name.endswith("_event") or handle._name == "status_busy":
            handle.value = 0
    dut.rst.value = 1
    cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
    for _ in range(3):
        await RisingEdge(dut.clk)
    master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
    for channel in (
        master.write_if.aw_channel,
        master.write_if.w_channel,
        master.write_if.b_channel,
        master.read_if.ar_channel,
        master.read_if.r_channel,
    ):
        channel.set_pause_generator(draw.random() < 0.3 for _ in itertools.count())
    dut.rst.value = 0
    await RisingEdge(dut.clk)

    steps = {}
    for counter in ACCELERATOR_MAP.counters:
        steps[counter.name] = draw.randrange(1 << counter.step_bits)
        getattr(dut, f"count_{counter.name}").value = steps[counter.name]
    for _ in range(9):
        await RisingEdge(dut.clk)
    for name, step in steps.items():
        getattr(dut, f"count_{name}").value = 0
        model.add(name, step, 9)
    control = ACCELERATOR_MAP.register("control").offset
    await master.write(control, (4).to_bytes(4, "little"))
    model.write(control, 4, 15)
    for register in ACCELERATOR_MAP.all_registers():
        answer = await master.read(register.offset, 4)
        assert answer.resp == AxiResp.OKAY
        assert int.from_bytes(answer.data, "little") == model.read(register.offset)[0], register.name

    for _ in range(60):
        offset = draw.randrange(1 << ACCELERATOR_MAP.address_bits)
        size = draw.randrange(1, 5 - offset % 4)
        written = draw.randbytes(size)
        answer = await master.write(offset, written)
        word = int.from_bytes(written, "little") << 8 * (offset % 4)
        expected = model.write(offset & -4, word, ((1 << size) - 1) << offset % 4)
        assert int(answer.resp) == expected
        offset = draw.choice([register.offset for register in ACCELERATOR_MAP.registers])
        assert int.from_bytes((await master.read(offset, 4)).data, "little") == model.read(offset)[0]
    answer = await master.read(0x1C, 4)
    assert answer.resp == AxiResp.SLVERR
