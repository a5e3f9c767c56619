"""Sweeps that run: equal bytes everywhere, nothing computed twice, and workers that are killed for real."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from software.sweep_work import KILLER, ONCE, broken_work, deadly_work, slow_work
from topsieve.exploration import bench
from topsieve.exploration.executors import ExecutorKind, Processes
from topsieve.exploration.points import Chunk, Point, Resolver
from topsieve.exploration.sampling import places
from topsieve.exploration.scheduling import compute
from topsieve.exploration.spec import SearchSpec, SweepSpec, load_sweep
from topsieve.exploration.store import Store
from topsieve.exploration.sweep import Sweep, Watcher, Workers, run_sweep
from topsieve.exploration.sweep_files import write_results
from topsieve.exploration.work import ChunkResult, run_chunk
from topsieve.exploration.workloads import Workloads
from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate
from topsieve_sim.errors import InputError
from topsieve_sim.fields import validated
from topsieve_sim.trace import save_trace
from topsieve_sim.validation.workloads import Encoder, bert_trace

FILES = ("results.csv", "results.json", "summary.json", "refused.csv")
SMALL = Encoder(layers=2, heads=2)


@pytest.fixture
def trace_file(tmp_path, monkeypatch) -> str:
    """A small trace; named without its folder, so that results of different tests compare."""
    monkeypatch.chdir(tmp_path)
    save_trace(bert_trace(SMALL, 24), "bert.npz")
    return "bert.npz"


def sweep_spec(trace: str, tmp_path: Path, **content: Any) -> SweepSpec:
    path = tmp_path / "sweep.yaml"
    fields = content.pop("fields", {"softmax.lanes": [4, 8, 16], "memory.channels": [1, 2, 4]})
    path.write_text(yaml.safe_dump({"workload": {"traces": [trace]}, "fields": fields, **content}, sort_keys=False))
    return load_sweep(path)


def written(sweep: Sweep, folder: Path) -> dict[str, bytes]:
    folder.mkdir(exist_ok=True)
    write_results(sweep, folder)
    return {name: (folder / name).read_bytes() for name in FILES}


def processes(count: int, work: Any = run_chunk) -> Workers:
    return Workers(ExecutorKind.PROCESSES, count, work=work)


def test_points_are_what_the_simulator_says(trace_file, tmp_path):
    sweep = run_sweep(sweep_spec(trace_file, tmp_path), Store("store"))
    assert [item.point.number for item in sweep.measured] == list(range(1, 10))
    trace = bert_trace(SMALL, 24)
    for item in sweep.measured:
        report = simulate(trace, item.point.config)
        assert item.row["latency_cycles"] == report.cycles
        assert item.row["energy_pj"] == report.energy_total_pj
        assert item.row["area_mm2"] == pytest.approx(report.area_total_um2 / 1e6)
    assert item.point.config.memory.channels == item.point.place["memory.channels"]


def test_many_workers_write_the_bytes_of_one_and_nothing_is_computed_twice(trace_file, tmp_path):
    spec = sweep_spec(trace_file, tmp_path)
    alone = run_sweep(spec, Store("one"))
    together = run_sweep(spec, Store("many"), processes(2))
    assert (alone.computed, together.computed) == (9, 9)
    assert written(alone, tmp_path / "a") == written(together, tmp_path / "b")
    again = run_sweep(spec, Store("many"))
    assert (again.computed, again.stored) == (0, 9)
    assert written(again, tmp_path / "c") == written(alone, tmp_path / "a")
    # A larger space computes what is new; another seed, mode or clock is another result.
    wider = sweep_spec(trace_file, tmp_path, fields={"softmax.lanes": [4, 8, 16], "memory.channels": [1, 2, 4, 8]})
    assert run_sweep(wider, Store("many")).computed == 3
    assert run_sweep(sweep_spec(trace_file, tmp_path, seed=1), Store("many")).stored == 0
    assert run_sweep(sweep_spec(trace_file, tmp_path, mode="closed-form"), Store("many")).stored == 0


def test_a_closed_form_sweep_measures_the_same_points(trace_file, tmp_path):
    exact = run_sweep(sweep_spec(trace_file, tmp_path), Store("store"))
    closed = run_sweep(sweep_spec(trace_file, tmp_path, mode="closed-form"), Store("store"))
    for one, other in zip(exact.measured, closed.measured, strict=True):
        assert one.point.place == other.point.place
        assert other.row["latency_cycles"] == pytest.approx(one.row["latency_cycles"], rel=0.05)
        assert other.row["dram_bytes"] == one.row["dram_bytes"]


class Stopper(Watcher):
    """Ctrl-C after some points."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, count: int) -> None:
        self.left -= count
        if self.left <= 0:
            raise KeyboardInterrupt


