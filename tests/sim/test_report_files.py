"""A report's files: JSON that validates and reads back, CSV with every row, a Perfetto trace that parses."""

from __future__ import annotations

import csv
import itertools
import json
import struct
from collections import defaultdict
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate
from topsieve_sim.errors import InputError
from topsieve_sim.report import (
    Report,
    Stall,
    Unit,
    load_report,
    perfetto_bytes,
    report_schema,
    write_csv,
    write_perfetto,
)
from topsieve_sim.report.perfetto import LOADED
from topsieve_sim.trace import TopKScope, Trace
from topsieve_sim.trace.ops import ColumnSum, ProbabilityValue, Projection, QueryKey, Softmax, TopK


@pytest.fixture(scope="module")
def report() -> Report:
    ops = []
    for layer in range(3):
        counts = {"layer": layer, "heads": 2, "kv_heads": 2, "queries": 1, "keys": 30 - layer, "head_dim": 8}
        ops += [
            Projection(layer=layer, tokens=1, inputs=8, outputs=8, role="q"),
            QueryKey(**counts, key_msb_bits=6, key_lsb_bits=2, threshold=0.1, lsb_rows=1),
            Softmax(layer=layer, heads=2, rows=1, cols=30 - layer),
            ColumnSum(layer=layer, heads=2, rows=1, cols=30 - layer),
            TopK(layer=layer, n=30 - layer, k=9, scope=TopKScope.VALUE, repeats=2),
            ProbabilityValue(**counts, kept=9),
            TopK(layer=layer, n=30 - layer, k=29 - layer, scope=TopKScope.TOKEN),
        ]
    return simulate(Trace(tuple(ops), model="drawn", method="by hand"), load_config("tiny"))


def test_json_validates_against_the_schema(report: Report) -> None:
    schema = report_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(json.loads(report.to_json()))
    validator.validate(json.loads(report.to_json(timing=True)))
    broken = json.loads(report.to_json())
    broken["units"][0]["busy_cycles"] = -1
    assert not validator.is_valid(broken)


def test_json_reads_back(report: Report, tmp_path: Path) -> None:
    report.write_json(tmp_path / "a.json", timing=True)
    assert load_report(tmp_path / "a.json") == report
    report.write_json(tmp_path / "b.json")
    assert load_report(tmp_path / "b.json").digest == report.digest
    assert "timing" not in json.loads((tmp_path / "b.json").read_text())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("{}", "required field is missing"),
        ("[]", "valid dictionary"),
    ],
)
def test_a_file_that_is_no_report_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load_report(tmp_path / "r.json")
    with pytest.raises(InputError, match="cannot read"):
        load_report(tmp_path / "missing.json")


@pytest.mark.parametrize(
    "change",
    [
        {"cycles": 1},
        {"dram_bytes_total": 1},
        {"energy_total_pj": 1.0},
        {"area_total_um2": 1.0},
        {"layers": ()},
    ],
)
def test_a_report_that_breaks_a_law_cannot_be_made(report: Report, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"add up to|accounts for"):
        Report.model_validate(report.model_dump() | change)


def test_csv_holds_every_row(report: Report, tmp_path: Path) -> None:
    paths = write_csv(report, tmp_path / "tables")
    tables = {}
    for path in paths:
        with path.open(newline="") as stream:
            tables[path.stem] = list(csv.DictReader(stream))
    assert len(tables["layers"]) == 3
    assert len(tables["tokens"]) == len(report.tokens) == 3
    assert len(tables["timeline"]) == len(report.timeline)
    assert [row["unit"] for row in tables["units"]] == [unit.value for unit in Unit]
    for row in tables["units"]:
        stalls = sum(int(row[f"{cause.value}_stall_cycles"]) for cause in Stall)
        assert int(row["busy_cycles"]) + stalls == int(row["total_cycles"]) == report.cycles
    assert int(tables["dram"][-1]["bytes"]) == report.dram_bytes_total
    assert float(tables["energy"][-1]["energy_pj"]) == report.energy_total_pj
    assert {row["where"] for row in tables["operations"] if row["kind"] == "projection"} == {"host"}


def test_csv_into_a_file_is_refused(report: Report, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken"):
        write_csv(report, tmp_path / "taken")


def test_slices_lie_inside_the_run_and_hold_all_work(report: Report) -> None:
    for row in report.units:
        mine = [piece for piece in report.timeline if piece.unit is row.unit]
        assert sum(piece.busy_cycles for piece in mine) == row.busy_cycles
        for before, after in itertools.pairwise(mine):
            assert before.start_cycle + before.duration_cycles <= after.start_cycle
        for piece in mine:
            assert piece.busy_cycles <= piece.duration_cycles
            assert piece.start_cycle + piece.duration_cycles <= report.cycles


def fields(message: bytes) -> dict[int, list[Any]]:
    """A protocol-buffer message as field number to values: integers and byte strings."""
    found: dict[int, list[Any]] = defaultdict(list)
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while place < len(message):
        tag = varint()
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            found[number].append(varint())
        elif wire == 1:
            found[number].append(struct.unpack("<d", message[place : place + 8])[0])
            place += 8
        else:
            assert wire == 2
            size = varint()
            assert place + size <= len(message)
            found[number].append(message[place : place + size])
            place += size
    return found


def test_the_perfetto_trace_has_a_track_a_unit_and_matching_ends(report: Report, tmp_path: Path) -> None:
    """Field numbers of Perfetto's public schema: 60 a track descriptor, 11 a track event, 8 its time in nanoseconds."""
    write_perfetto(report, tmp_path / "t.perfetto-trace")
    data = (tmp_path / "t.perfetto-trace").read_bytes()
    assert data == perfetto_bytes(report)
    packets = [fields(packet) for packet in fields(data)[1]]
    tracks = [fields(packet[60][0]) for packet in packets if 60 in packet]
    names = {track[1][0]: track[2][0].decode() for track in tracks if 2 in track}
    counters = [f"{unit.value} busy" for unit in Unit] + ["memory bandwidth"]
    assert sorted(names.values()) == sorted([unit.value for unit in Unit] + counters)
    peak = report.accelerator.memory.bytes_per_cycle * report.accelerator.clock_mhz * 1e-3
    moved, bandwidth, since = 0.0, 0.0, 0
    open_slices: dict[int, list[tuple[int, str]]] = defaultdict(list)
    seen = []
    previous = 0
    for packet in packets:
        if 11 not in packet:
            continue
        time, event = packet[8][0], fields(packet[11][0])
        assert time >= previous
        previous = time
        kind, track = event[9][0], event[11][0]
        if kind == 1:
            assert not open_slices[track]
            open_slices[track].append((time, event[23][0].decode()))
        elif kind == 2:
            begin, name = open_slices[track].pop()
            seen.append((names[track], name, begin, time - begin))
        else:
            assert kind == 4
            level = event[30][0] if 30 in event else event[44][0]
            assert 0 <= level <= (peak if names[track] == "memory bandwidth" else 100)
            if names[track] == "memory bandwidth":
                moved, bandwidth, since = moved + bandwidth * (time - since), level, time
    assert not any(open_slices.values())
    # Bytes a nanosecond, stated to a thousandth.
    assert moved == pytest.approx(sum(report.dram_bytes[kind] for kind in LOADED), rel=1e-2)
    # 100 MHz: a cycle is ten nanoseconds.
    wanted = [(p.unit.value, p.name, 10 * p.start_cycle, 10 * p.duration_cycles) for p in report.timeline]
    assert sorted(seen) == sorted(wanted)
