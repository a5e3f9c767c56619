"""Chunks on a dask cluster: one of this machine, or an existing one by its scheduler's address.

Workers elsewhere read traces from the store, so its folder is one that they see under the same path.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import dask
from distributed import CancelledError, Client, KilledWorker, LocalCluster
from distributed import wait as wait_for

from topsieve.exploration.points import Chunk
from topsieve.exploration.work import ChunkResult
from topsieve_sim.errors import InputError

# Of a scheduler that we start: the first death comes to us, who count. An existing scheduler has its own number.
_OWN_CLUSTER = {"distributed.scheduler.allowed-failures": 0}
_CONNECT_SECONDS = 5
_LOOK_SECONDS = 2
# A worker that dies in its first moments can leave its keeper waiting for it for ever; a start takes a few seconds.
_BARREN_SECONDS = 30


class Dask:
    """A slot a thread of the cluster's workers at the time of opening.

    Raises
    ------
    InputError
        there is no scheduler at `address`, or it has no workers.
    """

    def __init__(self, work: Callable[[Chunk], ChunkResult], workers: int, address: str | None) -> None:
        self._work = work
        self._workers = workers
        self._address = address
        self._cluster: Any = None
        self._client: Any
        self._open()
        slots = workers if address is None else sum(self._client.nthreads().values())
        if not slots:
            self.close()
            raise InputError("the dask cluster has no workers", source="--address", value=address)
        self._running: dict[int, tuple[Any, Chunk] | None] = dict.fromkeys(range(slots))
        self._seen_worker = time.monotonic()

    def _open(self) -> None:
        if self._address is None:
            with dask.config.set(_OWN_CLUSTER):
                self._cluster = LocalCluster(  # type: ignore[no-untyped-call]
                    n_workers=self._workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=None,
                    silence_logs=50,
                )
        try:
            self._client = Client(self._cluster or self._address, timeout=_CONNECT_SECONDS)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise InputError("no dask scheduler answers", source="--address", value=self._address) from error

    @property
    def idle(self) -> tuple[int, ...]:
        return tuple(slot for slot, run in self._running.items() if run is None)

    def submit(self, slot: int, chunk: Chunk) -> None:
        self._running[slot] = (self._client.submit(self._work, chunk, pure=False), chunk)

    def finished(self) -> list[tuple[int, ChunkResult | None]]:
        while True:
            futures = [run[0] for run in self._running.values() if run]
            try:
                wait_for(futures, timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED")  # type: ignore[no-untyped-call]
            except TimeoutError:
                self._revive()
                continue
            self._seen_worker = time.monotonic()
            return self._collected()

    def _collected(self) -> list[tuple[int, ChunkResult | None]]:
        done: list[tuple[int, ChunkResult | None]] = []
        for slot, run in self._running.items():
            if run and run[0].done():
                self._running[slot] = None
                try:
                    done.append((slot, run[0].result()))
                except (KilledWorker, CancelledError):
                    done.append((slot, None))
        return done

    def _revive(self) -> None:
        """Start a cluster of our own anew when it has had no worker for long; its chunks did not run and are given again."""
        if self._cluster is None or self._client.nthreads():
            self._seen_worker = time.monotonic()
        if time.monotonic() - self._seen_worker > _BARREN_SECONDS:
            self.close()
            self._open()
            self._seen_worker = time.monotonic()
            for slot, run in self._running.items():
                if run:
                    self.submit(slot, run[1])

    def close(self) -> None:
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()
