"""A self-checking Verilog testbench: the models' beats as one vector per clock cycle, no Python needed to run it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from topsieve_rtl.cosim.cases import Case, Channel
from topsieve_rtl.cosim.codec import pack_masked
from topsieve_rtl.cosim.design import Design

# After the last beat of a case the bench listens on, for beats that must not come.
_IDLE_CYCLES = 4


@dataclass(frozen=True)
class _Slot:
    """A field of a vector."""

    name: str
    bits: int
    lowest: int


class _Layout:
    """Fields of a vector, lowest bit first."""

    def __init__(self, design: Design) -> None:
        self.slots: dict[str, _Slot] = {}
        self.width = 0
        self._add("rst", 1)
        for port in design.constants:
            self._add(port.name, port.bits)
        for port in design.sources:
            self._add(f"{port.name}__valid", 1)
            self._add(f"{port.name}__payload", port.bits)
            self._add(f"{port.name}__crosses", 1)
        for port in design.sinks:
            self._add(f"{port.name}__ready", 1)
            self._add(f"{port.name}__crosses", 1)
            self._add(f"{port.name}__expected", port.bits)
            self._add(f"{port.name}__mask", port.bits)

    def _add(self, name: str, bits: int) -> None:
        if bits:
            self.slots[name] = _Slot(name, bits, self.width)
            self.width += bits

    def word(self, values: Mapping[str, int]) -> int:
        return sum(values[name] << slot.lowest for name, slot in self.slots.items() if values.get(name))

    def slice(self, name: str) -> str:
        slot = self.slots[name]
        high = slot.lowest + slot.bits - 1
        return f"vector[{high}:{slot.lowest}]" if slot.bits > 1 else f"vector[{slot.lowest}]"


def vectors_text(design: Design, runs: Sequence[tuple[Case, Mapping[str, Channel]]]) -> str:
    """Hexadecimal vectors for `$readmemh`, one line per cycle: reset, then the cycles of each case.

    `runs` pairs each case with the channels that the models expect.
    """
    layout = _Layout(design)
    digits = -(-layout.width // 4)
    lines = []
    for case, channels in runs:
        lines.append(f"{layout.word({'rst': 1}):0{digits}x}")
        lines += [f"{layout.word(values):0{digits}x}" for values in _cycles(design, case, channels)]
    return "\n".join(lines) + "\n"


def _cycles(design: Design, case: Case, channels: Mapping[str, Channel]) -> Iterator[dict[str, int]]:
    raw = case.raw(design)
    last = max((channel.cycles[-1] for channel in channels.values() if channel.cycles), default=-1)
    taken = {port.name: 0 for port in design.sources}
    left = {port.name: 0 for port in design.sinks}
    for cycle in range(last + 1 + _IDLE_CYCLES):
        values = dict(zip((port.name for port in design.constants), raw.constants, strict=True))
        for number, port in enumerate(design.sources):
            following = taken[port.name]
            cycles = channels[port.name].cycles
            if following < len(raw.payloads[number]) and cycle >= raw.arrivals[number][following]:
                values[f"{port.name}__valid"] = 1
                values[f"{port.name}__payload"] = raw.payloads[number][following]
                if following < len(cycles) and cycles[following] == cycle:
                    values[f"{port.name}__crosses"] = 1
                    taken[port.name] += 1
        for number, port in enumerate(design.sinks):
            pattern = raw.ready[number]
            values[f"{port.name}__ready"] = pattern[cycle] if cycle < len(pattern) else 1
            following = left[port.name]
            channel = channels[port.name]
            if following < len(channel.cycles) and channel.cycles[following] == cycle:
                bits, mask = pack_masked(port.shape, channel.beats[following])
                values[f"{port.name}__crosses"] = 1
                values[f"{port.name}__expected"] = bits
                values[f"{port.name}__mask"] = mask
                left[port.name] += 1
        yield values


def testbench_text(design: Design, module: str, header: str, vectors_file: str, cycles: int, cases: int) -> str:
    """Verilog-2001 of the testbench `module` for `cycles` vectors. It prints PASS, or each mismatch and FAIL.

    A failing run ends Icarus Verilog with exit code 1 and other simulators by `$stop`.
    """
    layout = _Layout(design)
    declarations, connections, drives, checks = [], [".clk(clk)", ".rst(rst)"], [], []

    def connect(name: str, bits: int, kind: str) -> None:
        width = f"[{bits - 1}:0] " if bits > 1 else ""
        declarations.append(f"  {kind} {width}{name};")
        connections.append(f".{name}({name})")

    for port in design.constants:
        if port.bits:
            connect(port.name, port.bits, "reg")
            drives.append(f"      {port.name} = {layout.slice(port.name)};")
    for port in design.status:
        if port.bits:
            connect(port.name, port.bits, "wire")
    for stream in design.sources:
        names = [(f"{stream.name}__valid", 1), (f"{stream.name}__payload", stream.bits)]
        for name, bits in names:
            if bits:
                connect(name, bits, "reg")
                drives.append(f"      {name} = {layout.slice(name)};")
        connect(f"{stream.name}__ready", 1, "wire")
        checks.append(_crossing_check(stream.name, layout))
    for stream in design.sinks:
        connect(f"{stream.name}__ready", 1, "reg")
        drives.append(f"      {stream.name}__ready = {layout.slice(f'{stream.name}__ready')};")
        connect(f"{stream.name}__valid", 1, "wire")
        checks.append(_crossing_check(stream.name, layout))
        if stream.bits:
            connect(f"{stream.name}__payload", stream.bits, "wire")
            checks.append(_payload_check(stream.name, layout))
    newline = "\n"
    separator = ",\n    "
    return f"""{header}