def test_an_interrupted_sweep_goes_on(trace_file, tmp_path):
    spec = sweep_spec(trace_file, tmp_path)
    with pytest.raises(KeyboardInterrupt, match=r"\d of 9 points are done and kept") as stopped:
        run_sweep(spec, Store("store"), watcher=Stopper(4))
    rest = run_sweep(spec, Store("store"))
    assert 4 <= rest.stored < 9
    assert str(stopped.value).startswith(f"{rest.stored} of 9 points")
    assert rest.computed == 9 - rest.stored
    assert written(rest, tmp_path / "a") == written(run_sweep(spec, Store("whole")), tmp_path / "b")


def test_a_damaged_file_of_the_store_is_computed_again(trace_file, tmp_path):
    spec = sweep_spec(trace_file, tmp_path)
    run_sweep(spec, Store("store"))
    torn = sorted(Path("store/results").glob("*.jsonl"))[0]
    lines = torn.read_text().count("\n")
    torn.write_text(torn.read_text()[:20])
    assert run_sweep(spec, Store("store")).computed == lines


def test_a_point_that_kills_its_worker_twice_is_quarantined_and_the_others_are_there(trace_file, tmp_path):
    names = ["first", KILLER, "third", "fourth"]
    spec = sweep_spec(trace_file, tmp_path, fields={"name": names, "memory.channels": [1, 2]})
    sweep = run_sweep(spec, Store("store"), processes(2, deadly_work))
    assert [item.place["name"] for item in sweep.quarantined] == [KILLER, KILLER]
    assert "killed its worker 2 times" in sweep.quarantined[0].reason
    assert sweep.deaths >= 4
    assert len(sweep.measured) == 6
    summary = json.loads(written(sweep, tmp_path / "a")["summary.json"])
    assert [item["name"] for item in summary["quarantined"]] == [KILLER, KILLER]
    # It stays there without being tried, until it is asked for again.
    later = run_sweep(spec, Store("store"), processes(1, deadly_work))
    assert (later.deaths, later.computed, len(later.quarantined)) == (0, 0, 2)
    healed = run_sweep(spec, Store("store"), processes(1), retry=True)
    assert (healed.computed, len(healed.quarantined), len(healed.measured)) == (2, 0, 8)
    assert len(run_sweep(spec, Store("store")).measured) == 8


def test_a_worker_that_dies_once_costs_nothing_but_its_chunk(trace_file, tmp_path):
    spec = sweep_spec(trace_file, tmp_path, fields={"name": ["first", ONCE, "third"], "memory.channels": [1, 2, 3]})
    sweep = run_sweep(spec, Store("store"), processes(2, deadly_work))
    assert sweep.deaths == 1
    assert (len(sweep.measured), len(sweep.quarantined)) == (9, 0)
    assert written(sweep, tmp_path / "a") == written(run_sweep(spec, Store("calm")), tmp_path / "b")


def test_kill_9_of_workers_loses_nothing(trace_file, tmp_path):
    """From outside, while they work: each process of the pool once."""
    spec = sweep_spec(trace_file, tmp_path)
    store = Store("store")
    workloads = Workloads(spec.workload, spec.seed, store, lambda line: None)
    resolved = Resolver(spec.base(), spec.mode, spec.seed, workloads).resolve_all(places(spec))
    points = [item for item in resolved if isinstance(item, Point)]
    executor = Processes(slow_work, 2)
    victims = executor.process_ids
    killed: list[int] = []

    def kill_one(count: int) -> None:
        # Results come back, so its workers are up; the next one is at work while this one is told of.
        if len(killed) < len(victims):
            victim = victims[len(killed)]
            killed.append(victim)
            threading.Timer(0.1, os.kill, (victim, signal.SIGKILL)).start()

    computed = compute(points, executor, store, spec.mode, spec.seed, kill_one)
    executor.close()
    assert len(killed) == 2
    assert computed.deaths >= 1
    assert (len(computed.rows), computed.quarantined) == (9, [])
    assert set(store.rows(point.key for point in points)) == {point.key for point in points}


