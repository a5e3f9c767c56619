"""The cocotb bench: plays every case of a file against the design and writes every log to another file.

One start of the simulator serves many cases; reset is asserted for one cycle before each, over whatever state the case
before it left.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import Timer

from topsieve_rtl.cosim.player import Player, RawCase

CASES_VARIABLE = "TOPSIEVE_CASES"
LOGS_VARIABLE = "TOPSIEVE_LOGS"
_HALF_PERIOD_STEPS = 5


class _Pin:
    """A signal that is written only when its value changes."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._written: int | None = None

    def put(self, value: int) -> None:
        if value != self._written:
            self._handle.value = value
            self._written = value

    def get(self) -> int:
        return int(self._handle.value)


@cocotb.test()
async def play(dut: Any) -> None:
    """Run the cases of `TOPSIEVE_CASES`; the tests are in what is done with the logs."""
    with open(os.environ[CASES_VARIABLE], encoding="utf-8") as stream:
        job = json.load(stream)
    bench = _Bench(dut, job["ports"])
    logs = [await bench.play(RawCase(**case)) for case in job["cases"]]
    Path(os.environ[LOGS_VARIABLE]).write_text(json.dumps(logs), encoding="utf-8")


class _Bench:
    def __init__(self, dut: Any, ports: dict[str, list[list[Any]]]) -> None:
        def pins(kind: str, suffix: str = "") -> list[_Pin | None]:
            # A port without bits does not exist in Verilog.
            return [_Pin(getattr(dut, name + suffix)) if bits else None for name, bits in ports[kind]]

        def flags(kind: str, suffix: str) -> list[_Pin]:
            return [_Pin(getattr(dut, name + suffix)) for name, _ in ports[kind]]

        self.clock = _Pin(dut.clk)
        self.reset = _Pin(dut.rst)
        self.source_valid = flags("sources", "__valid")
        self.source_ready = flags("sources", "__ready")
        self.source_payload = pins("sources", "__payload")
        self.sink_valid = flags("sinks", "__valid")
        self.sink_ready = flags("sinks", "__ready")
        self.sink_payload = pins("sinks", "__payload")
        self.constants = pins("constants")
        self.status = pins("status")

    async def play(self, case: RawCase) -> dict[str, Any]:
        await self._reset()
        for pin, value in zip(self.constants, case.constants, strict=True):
            if pin:
                pin.put(value)
        player = Player(case)
        while not player.over:
            offered, ready = player.drive()
            for valid, payload, bits in zip(self.source_valid, self.source_payload, offered, strict=True):
                valid.put(int(bits is not None))
                if payload and bits is not None:
                    payload.put(bits)
            for pin, flag in zip(self.sink_ready, ready, strict=True):
                pin.put(flag)
            self.clock.put(0)
            await Timer(_HALF_PERIOD_STEPS, "step")
            if player.at_end():
                player.log.status = [pin.get() if pin else 0 for pin in self.status]
            taken = [bits is not None and bool(pin.get()) for pin, bits in zip(self.source_ready, offered, strict=True)]
            left = [
                (payload.get() if payload else 0) if flag and valid.get() else None
                for valid, payload, flag in zip(self.sink_valid, self.sink_payload, ready, strict=True)
            ]
            player.sample(taken, left)
            self.clock.put(1)
            await Timer(_HALF_PERIOD_STEPS, "step")
        return player.log.plain()

    async def _reset(self) -> None:
        for pin in (*self.source_valid, *self.sink_ready):
            pin.put(0)
        self.reset.put(1)
        for level in (0, 1):
            self.clock.put(level)
            await Timer(_HALF_PERIOD_STEPS, "step")
        self.reset.put(0)