// Applies one vector per clock cycle and compares every handshake, and every payload that crosses, with the models.
// Cycle 0 of a case is the first rising edge with rst low. Run it where {vectors_file} is.
`timescale 1ns/1ps

module {module};
  localparam CYCLES = {cycles};
  localparam CASES = {cases};

  reg [{layout.width - 1}:0] vectors [0:CYCLES-1];
  reg [{layout.width - 1}:0] vector;
  reg clk;
  reg rst;
{newline.join(declarations)}
  integer line, cycle, number, mismatches;

  {design.name} dut (
    {separator.join(connections)}
  );

  initial begin
    clk = 0;
    cycle = 0;
    number = -1;
    mismatches = 0;
    $readmemh("{vectors_file}", vectors);
    for (line = 0; line < CYCLES; line = line + 1) begin
      vector = vectors[line];
      rst = {layout.slice("rst")};
{newline.join(drives)}
      #5;
      if (rst) begin
        cycle = 0;
        number = number + 1;
      end else begin
{newline.join(checks)}
        cycle = cycle + 1;
      end
      clk = 1;
      #5;
      clk = 0;
    end
    if (mismatches == 0) begin
      $display("PASS: %0d cases, %0d cycles", CASES, CYCLES);
      $finish;
    end else begin
      $display("FAIL: %0d mismatches", mismatches);
`ifdef __ICARUS__
      $finish_and_return(1);
`else
      $stop;
`endif
    end
  end
endmodule
"""


def _crossing_check(name: str, layout: _Layout) -> str:
    expected = layout.slice(f"{name}__crosses")
    return f"""        if (({name}__valid & {name}__ready) !== {expected}) begin
          mismatches = mismatches + 1;
          $display("case %0d cycle %0d: {name} valid=%b ready=%b, expected a beat: %b",
                   number, cycle, {name}__valid, {name}__ready, {expected});
        end"""


def _payload_check(name: str, layout: _Layout) -> str:
    expected, mask = layout.slice(f"{name}__expected"), layout.slice(f"{name}__mask")
    crosses = layout.slice(f"{name}__crosses")
    return f"""        if ({crosses} && (({name}__payload ^ {expected}) & {mask}) !== 0) begin
          mismatches = mismatches + 1;
          $display("case %0d cycle %0d: {name}__payload=%h, expected %h in the bits %h",
                   number, cycle, {name}__payload, {expected}, {mask});
        end"""
