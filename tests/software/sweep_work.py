"""What workers do in the tests of sweeps: the real work, and death on some designs. Workers import it by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from topsieve.exploration.points import Chunk
from topsieve.exploration.work import ChunkResult, run_chunk

# The names of machines that kill whoever simulates them, and of one that does so while the file of this name is missing.
KILLER = "killer"
ONCE = "once"


def deadly_work(chunk: Chunk) -> ChunkResult:
    """`run_chunk`, but the process is killed by designs called `KILLER`, and by the first that is called `ONCE`."""
    for _, trace, config in chunk.items:
        witness = Path(trace).parents[1] / "killed-once"
        if config.name == ONCE and not witness.exists():
            witness.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if config.name == KILLER:
            os.kill(os.getpid(), signal.SIGKILL)
    return run_chunk(chunk)


def broken_work(chunk: Chunk) -> ChunkResult:
    """`run_chunk`, with a row that is a defect of Topsieve for designs called `KILLER`."""
    result = run_chunk(chunk)
    names = [config.name for _, _, config in chunk.items]
    rows = tuple(
        {"key": row["key"], "failed": "ValueError: broken"} if name == KILLER else row
        for row, name in zip(result.rows, names, strict=True)
    )
    return ChunkResult(rows, result.wall_seconds, result.cpu_seconds)


def slow_work(chunk: Chunk) -> ChunkResult:
    """`run_chunk` that takes a while, so that it can be killed on the way."""
    time.sleep(0.3)
    return run_chunk(chunk)
