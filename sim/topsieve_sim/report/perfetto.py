"""A report's timeline as a native Perfetto trace: one track a unit, counters for memory and arrays.

The file is a protocol-buffer message `perfetto.protos.Trace`; field numbers are those of the public schema
(`trace_packet.proto`, `track_descriptor.proto`, `track_event.proto`). It opens in ui.perfetto.dev. One nanosecond of the
trace is one nanosecond of the machine.
"""

from __future__ import annotations

from pathlib import Path

from topsieve_sim.files import written_whole
from topsieve_sim.report.model import Report, Unit

_SEQUENCE_ID = 1
_PROCESS_UUID = 1
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
    """The serialised trace: descriptors first, then the events in the order of their times."""
    process = _uint(1, 1) + _text(6, f"{report.accelerator.name}: {report.model} {report.method}".strip())
    packets = [_descriptor(_uint(1, _PROCESS_UUID) + _bytes(3, process))]
    slice_track = {unit: 10 + number for number, unit in enumerate(Unit)}
    counter_track = {unit: 100 + number for number, unit in enumerate(Unit)}
    for unit in Unit:
        packets.append(_descriptor(_track(slice_track[unit], unit.value)))
        counter = _text(6, "% busy")
        packets.append(_descriptor(_track(counter_track[unit], f"{unit.value} busy") + _bytes(8, counter)))
    events: list[tuple[int, int, bytes]] = []
    nanoseconds = 1000.0 / report.accelerator.clock_mhz
    for piece in report.timeline:
        start = round(piece.start_cycle * nanoseconds)
        stop = round((piece.start_cycle + piece.duration_cycles) * nanoseconds)
        track = slice_track[piece.unit]
        note = _text(10, "busy_cycles") + _uint(3, piece.busy_cycles)
        begin = _uint(9, _SLICE_BEGIN) + _uint(11, track) + _text(23, piece.name) + _bytes(4, note)
        share = _uint(9, _COUNTER) + _uint(11, counter_track[piece.unit])
        level = round(100 * piece.busy_cycles / piece.duration_cycles)
        # Ends come before begins of the same instant, so that neighbours do not nest.
        events.append((start, 1, begin))
        events.append((start, 1, share + _uint(30, level)))
        events.append((stop, 0, _uint(9, _SLICE_END) + _uint(11, track)))
        events.append((stop, 0, share + _uint(30, 0)))
    events.sort(key=lambda event: event[:2])
    packets += [_uint(8, time) + _uint(10, _SEQUENCE_ID) + _bytes(11, body) for time, _, body in events]
    return b"".join(_bytes(1, packet) for packet in packets)


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