def test_a_defect_is_named_and_tried_again(trace_file, tmp_path):
    spec = sweep_spec(trace_file, tmp_path, fields={"name": ["first", KILLER]})
    sweep = run_sweep(spec, Store("store"), processes(1, broken_work))
    assert [(item.place["name"], item.reason) for item in sweep.failed] == [(KILLER, "ValueError: broken")]
    assert len(sweep.measured) == 1
    assert len(run_sweep(spec, Store("store")).measured) == 2


def test_a_search_measures_defects_again_and_the_quarantined_when_asked(trace_file, tmp_path):
    from topsieve.exploration.search import run_search

    data = {
        "workload": {"traces": [trace_file]},
        "fields": {"name": ["first", KILLER], "memory.channels": [1, 2, 4, 8]},
        "trials": 8,
        "sampler": "random",
        "enqueue": [],
    }
    spec = validated(SearchSpec, data, "search")
    broken = run_search(spec, tmp_path, Store("store"), Workers(work=broken_work))
    assert {(item.place["name"], item.reason) for item in broken.failed} == {(KILLER, "ValueError: broken")}
    dead = run_search(spec, tmp_path, Store("store"), processes(1, deadly_work))
    assert not dead.failed
    assert [item.number for item in dead.quarantined] == [item.number for item in broken.failed]
    left = run_search(spec, tmp_path, Store("store"))
    assert (left.computed, left.quarantined) == (0, dead.quarantined)
    healed = run_search(spec, tmp_path, Store("store"), retry=True)
    assert (len(healed.quarantined), len(healed.failed), len(healed.measured)) == (0, 0, 8)
    assert run_search(spec, tmp_path, Store("store")).computed == 0


def test_chunks_are_of_one_trace_and_fill_up_across_formats(trace_file, tmp_path):
    """Machines that share no decision of the data still come to a worker together, equal formats side by side."""
    save_trace(bert_trace(SMALL, 16), "other.npz")
    spec = sweep_spec(
        trace_file,
        tmp_path,
        mode="closed-form",
        workload={"traces": [trace_file, "other.npz"]},
        fields={"topk.parallelism": [4, 8, 16], "formats.value_bits": [8, 10, 12], "topk.selector": ["quick", "radix"]},
    )
    chunks = []

    def noted(chunk: Chunk) -> ChunkResult:
        chunks.append(chunk)
        return run_chunk(chunk)

    assert len(run_sweep(spec, Store("store"), Workers(work=noted)).measured) == 36
    assert all(len({path for _, path, _ in chunk.items}) == 1 for chunk in chunks)
    assert len(chunks[0].items) == 18
    formats = [config.formats.value_bits for _, _, config in chunks[0].items]
    assert sum(a != b for a, b in itertools.pairwise(formats)) == 2


def test_the_bench_tells_what_the_points_took_from_what_the_workers_took(trace_file):
    found = bench.cost(Path(trace_file), "closed-form", 1, 20)
    assert 0 < found.useful < found.processor
    assert 0 < found.processor_share < 1
    assert 0 < found.efficiency < 1


def test_an_existing_dask_cluster_writes_the_same_bytes(trace_file, tmp_path):
    from distributed import LocalCluster

    spec = sweep_spec(trace_file, tmp_path)
    expected = written(run_sweep(spec, Store("serial")), tmp_path / "a")
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster:
        sweep = run_sweep(spec, Store("dask"), Workers(ExecutorKind.DASK, address=cluster.scheduler_address))
    assert sweep.computed == 9
    assert written(sweep, tmp_path / "b") == expected


@pytest.mark.full
def test_a_dask_cluster_of_our_own_survives_a_killer(trace_file, tmp_path):
    spec = sweep_spec(trace_file, tmp_path, fields={"name": ["first", KILLER, "third"]})
    sweep = run_sweep(spec, Store("local"), Workers(ExecutorKind.DASK, 1, work=deadly_work))
    assert [item.place["name"] for item in sweep.quarantined] == [KILLER]
    assert len(sweep.measured) == 2


