"""Chunks on a dask cluster: one of this machine, or an existing one by its scheduler's address.

Workers elsewhere read traces from the store, so its folder is one that they see under the same path.
"""

from __future__ import annotations

from collections.abc import Callable

import dask
from distributed import CancelledError, Client, Future, KilledWorker, LocalCluster
from distributed import wait as wait_for

from topsieve.exploration.points import Chunk
from topsieve.exploration.work import ChunkResult
from topsieve_sim.errors import InputError

# Of a scheduler that we start: the first death comes to us, who count. An existing scheduler has its own number.
_OWN_CLUSTER = {"distributed.scheduler.allowed-failures": 0, "distributed.worker.daemon": False}
_CONNECT_SECONDS = 10


class Dask:
    """A slot a thread of the cluster's workers at the time of opening.

    Raises
    ------
    InputError
        there is no scheduler at `address`, or it has no workers.
    """

    def __init__(self, work: Callable[[Chunk], ChunkResult], workers: int, address: str | None) -> None:
        self._work = work
        self._cluster: LocalCluster | None = None
        if address is None:
            dask.config.set(_OWN_CLUSTER)
            self._cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
            )
        try:
            self._client = Client(self._cluster or address, timeout=_CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise InputError("no dask scheduler answers", source="--address", value=address) from error
        slots = workers if self._cluster else sum(self._client.nthreads().values())
        if not slots:
            self.close()
            raise InputError("the dask cluster has no workers", source="--address", value=address)
        self._running: dict[int, Future | None] = dict.fromkeys(range(slots))

    @property
    def idle(self) -> tuple[int, ...]:
        return tuple(slot for slot, future in self._running.items() if future is None)

    def submit(self, slot: int, chunk: Chunk) -> None:
        self._running[slot] = self._client.submit(self._work, chunk, pure=False)

    def finished(self) -> list[tuple[int, ChunkResult | None]]:
        running = {slot: future for slot, future in self._running.items() if future is not None}
        wait_for(list(running.values()), return_when="FIRST_COMPLETED")
        done: list[tuple[int, ChunkResult | None]] = []
        for slot, future in running.items():
            if future.done():
                self._running[slot] = None
                try:
                    done.append((slot, future.result()))
                except (KilledWorker, CancelledError):
                    done.append((slot, None))
        return done

    def close(self) -> None:
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()
