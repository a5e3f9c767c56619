"""The registers of the accelerator. Counters are named after the fields of the simulator's report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from topsieve_rtl.csr.table import Access, Counter, Field, Register, RegisterMap
from topsieve_sim.arch import AcceleratorConfig
from topsieve_sim.golden.progressive import config_threshold
from topsieve_sim.report.model import Report, Stall, Traffic, Unit

if TYPE_CHECKING:
    from topsieve_sim.timing.accelerator import AcceleratorTimes

ID = 0x544F5053  # "TOPS"
VERSION_MAJOR, VERSION_MINOR = 1, 0
COUNTERS_OFFSET = 0x100
# What a cycle can move: the widest memory is 64 channels of 256 bytes.
TRAFFIC_STEP_BITS = 15

_RO, _RW, _W1C, _PULSE = Access


def _word(description: str, access: Access) -> tuple[Field, ...]:
    return (Field("value", 32, access, description),)


_REGISTERS = (
    Register("id", 0x00, "What this is.", _word('The letters "TOPS".', _RO)),
    Register(
        "version",
        0x04,
        "Version of this register map.",
        (
            Field("minor", 16, _RO, "Raised by additions."),
            Field("major", 16, _RO, "Raised when software must change.", 16),
        ),
    ),
    Register("config_digest_lo", 0x08, "Digest of the configuration.", _word("Bits 0 to 31.", _RO)),
    Register("config_digest_hi", 0x0C, "Digest of the configuration.", _word("Bits 32 to 63.", _RO)),
    Register(
        "capability_sizes",
        0x10,
        "Sizes of the machine.",
        (
            Field("capacity", 17, _RO, "Longest row of keys."),
            Field("max_head_dim", 10, _RO, "Longest head dimension.", 17),
        ),
    ),
    Register(
        "capability_widths",
        0x14,
        "Widths of the datapath.",
        (
            Field("lanes", 8, _RO, "Scores of a beat."),
            Field("topk_parallelism", 8, _RO, "Elements a cycle of a top-k engine.", 8),
            Field("heads", 9, _RO, "Head importance accumulators.", 16),
            Field("progressive", 1, _RO, "Keys have an LSB plane.", 25),
        ),
    ),
    Register(
        "control",
        0x20,
        "Commands to the machine.",
        (
            Field("start", 1, _PULSE, "Run the descriptors."),
            Field("clear", 1, _PULSE, "Set every performance counter to 0.", 1),
            Field("snapshot", 1, _PULSE, "Copy every performance counter to where it is read.", 2),
        ),
    ),
    Register(
        "status",
        0x24,
        "State of the machine.",
        (
            Field("busy", 1, _RO, "Descriptors are running."),
            Field("done", 1, _W1C, "The last descriptor has ended.", 1),
            Field("error", 8, _W1C, "Code of the first error since it was cleared, 0 for none.", 8),
        ),
    ),
    Register(
        "interrupt_enable",
        0x28,
        "Which causes raise the interrupt.",
        (Field("done", 1, _RW, "The last descriptor has ended."), Field("error", 1, _RW, "An error.", 1)),
    ),
    Register(
        "interrupt_status",
        0x2C,
        "Causes since they were cleared; the interrupt is high while an enabled one is set.",
        (Field("done", 1, _W1C, "The last descriptor has ended."), Field("error", 1, _W1C, "An error.", 1)),
    ),
    Register("descriptor_address_lo", 0x30, "Where the first descriptor is.", _word("Bits 0 to 31.", _RW)),
    Register("descriptor_address_hi", 0x34, "Where the first descriptor is.", _word("Bits 32 to 63.", _RW)),
    Register(
        "progressive_threshold",
        0x38,
        "Rows whose largest probability is below it are computed again with LSBs.",
        (Field("value", 17, _RW, "In probability steps, 1.0 is 2 to the power of probability_bits."),),
    ),
)


def _counters() -> Iterator[tuple[str, str, int]]:
    yield "cycles", "Cycles from start to done", 1
    yield "query_rows", "Query rows computed", 1
    yield "lsb_rows", "Query rows computed again with LSBs", 1
    for unit in Unit:
        yield f"{unit}_busy_cycles", f"Cycles in which {unit} worked", 1
        for stall in Stall:
            yield f"{unit}_stall_{stall}_cycles", f"Cycles in which {unit} did not work, cause {stall}", 1
    for kind in Traffic:
        yield f"dram_bytes_{kind}", f"DRAM bytes moved for {kind}", TRAFFIC_STEP_BITS


ACCELERATOR_MAP = RegisterMap(
    "topsieve",
    _REGISTERS,
    tuple(
        Counter(name, COUNTERS_OFFSET + 8 * place, description, step_bits)
        for place, (name, description, step_bits) in enumerate(_counters())
    ),
)


def report_counters(report: Report | AcceleratorTimes) -> dict[str, int]:
    """The values that the performance counters hold after the run that `report` describes."""
    counts = {"cycles": report.cycles, "query_rows": report.query_rows, "lsb_rows": report.lsb_rows}
    for row in report.units:
        counts[f"{row.unit}_busy_cycles"] = row.busy_cycles
        for stall, cycles in row.stall_cycles.items():
            counts[f"{row.unit}_stall_{stall}_cycles"] = cycles
    for kind, size in report.dram_bytes.items():
        counts[f"dram_bytes_{kind}"] = size
    return counts


def fixed_fields(config: AcceleratorConfig) -> dict[tuple[str, str], int]:
    """Read-only fields that `config` decides, and resets that it changes: (register, field) -> value."""
    digest = int(config.digest, 16)
    return {
        ("id", "value"): ID,
        ("version", "major"): VERSION_MAJOR,
        ("version", "minor"): VERSION_MINOR,
        ("config_digest_lo", "value"): digest & 0xFFFFFFFF,
        ("config_digest_hi", "value"): digest >> 32,
        ("capability_sizes", "capacity"): config.capacity,
        ("capability_sizes", "max_head_dim"): config.max_head_dim,
        ("capability_widths", "lanes"): config.softmax.lanes,
        ("capability_widths", "topk_parallelism"): config.topk.parallelism,
        ("capability_widths", "heads"): config.importance.heads,
        ("capability_widths", "progressive"): int(config.formats.key_lsb_bits > 0),
        ("progressive_threshold", "value"): config_threshold(config),
    }
