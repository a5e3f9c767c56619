"""One file a trace: what is saved loads equal, two writes are the same bytes, damage is a named error."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from sim.trace_strategies import traces
from topsieve_sim.errors import InputError
from topsieve_sim.trace import Trace, load_trace, save_trace
from topsieve_sim.trace.ops import FeedForward, ProbabilityValue, QueryKey, Softmax

SHARED_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def same(left: Trace, right: Trace) -> bool:
    facts = ("ops", "model", "method", "layers", "heads", "notes")
    return (
        all(getattr(left, name) == getattr(right, name) for name in facts)
        and left.operands.keys() == right.operands.keys()
        and all(np.array_equal(left.operands[key], right.operands[key]) for key in left.operands)
    )


def small() -> Trace:
    ops = (
        QueryKey(layer=0, heads=1, kv_heads=1, queries=2, keys=2, head_dim=4),
        Softmax(layer=0, heads=1, rows=2, cols=2),
        ProbabilityValue(layer=0, heads=1, kv_heads=1, queries=2, keys=2, kept=2, head_dim=4),
        FeedForward(layer=0, tokens=2, width=4, hidden=8),
    )
    ones = np.ones((1, 2, 4), np.float32)
    return Trace(ops, {(0, "query"): ones, (0, "key"): ones, (2, "value"): ones}, model="small")


@SHARED_FOLDER
@given(trace=traces())
def test_saved_traces_load_equal_and_two_writes_are_the_same_bytes(tmp_path: Path, trace: Trace) -> None:
    save_trace(trace, tmp_path / "first.npz")
    save_trace(trace, tmp_path / "second.npz")
    assert same(load_trace(tmp_path / "first.npz"), trace)
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()


def test_every_cut_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    save_trace(small(), path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"trace\.npz"):
            load_trace(path)


def test_every_flipped_bit_is_an_error_or_harmless(tmp_path: Path) -> None:
    """Harmless: the archive's dates and attributes, which nothing reads."""
    path = tmp_path / "trace.npz"
    save_trace(small(), path)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            try:
                loaded = load_trace(path)
            except InputError:
                refused += 1
            else:
                assert same(loaded, small())
    assert refused > 4 * len(whole)


def rewritten(path: Path, change: dict | None = None, without: str | None = None) -> None:
    """Write `path` again with changes to its header or without one of its members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name != without}
    header = json.loads(members["header.json"]) | (change or {})
    members["header.json"] = json.dumps(header).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, r"version: wrong format version \(got 99\); allowed: 1"),
        ({"version": None}, "wrong format version"),
        ({"format": "other"}, "not a trace file"),
        ({"ops": []}, "at least one operation|without an operation"),
        ({"ops": [["nonsense", {}]]}, "op 0: unknown operation"),
        ({"ops": [["norm", {"layer": 0}]]}, r"op 0 \(norm\)\.p: field is missing"),
        ({"ops": [["norm", {"layer": 0, "step": 0, "sequence": 0, "rows": 0, "width": 1, "p": 2}]]}, r"norm\.rows"),
        ({"ops": 3}, "damaged"),
        ({"operands": [[0, "weights"]]}, "weights: operand is missing"),
    ],
)
def test_wrong_headers_name_file_and_fact(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "trace.npz"
    save_trace(small(), path)
    rewritten(path, change)
    with pytest.raises(InputError, match=message) as caught:
        load_trace(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_operand_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    save_trace(small(), path)
    rewritten(path, without="op2_value.npy")
    with pytest.raises(InputError, match=r"trace\.npz: op 2 \(probability_value\): value: operand is missing"):
        load_trace(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.npz: cannot read"):
        load_trace(tmp_path / "absent.npz")
    with pytest.raises(InputError, match="cannot read"):
        load_trace(tmp_path)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InputError, match=r"text\.npz: not a trace file"):
        load_trace(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", array=np.ones(3))
    with pytest.raises(InputError, match=r"other\.npz: not a trace file"):
        load_trace(tmp_path / "other.npz")
    with pytest.raises(InputError, match="cannot write"):
        save_trace(small(), tmp_path / "no folder" / "trace.npz")


def test_reading_a_trace_needs_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "trace.npz"
    save_trace(small(), path)
    code = f"import sys; from topsieve_sim.trace import load_trace; load_trace({str(path)!r}); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
