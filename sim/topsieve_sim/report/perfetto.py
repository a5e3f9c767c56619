"""Timelines as native Perfetto traces: one track a unit, and counters.

The file is a protocol-buffer message `perfetto.protos.Trace`; field numbers are those of the public schema
(`trace_packet.proto`, `track_descriptor.proto`, `track_event.proto`). It opens in ui.perfetto.dev. One nanosecond of the
trace is one nanosecond of the machine.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from topsieve_sim.files import written_whole
from topsieve_sim.report.model import Report, Slice, Traffic, Unit
from topsieve_sim.report.timeline import Counter

# What comes through the memory unit.
LOADED = (Traffic.KEY_MSB, Traffic.KEY_LSB, Traffic.VALUE, Traffic.VECTOR_READ, Traffic.WEIGHT)

_SEQUENCE_ID = 1
_PROCESS_UUID = 1
_FIRST_SLICE_TRACK, _FIRST_COUNTER_TRACK = 10, 100
_SLICE_BEGIN, _SLICE_END, _COUNTER = 1, 2, 4


def write_perfetto(report: Report, path: str | Path) -> None:
    """Write the timeline of `report` to `path`.

    Raises
    ------
    InputError
        the file cannot be written.
    """
    with written_whole(path, "wb") as stream:
        stream.write(perfetto_bytes(report))


def perfetto_bytes(report: Report) -> bytes:
    """The timeline of `report`, serialised: a track a unit, a counter of its busy share, and the memory's bandwidth."""
    machine = report.accelerator
    name = f"{machine.name}: {report.model} {report.method}".strip()
    counters = [_busy(report.timeline, unit, f"{unit.value} busy", "% busy", 100.0) for unit in Unit]
    full = _bytes_per_busy_cycle(report) * machine.clock_mhz * 1e-3
    counters.append(_busy(report.timeline, Unit.MEMORY, "memory bandwidth", "GB/s", full))
    return timeline_bytes(name, machine.clock_mhz, report.timeline, counters)


def write_timeline(
    name: str, clock_mhz: float, slices: Iterable[Slice], counters: Sequence[Counter], path: str | Path
) -> None:
    """Write any timeline to `path`, see `timeline_bytes`.

    Raises
    ------
    InputError
        the file cannot be written.
    """
    with written_whole(path, "wb") as stream:
        stream.write(timeline_bytes(name, clock_mhz, slices, counters))


def timeline_bytes(name: str, clock_mhz: float, slices: Iterable[Slice], counters: Sequence[Counter]) -> bytes:
    """A timeline, serialised: descriptors first, then the events in the order of their times.

    Parameters
    ----------
    name : of the whole, shown over the tracks.
    slices : of a unit at most one at a time.
    """
    nanoseconds = 1000.0 / clock_mhz
    packets = [_descriptor(_uint(1, _PROCESS_UUID) + _bytes(3, _uint(1, 1) + _text(6, name)))]
    track_of = {unit: _FIRST_SLICE_TRACK + number for number, unit in enumerate(Unit)}
    packets += [_descriptor(_track(track_of[unit], unit.value)) for unit in Unit]
    events: list[tuple[int, int, bytes]] = []
    for piece in slices:
        start = round(piece.start_cycle * nanoseconds)
        stop = round((piece.start_cycle + piece.duration_cycles) * nanoseconds)
        track = track_of[piece.unit]
        note = _text(10, "busy_cycles") + _uint(3, piece.busy_cycles)
        begin = _uint(9, _SLICE_BEGIN) + _uint(11, track) + _text(23, piece.name) + _bytes(4, note)
        # Ends come before begins of the same instant, so that neighbours do not nest.
        events.append((start, 1, begin))
        events.append((stop, 0, _uint(9, _SLICE_END) + _uint(11, track)))
    for number, counter in enumerate(counters):
        track = _FIRST_COUNTER_TRACK + number
        packets.append(_descriptor(_track(track, counter.name) + _bytes(8, _text(6, counter.unit))))
        head = _uint(9, _COUNTER) + _uint(11, track)
        for cycle, value in zip(counter.cycles, counter.values, strict=True):
            level = _uint(30, int(value)) if value.is_integer() and value >= 0 else _double(44, value)
            events.append((round(cycle * nanoseconds), 1, head + level))
    events.sort(key=lambda event: event[:2])
    packets += [_uint(8, time) + _uint(10, _SEQUENCE_ID) + _bytes(11, body) for time, _, body in events]
    return b"".join(_bytes(1, packet) for packet in packets)


def _bytes_per_busy_cycle(report: Report) -> float:
    """What the memory unit moves in a busy cycle, on average; queries and writes have ports of their own."""
    (busy,) = (row.busy_cycles for row in report.units if row.unit is Unit.MEMORY)
    loaded = sum(report.dram_bytes[kind] for kind in LOADED)
    return loaded / busy if busy else 0.0


def _busy(timeline: Sequence[Slice], unit: Unit, name: str, quantity: str, peak: float) -> Counter:
    """A unit's busy share of each of its slices, times `peak`; 0 between them."""
    cycles: list[int] = []
    values: list[float] = []
    for piece in timeline:
        if piece.unit is unit:
            if cycles and cycles[-1] == piece.start_cycle:
                cycles.pop()
                values.pop()
            cycles += [piece.start_cycle, piece.start_cycle + piece.duration_cycles]
            values += [round(peak * piece.busy_cycles / piece.duration_cycles, 3), 0.0]
    return Counter(name, quantity, tuple(cycles), tuple(values))


def _descriptor(track: bytes) -> bytes:
    return _uint(10, _SEQUENCE_ID) + _bytes(60, track)


def _track(uuid: int, name: str) -> bytes:
    return _uint(1, uuid) + _text(2, name) + _uint(5, _PROCESS_UUID)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _uint(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode("utf-8"))


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)
