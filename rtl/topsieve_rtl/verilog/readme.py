"""The README of an emitted unit."""

from __future__ import annotations

from collections.abc import Sequence

from topsieve_rtl.cosim.codec import field_places
from topsieve_rtl.cosim.design import Design, StreamPort
from topsieve_rtl.synthesis.report import Report, resource_table
from topsieve_rtl.units import Unit
from topsieve_sim import __version__
from topsieve_sim.arch import AcceleratorConfig


def readme_text(
    unit: Unit,
    config: AcceleratorConfig,
    design: Design,
    command_line: str,
    reports: Sequence[Report],
    bench: str = "",
) -> str:
    """Markdown: what the unit is, ports, cycles, resources, how to simulate and synthesise.

    `bench` is a module between testbench and unit, in a file of its name.
    """
    top = design.name
    between = f"\n| `{bench}.v` | what stands between testbench and unit, for simulation only |" if bench else ""
    further = "".join(
        f"\n| `{name}` | {_first_sentence(text)} |" for name, text in unit.documents(config, command_line).items()
    )
    sources = f"{top}.v {bench}.v {top}_tb.v" if bench else f"{top}.v {top}_tb.v"
    return f"""# {top}

{unit.summary}

Written by Topsieve {__version__} from the configuration `{config.name}` (digest `{config.digest}`) with

    {command_line}

| file | what it is |
|---|---|
| `{top}.v` | the unit: Verilog-2001, no vendor primitives; every module name starts with `{top}` |
| `{top}_tb.v`, `{top}_vectors.hex` | self-checking testbench and its vectors, one per clock cycle |
| `{top}.core` | FuseSoC core file with the targets `lint`, `sim` and `synth` |
| `{top}_names.json` | ports, the bits of every payload field, modules |
| `{top}.yaml` | the whole configuration |{between}{further}

## Ports

`clk` is the clock (rising edge) and `rst` the reset (synchronous, active high).
Every stream has `__valid`, `__ready` and `__payload`. A beat crosses in a cycle in which valid and ready are both high.
Valid never waits for ready, an offered beat stays until it is taken, and no output depends on an input of the same
cycle.

{_port_table(unit, design)}

{_payload_tables(design)}
## Cycles

{unit.latency_note}

## Resources

{_resources(reports)}

## Simulate and synthesise

    iverilog -g2005 -s {top}_tb -o testbench.vvp {sources} && vvp testbench.vvp

prints `PASS`; a mismatch is printed with its case and cycle and ends the run with exit code 1. With FuseSoC:

    fusesoc --cores-root . run --target sim {_core_name(top)}
    fusesoc --cores-root . run --target synth {_core_name(top)}
"""


def _first_sentence(text: str) -> str:
    """The first line of a file, without the signs that make it a comment."""
    return text.splitlines()[0].strip('/#*" ')


def _core_name(top: str) -> str:
    return f"topsieve:rtl:{top}"


def _port_table(unit: Unit, design: Design) -> str:
    rows = ["| port | direction | payload bits | meaning |", "|---|---|---|---|"]
    for direction, streams in (("in", design.sources), ("out", design.sinks)):
        rows += [
            f"| `{port.name}` (stream) | {direction} | {port.bits} | {unit.port_notes[port.name]} |" for port in streams
        ]
    for direction, plain in (("in", design.constants), ("out", design.status)):
        rows += [f"| `{port.name}` | {direction} | {port.bits} | {unit.port_notes[port.name]} |" for port in plain]
    return "\n".join(rows)


def _payload_tables(design: Design) -> str:
    return "\n".join(_payload_table(port) for port in (*design.sources, *design.sinks))


def _payload_table(port: StreamPort) -> str:
    places = list(field_places(port.shape))
    if len(places) == 1 and not places[0][0]:
        kind = "signed" if places[0][2].signed else "unsigned"
        return f"`{port.name}__payload` is one {kind} number.\n"
    rows = [f"Fields of `{port.name}__payload`:\n", "| field | bits | type |", "|---|---|---|"]
    for path, lowest, shape in places:
        place = f"{lowest + shape.width - 1}:{lowest}" if shape.width > 1 else str(lowest)
        rows.append(f"| `{path}` | {place} | {'signed' if shape.signed else 'unsigned'} |")
    return "\n".join(rows) + "\n"


def _resources(reports: Sequence[Report]) -> str:
    if not reports:
        return "Not measured for this package; `topsieve synth` measures them."
    return resource_table(reports)
