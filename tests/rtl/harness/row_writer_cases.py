"""Random rows and reports for the row writer, and what the golden model and the timing function say of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In

from topsieve_rtl.accelerator.writer import LiveHeadWrite, RowWriter, WriterJob
from topsieve_rtl.attention.core_layouts import RowNumber, TokenWrite
from topsieve_rtl.cosim import Case, Channel, Sink, Source
from topsieve_rtl.cosim.codec import pack
from topsieve_sim.arch import AcceleratorConfig, load_config
from topsieve_sim.golden.accelerator_latency import REPORT_RECORD_BYTES
from topsieve_sim.golden.row_write import RowWriteShape, packed_row, write_bursts, write_words
from topsieve_sim.timing.row_writer import RowWriter as WriterTimes
from topsieve_sim.timing.row_writer import row_writer, write_row

# Rows come after the tables are filled and the job is set.
_SET_UP_CYCLES = 8


def machine(
    bus_bytes: int, burst_words: int = 4, outstanding: int = 2, head_dim: int = 8, output_bits: int = 16
) -> AcceleratorConfig:
    """A machine whose writer has these sizes."""
    return load_config(
        "tiny",
        [
            f"memory.beat_bytes={bus_bytes}",
            f"memory.axi.burst_words={burst_words}",
            f"memory.axi.outstanding={outstanding}",
            "memory.axi.buffer_words=32",
            f"max_head_dim={head_dim}",
            f"formats.output_bits={output_bits}",
        ],
    )


class WriterBench(wiring.Component):
    """The writer with its strobes as streams, so that a case can fill the tables."""

    def __init__(self, config: AcceleratorConfig) -> None:
        self.writer = RowWriter(config)
        members = dict(self.writer.signature.members)
        self.strobes = {"head_write": LiveHeadWrite(config), "token_write": TokenWrite(config)}
        for name, layout in self.strobes.items():
            members[name] = In(stream.Signature(layout))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.writer = writer = self.writer
        for name, member in writer.signature.members.items():
            port = getattr(self, name)
            if name in self.strobes:
                strobe = getattr(writer, name)
                m.d.comb += [port.ready.eq(1), strobe.eq(port.payload), strobe.valid.eq(port.valid)]
            elif not member.is_port:
                ends = (port, getattr(writer, name)) if member.flow is In else (getattr(writer, name), port)
                wiring.connect(m, *(wiring.flipped(end) if end is port else end for end in ends))
            elif member.flow is In:
                m.d.comb += getattr(writer, name).eq(port)
            else:
                m.d.comb += port.eq(getattr(writer, name))
        return m


@dataclass
class WriterCase:
    """A run: stimulus, every beat with its cycle, and the memory that it leaves."""

    case: Case
    expected: dict[str, Channel]
    times: WriterTimes
    failed: bool
    rows: list[tuple[int, bytes]]
    """Address and bytes of each row or record."""


def draw_case(config: AcceleratorConfig, seed: int, *, rows: int = 12) -> WriterCase:
    """Rows of a layer, or a report, with stalls of every port, from a seed."""
    draw = np.random.default_rng(seed)
    shape = RowWriteShape.of(config)
    bus, heads, capacity = shape.data_bytes, config.importance.heads, config.capacity
    reports, head_dim = int(draw.integers(2)), int(draw.integers(1, config.max_head_dim + 1))
    job = {
        "output": _aligned(draw, shape, near_boundary=True),
        "row_bytes": int(draw.integers(0, (1 << 16) // bus)) * bus,
        "head_bytes": _aligned(draw, shape),
        "report": _aligned(draw, shape, near_boundary=True),
        "head_dim": head_dim,
        "live_queries": int(draw.integers(2)),
        "live_heads": int(draw.integers(2)),
    }
    tokens, live = draw.permutation(capacity).tolist(), draw.permutation(heads).tolist()
    count = int(draw.integers(1, rows + 1))
    written: list[tuple[int, bytes]] = []
    beats = []
    for n in range(count):
        if reports:
            record = int(draw.integers(0, 1 << 63)) * 2 + int(draw.integers(2))
            beats.append((record, int(n == count - 1)))
            written.append((job["report"] + REPORT_RECORD_BYTES * n, record.to_bytes(REPORT_RECORD_BYTES, "little")))
            continue
        query, slot = int(draw.integers(capacity)), int(draw.integers(heads))
        limit = 1 << (config.formats.output_bits - 1)
        elements = draw.integers(-limit, limit, head_dim).tolist()
        number = pack(RowNumber(config), (query, slot))
        beats.append((elements + [0] * (config.max_head_dim - head_dim), number))
        token = tokens[query] if job["live_queries"] else query
        head = live[slot] if job["live_heads"] else slot
        address = job["output"] + head * job["head_bytes"] + token * job["row_bytes"]
        written.append((address, packed_row(elements, config.formats.output_bits)))
    mask = (1 << shape.address_bits) - 1
    written = [(address & mask, row) for address, row in written]

    start = max(capacity, heads) + _SET_UP_CYCLES
    spread = int(draw.choice([1, 3, 40]))
    arrivals = (start + np.cumsum(draw.integers(0, spread, count))).tolist()
    address_ready, word_ready = _pattern(draw, start), _pattern(draw, start)
    bursts = [burst for address, row in written for burst in write_bursts(shape, address, len(row))]
    words = [word for address, row in written for word in write_words(shape, address, row)]
    times = row_writer(
        shape,
        int(draw.integers(0, 5)),
        address_ready=address_ready,
        word_ready=word_ready,
        delay=draw.integers(0, int(draw.choice([1, 4, 40])), len(bursts)),
        bursts=len(bursts),
        words=len(words),
    )
    taken = []
    free = 0
    for arrival, (address, row) in zip(arrivals, written, strict=True):
        taken.append(max(arrival, free))
        free = write_row(times, taken[-1], address, len(row))
    responses = [(int(code),) for code in draw.choice(4, len(bursts), p=[0.9, 0.06, 0.02, 0.02])]

    sources = {
        "head_write": Source([(1, slot, head) for slot, head in enumerate(live)], [0] * heads),
        "token_write": Source([(1, position, token) for position, token in enumerate(tokens)], [0] * capacity),
        "row": Source([] if reports else beats, [] if reports else arrivals),
        "record": Source(beats if reports else [], arrivals if reports else []),
        "response": Source(responses, times.response.tolist()),
    }
    sinks = {
        "address": Sink(len(bursts), address_ready.tolist()),
        "word": Sink(len(words), word_ready.tolist()),
    }
    constants = {"job": pack(WriterJob(config), job), "reports": reports, "clear": 0}
    channels = {name: Channel(source.arrival_cycles, source.beats) for name, source in sources.items()}
    for name in ("head_write", "token_write"):
        channels[name] = Channel(list(range(len(sources[name].beats))), sources[name].beats)
    channels["record" if reports else "row"] = Channel(taken, beats)
    channels["address"] = Channel(times.address.tolist(), [(burst.address, burst.words - 1) for burst in bursts])
    channels["word"] = Channel(times.word.tolist(), [tuple(word) for word in words])
    failed = any(code >= 2 for (code,) in responses)
    return WriterCase(Case(sources, sinks, constants, limit_cycles=50_000), channels, times, failed, written)


def strobed(shape: RowWriteShape):
    """View of a word: bytes without a strobe are 0."""

    def view(word):
        value, strobes, last = word
        kept = sum(value & 0xFF << 8 * byte for byte in range(shape.data_bytes) if strobes >> byte & 1)
        return kept, strobes, last

    return view


def _aligned(draw: np.random.Generator, shape: RowWriteShape, *, near_boundary: bool = False) -> int:
    address = int(draw.integers(1 << shape.address_bits))
    if near_boundary and draw.random() < 0.5:
        address = (address | 4095) + 1 - int(draw.integers(1, 65)) * shape.data_bytes
    return address % (1 << shape.address_bits) // shape.data_bytes * shape.data_bytes


def _pattern(draw: np.random.Generator, start: int) -> np.ndarray:
    share = draw.choice([1.0, 0.8, 0.4, 0.1])
    return draw.random(start + int(draw.integers(0, 400))) < share
