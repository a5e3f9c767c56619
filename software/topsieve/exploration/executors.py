"""Where chunks run: in this process, in processes of this machine, or on a dask cluster.

An executor has slots; each takes a chunk and answers with its result, or with None when the worker died of it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from enum import StrEnum
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Protocol

from topsieve.exploration.points import Chunk
from topsieve.exploration.work import ChunkResult

Work = Callable[[Chunk], ChunkResult]

_PRELOADED = ["topsieve.exploration.work", "topsieve_sim.engine", "topsieve_sim.closed_form"]
# Libraries of linear algebra would start as many threads a worker as there are cores.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class ExecutorKind(StrEnum):
    """Names of the executors."""

    SERIAL = "serial"
    PROCESSES = "processes"
    DASK = "dask"


class Executor(Protocol):
    """Slots that run chunks."""

    @property
    def idle(self) -> tuple[int, ...]:
        """Slots that run nothing."""
        ...

    def submit(self, slot: int, chunk: Chunk) -> None:
        """Start `chunk` in the idle slot `slot`."""
        ...

    def finished(self) -> list[tuple[int, ChunkResult | None]]:
        """Wait until a slot is done: its number and result, None if its worker died. The slot is idle again."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


class Serial:
    """One slot: this process."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._chunk: Chunk | None = None

    @property
    def idle(self) -> tuple[int, ...]:
        return () if self._chunk else (0,)

    def submit(self, slot: int, chunk: Chunk) -> None:
        self._chunk = chunk

    def finished(self) -> list[tuple[int, ChunkResult | None]]:
        assert self._chunk is not None
        chunk, self._chunk = self._chunk, None
        return [(0, self._work(chunk))]

    def close(self) -> None:
        self._chunk = None


class _Worker:
    """A process and the pipe to it."""

    def __init__(self, work: Work) -> None:
        # Forked from a server that has loaded what a worker needs: clean of this process's threads, and there at once.
        prepare(ExecutorKind.PROCESSES)
        context = multiprocessing.get_context("forkserver")
        self.pipe, theirs = context.Pipe()
        self.process: ForkServerProcess = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()

    def end(self) -> None:
        self.pipe.close()
        self.process.join(timeout=0.2)
        self.process.kill()
        self.process.join()


class Processes:
    """A slot a process. A process that dies is known by its slot, and another takes its place."""

    def __init__(self, work: Work, workers: int) -> None:
        self._work = work
        self._workers = {slot: _Worker(work) for slot in range(workers)}
        self._busy: set[int] = set()

    @property
    def idle(self) -> tuple[int, ...]:
        return tuple(slot for slot in self._workers if slot not in self._busy)

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Process numbers of the workers, by slot."""
        return tuple(worker.process.pid or 0 for worker in self._workers.values())

    def submit(self, slot: int, chunk: Chunk) -> None:
        self._busy.add(slot)
        # A worker that died while it was idle cannot take it; `finished` sees that it is dead.
        with contextlib.suppress(BrokenPipeError):
            self._workers[slot].pipe.send(chunk)

    def finished(self) -> list[tuple[int, ChunkResult | None]]:
        pipes = {self._workers[slot].pipe: slot for slot in self._busy}
        done: list[tuple[int, ChunkResult | None]] = []
        for pipe in wait(list(pipes)):
            assert isinstance(pipe, Connection)
            slot = pipes[pipe]
            result: ChunkResult | None = None
            try:
                result = pipe.recv()
            except (EOFError, OSError):
                self._workers[slot].end()
                self._workers[slot] = _Worker(self._work)
            self._busy.discard(slot)
            done.append((slot, result))
        return done

    def close(self) -> None:
        for worker in self._workers.values():
            if worker.pipe.closed:
                continue
            worker.pipe.close()
        for slot, worker in self._workers.items():
            if slot in self._busy:
                worker.process.kill()
            worker.process.join(timeout=2)
            worker.process.kill()
            worker.process.join()


def _serve(pipe: Connection, work: Work) -> None:
    """A worker's life: a chunk in, a result out, until the pipe is closed, by whatever end of the process behind it."""
    # Ctrl-C reaches every process of a terminal; the one that has the results decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.send(work(pipe.recv()))


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def prepare(kind: ExecutorKind) -> None:
    """Let what an executor will need be loaded meanwhile, on another core; nothing waits for it."""
    if kind is ExecutorKind.PROCESSES:
        multiprocessing.get_context("forkserver").set_forkserver_preload(_PRELOADED)
        with _one_thread_each():
            forkserver.ensure_running()


def open_executor(kind: ExecutorKind, workers: int, work: Work, address: str | None = None) -> Executor:
    """The executor `kind`; `address` of a dask scheduler, else a cluster of `workers` processes on this machine.

    Raises
    ------
    InputError
        there is no scheduler at `address`.
    ModuleNotFoundError
        dask is asked for and not installed.
    """
    if kind is ExecutorKind.SERIAL:
        return Serial(work)
    if kind is ExecutorKind.PROCESSES:
        return Processes(work, workers)
    from topsieve.exploration.dask_executor import Dask

    return Dask(work, workers, address)
