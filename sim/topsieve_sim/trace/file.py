"""The trace file: one zip archive (`.npz`) with a JSON header and one `.npy` member an operand.

`header.json` holds `format`, `version`, `model`, `method`, `layers`, `heads`, `notes`, `ops` (a list of
`[kind, {field: value}]`) and `operands` (a list of `[index, name]`); the array of an operand is the member
`op<index>_<name>.npy`. Two writes of one trace are equal to the byte: members have a fixed date and order, and nothing is
compressed but the header.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topsieve_sim.errors import InputError
from topsieve_sim.files import written_whole
from topsieve_sim.trace.ops import OP_KINDS, Op, TopKScope
from topsieve_sim.trace.trace import FORMAT_VERSION, Trace

FORMAT_NAME = "topsieve-trace"

_HEADER = "header.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def save_trace(trace: Trace, path: str | Path) -> None:
    """Write `trace` as one file, whole or not at all.

    Raises
    ------
    InputError
        the file cannot be written.
    """
    keys = sorted(trace.operands)
    header = {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "model": trace.model,
        "method": trace.method,
        "layers": trace.layers,
        "heads": trace.heads,
        "notes": list(trace.notes),
        "ops": [[op.kind, {field.name: getattr(op, field.name) for field in fields(op)}] for op in trace.ops],
        "operands": [list(key) for key in keys],
    }
    with written_whole(path, "wb") as stream, zipfile.ZipFile(stream, "w") as archive:
        _add(archive, _HEADER, json.dumps(header, separators=(",", ":")).encode(), zipfile.ZIP_DEFLATED)
        for index, name in keys:
            buffer = io.BytesIO()
            array = np.ascontiguousarray(trace.operands[index, name], dtype="<f4")
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            _add(archive, _member(index, name), buffer.getvalue(), zipfile.ZIP_STORED)


def load_trace(path: str | Path) -> Trace:
    """Read and validate a trace file.

    Raises
    ------
    InputError
        the file is missing, damaged, of another format or version, or its content is not a valid trace; names the file
        and the operation, field or operand.
    """
    source = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            header = json.loads(archive.read(_HEADER))
            if not isinstance(header, dict) or header.get("format") != FORMAT_NAME:
                raise InputError("not a trace file", source=source, field="format", allowed=FORMAT_NAME)
            if header.get("version") != FORMAT_VERSION:
                raise InputError(
                    "wrong format version",
                    source=source,
                    field="version",
                    value=header.get("version"),
                    allowed=str(FORMAT_VERSION),
                )
            return _trace(archive, header)
    except InputError as error:
        if error.source:
            raise
        raise InputError(
            error.problem, source=source, field=error.field, value=error.value, allowed=error.allowed
        ) from error
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror or error}", source=source) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, TypeError, RuntimeError) as error:
        # KeyError and ValueError: no header, or a header that is not JSON or lacks a part. RuntimeError: a damaged flag
        # asks for a password or for an unknown compression.
        raise InputError(f"not a trace file, or damaged ({error})", source=source) from error


def _trace(archive: zipfile.ZipFile, header: dict[str, Any]) -> Trace:
    ops = tuple(_op(index, kind, values) for index, (kind, values) in enumerate(header["ops"]))
    members = set(archive.namelist())
    operands: dict[tuple[int, str], NDArray[np.float32]] = {}
    for index, name in header["operands"]:
        if _member(index, name) not in members:
            kind = ops[index].kind if 0 <= index < len(ops) else "no such operation"
            raise InputError("operand is missing", field=f"op {index} ({kind}): {name}")
        array = np.lib.format.read_array(io.BytesIO(archive.read(_member(index, name))), allow_pickle=False)
        operands[index, name] = array
    return Trace(
        ops,
        operands,
        model=str(header["model"]),
        method=str(header["method"]),
        layers=int(header["layers"]),
        heads=int(header["heads"]),
        notes=tuple(str(note) for note in header["notes"]),
    )


def _op(index: int, kind: str, values: dict[str, Any]) -> Op:
    if kind not in OP_KINDS:
        raise InputError("unknown operation", field=f"op {index}", value=kind, allowed=", ".join(OP_KINDS))
    names = {field.name for field in fields(OP_KINDS[kind])}
    if unknown := sorted(set(values) - names):
        raise InputError("unknown field", field=f"op {index} ({kind}).{unknown[0]}")
    if missing := sorted(names - set(values)):
        raise InputError("field is missing", field=f"op {index} ({kind}).{missing[0]}")
    if "scope" in values:
        if values["scope"] not in list(TopKScope):
            raise InputError(
                "wrong value",
                field=f"op {index} ({kind}).scope",
                value=values["scope"],
                allowed=", ".join(TopKScope),
            )
        values = {**values, "scope": TopKScope(values["scope"])}
    try:
        return OP_KINDS[kind](**values)
    except InputError as error:
        raise InputError(
            error.problem, field=f"op {index}: {error.field}", value=error.value, allowed=error.allowed
        ) from error


def _member(index: int, name: str) -> str:
    return f"op{index}_{name}.npy"


def _add(archive: zipfile.ZipFile, name: str, content: bytes, compression: int) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = compression
    info.create_system = 3  # the same byte on every platform
    archive.writestr(info, content)