@pytest.mark.full
@pytest.mark.parametrize("moment_s", [0.0, 0.05, 0.3])
def test_a_dask_worker_killed_in_its_first_moments_costs_no_point(moment_s, trace_file, tmp_path, monkeypatch):
    """Whether its keeper starts another, or waits for ever and the cluster is made anew."""
    from topsieve.exploration import dask_executor

    monkeypatch.setattr(dask_executor, "_BARREN_SECONDS", 4)

    class Struck(dask_executor.Dask):
        def _open(self) -> None:
            super()._open()
            if not struck:
                struck.extend(worker.pid for worker in self._cluster.workers.values())
                time.sleep(moment_s)
                for number in struck:
                    os.kill(number, signal.SIGKILL)

    struck: list[int] = []
    monkeypatch.setattr(dask_executor, "Dask", Struck)
    sweep = run_sweep(sweep_spec(trace_file, tmp_path), Store("store"), Workers(ExecutorKind.DASK, 1))
    assert len(struck) == 1
    assert (len(sweep.measured), len(sweep.quarantined)) == (9, 0)


@pytest.mark.full
def test_a_dask_cluster_without_workers_is_made_anew(trace_file, tmp_path, monkeypatch):
    from topsieve.exploration import dask_executor

    monkeypatch.setattr(dask_executor, "_BARREN_SECONDS", 1)

    class Deserted(dask_executor.Dask):
        def _open(self) -> None:
            super()._open()
            opened.append(self._cluster)
            if len(opened) == 1:
                self._cluster.scale(0)

    opened: list[object] = []
    monkeypatch.setattr(dask_executor, "Dask", Deserted)
    sweep = run_sweep(sweep_spec(trace_file, tmp_path), Store("store"), Workers(ExecutorKind.DASK, 1))
    assert len(opened) == 2
    assert (len(sweep.measured), len(sweep.quarantined)) == (9, 0)


def test_no_scheduler_at_an_address_is_bad_input(trace_file, tmp_path):
    with pytest.raises(InputError, match="no dask scheduler answers"):
        run_sweep(
            sweep_spec(trace_file, tmp_path), Store("store"), Workers(ExecutorKind.DASK, address="tcp://127.0.0.1:9")
        )


def test_designs_that_are_no_machine_or_do_not_fit_are_listed(trace_file, tmp_path):
    spec = sweep_spec(trace_file, tmp_path, fields={"softmax.lanes": [3, 8], "capacity": [16, 64]})
    sweep = run_sweep(spec, Store("store"))
    assert len(sweep.measured) == 1
    reasons = {(item.place["softmax.lanes"], item.place["capacity"]): item.reason for item in sweep.refused}
    assert set(reasons) == {(3, 16), (3, 64), (8, 16)}
    assert "softmax.lanes" in reasons[3, 16]
    assert "16" in reasons[8, 16]
    table = written(sweep, tmp_path / "a")["refused.csv"].decode().splitlines()
    assert table[0] == "point,trace,softmax.lanes,capacity,kind,reason"
    assert len(table) == 4
    # Known without being tried again.
    assert run_sweep(spec, Store("store")).computed == 0
    with pytest.raises(InputError, match="no point of the sweep is a machine"):
        run_sweep(sweep_spec(trace_file, tmp_path, fields={"softmax.lanes": [3]}), Store("store"))


def test_closed_forms_refuse_other_memories_by_point(trace_file, tmp_path):
    fields = {"memory.model": ["ideal", "dram"], "memory.channels": [16]}
    sweep = run_sweep(sweep_spec(trace_file, tmp_path, mode="closed-form", fields=fields), Store("store"))
    assert [item.point.place["memory.model"] for item in sweep.measured] == ["ideal"]
    assert "closed forms know the ideal memory only" in sweep.refused[0].reason


def test_units_stand_in_the_headers(trace_file, tmp_path):
    table = written(run_sweep(sweep_spec(trace_file, tmp_path), Store("store")), tmp_path / "a")["results.csv"]
    header = table.decode().splitlines()[0].split(",")
    assert header == [
        "point", "trace", "softmax.lanes", "memory.channels", "latency_cycles", "latency_us", "dram_bytes", "energy_pj",
        "power_w", "area_mm2", "query_rows", "lsb_rows",
    ]  # fmt: skip
    assert (
        load_config("spatten").name
        == json.loads((tmp_path / "a" / "results.json").read_text())["inputs"]["accelerator"]["name"]
    )
