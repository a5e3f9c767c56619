"""Amaranth's own simulator: always there, slow, no build."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from amaranth.hdl import Value
from amaranth.sim import Simulator

from topsieve_rtl.cosim.design import Design
from topsieve_rtl.cosim.player import Player, RawCase, RawLog

_PERIOD_SECONDS = 1e-9


def run_python(design: Design, cases: Sequence[RawCase], waveform: Path | None = None) -> list[RawLog]:
    """Run each case from reset; `waveform` names a VCD file to write."""
    simulator = Simulator(design.component)
    simulator.add_clock(_PERIOD_SECONDS)
    sources = [(port.interface, Value.cast(port.interface.payload)) for port in design.sources]
    sinks = [(port.interface, Value.cast(port.interface.payload)) for port in design.sinks]
    current: list[Player] = []

    async def bench(context: Any) -> None:
        player = current[0]
        for port, bits in zip(design.constants, player.case.constants, strict=True):
            context.set(Value.cast(port.signal).as_unsigned(), bits)
        while not player.over:
            offered, ready = player.drive()
            for (interface, payload), bits in zip(sources, offered, strict=True):
                context.set(interface.valid, bits is not None)
                if bits is not None:
                    context.set(payload.as_unsigned(), bits)
            for (interface, _), flag in zip(sinks, ready, strict=True):
                context.set(interface.ready, flag)
            if player.at_end():
                player.log.status = [context.get(Value.cast(port.signal).as_unsigned()) for port in design.status]
            taken = [
                bits is not None and bool(context.get(interface.ready))
                for (interface, _), bits in zip(sources, offered, strict=True)
            ]
            left = [
                context.get(payload.as_unsigned()) if flag and context.get(interface.valid) else None
                for (interface, payload), flag in zip(sinks, ready, strict=True)
            ]
            player.sample(taken, left)
            await context.tick()

    simulator.add_testbench(bench)
    logs = []
    with simulator.write_vcd(str(waveform)) if waveform else nullcontext():
        for number, case in enumerate(cases):
            current[:] = [Player(case)]
            if number:
                simulator.reset()
            simulator.run()
            logs.append(current[0].log)
    return logs
