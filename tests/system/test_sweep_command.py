"""`topsieve sweep` and `topsieve search` as a user runs them: the documented example, bad input, kill -9, models."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from software.sweep_work import KILLER, broken_work
from system.command_line import ROOT, assert_refused, command, environment, topsieve
from topsieve.cli import main
from topsieve.exploration.spec import SearchSpec, SweepSpec
from topsieve.exploration.store import Store
from topsieve.exploration.sweep import Watcher, Workers, run_sweep
from topsieve.exploration.sweep_files import front_of, write_results
from topsieve_sim.arch import load_config
from topsieve_sim.fields import validated
from topsieve_sim.trace import save_trace
from topsieve_sim.validation.workloads import Encoder, bert_trace

PAGE = ROOT / "docs" / "exploration.md"
RESULTS = ("results.csv", "results.json", "summary.json", "refused.csv")


class Lines(Watcher):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def written(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def test_the_documented_example_runs(tmp_path):
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "example.yaml").write_text(example)
    ran = topsieve("sweep", tmp_path / "example.yaml", "--out", tmp_path / "out", "--executor", "serial", "--json")
    assert ran.returncode == 0, ran.stderr
    assert "40 points, 0 of them in the store" in ran.stderr
    summary = json.loads(ran.stdout)
    assert (summary["measured"], summary["mode"]) == (40, "closed-form")
    with (tmp_path / "out" / "results.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 40
    least = min(int(row["latency_cycles"]) for row in rows)
    assert summary["least"]["latency_cycles"]["latency_cycles"] == least
    assert ran.stdout == (tmp_path / "out" / "summary.json").read_text()


def test_bad_input_is_one_line_and_writes_nothing(tmp_path):
    (tmp_path / "bad.yaml").write_text("workload: {traces: [x.npz]}\nfields: {softmax.lane: [1]}\n")
    assert_refused(topsieve("sweep", tmp_path / "bad.yaml", "--out", tmp_path / "out"), "bad.yaml", "softmax.lane")
    assert not (tmp_path / "out").exists()


def test_a_killed_sweep_goes_on_and_writes_the_same_bytes(tmp_path):
    """The whole program by SIGKILL, while it has some of its points."""
    save_trace(bert_trace(Encoder(layers=2, heads=12), 300), tmp_path / "bert.npz")
    content = {
        "workload": {"traces": [str(tmp_path / "bert.npz")]},
        "fields": {"memory.latency_cycles": {"low": 1, "high": 300, "count": 300}},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))
    argv = ["sweep", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out"), "--executor", "serial"]
    store = tmp_path / "out" / "store" / "results"
    with subprocess.Popen(command(*argv), env=environment(), stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(store.glob("*.jsonl"))) < 3:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = sum(path.read_text().count("\n") for path in store.glob("*.jsonl"))
    assert 3 <= kept < 300
    again = topsieve(*argv)
    assert again.returncode == 0, again.stderr
    assert f"{300 - kept} points computed, {kept} from the store" in again.stderr
    spec = validated(SweepSpec, content, "sweep")
    whole = tmp_path / "whole"
    whole.mkdir()
    write_results(run_sweep(spec, Store(whole / "store")), whole)
    assert written(whole) == written(tmp_path / "out")


def test_a_model_runs_once_for_each_method_and_keep_ratio(tiny_model, text_file, tmp_path):
    content = {
        "accelerator": "tiny",
        "workload": {
            "model": str(tiny_model), "methods": ["dense", "random"], "keep": [0.4, 0.8], "sequences": 2,
            "text": str(text_file),
        },
        "fields": {"capacity": [64], "memory.latency_cycles": [4, 8]},
    }  # fmt: skip
    spec = validated(SweepSpec, content, "sweep")
    heard = Lines()
    sweep = run_sweep(spec, Store(tmp_path / "store"), watcher=heard)
    assert len(sweep.measured) == 6
    assert sum("running the model" in line for line in heard.lines) == 3
    assert sum("quality" in line for line in heard.lines) == 3
    assert {item.point.place["keep"] for item in sweep.measured} == {None, 0.4, 0.8}
    quality = {
        (item.point.place["method"], item.point.place["keep"]): item.point.run.quality for item in sweep.measured
    }
    assert quality["dense", None][sweep.metrics[0].name] == 1.0
    assert front_of(sweep)
    later = Lines()
    again = run_sweep(spec, Store(tmp_path / "store"), watcher=later)
    assert again.computed == 0
    assert not any("loading" in line or "running" in line for line in later.lines)
    assert [dict(item.row) for item in again.measured] == [dict(item.row) for item in sweep.measured]


def search_spec(trace: Path, **content: object) -> SearchSpec:
    fields = {
        "softmax.lanes": [4, 8, 16],
        "memory.channels": {"low": 1, "high": 16},
        "dot_product.multipliers": [256, 512, 1024],
    }
    given = {"mode": "closed-form", "workload": {"traces": [str(trace)]}, "fields": fields, "trials": 40, "batch": 8}
    return validated(SearchSpec, {**given, **content}, "search")


def test_a_search_begins_with_known_designs_finds_a_front_and_goes_on(tmp_path):
    import optuna

    from topsieve.exploration.search import JOURNAL, run_search

    trace = tmp_path / "bert.npz"
    save_trace(bert_trace(Encoder(layers=1, heads=2), 40), trace)
    (tmp_path / "out").mkdir()
    found = run_search(search_spec(trace), tmp_path / "out", Store(tmp_path / "store"))
    assert len(found.measured) + len(found.refused) == 40
    spatten, topsieve_design = load_config("spatten"), load_config("topsieve")
    for item, known in zip(found.measured[:2], (spatten, topsieve_design), strict=True):
        assert item.point.config.softmax == known.softmax
        assert item.point.config.memory.channels == known.memory.channels
    costs = [[item.row[name] for name in ("latency_cycles", "energy_pj", "area_mm2")] for item in found.measured]
    for best in front_of(found):
        mine = [best.row[name] for name in ("latency_cycles", "energy_pj", "area_mm2")]
        assert not any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for other in costs)
    # Any number of runs finds what one does: the first of them stops half way, and leaves a trial that never ended.
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "parts").mkdir()
    run_search(search_spec(trace, trials=16), tmp_path / "parts", Store(tmp_path / "store"))
    journal = optuna.storages.journal.JournalFileBackend(str(tmp_path / "parts" / JOURNAL))
    storage = optuna.storages.JournalStorage(journal)
    (name,) = optuna.get_all_study_names(storage)
    stale = optuna.load_study(study_name=name, storage=storage).ask()
    parts = run_search(search_spec(trace), tmp_path / "parts", Store(tmp_path / "store"))
    states = {trial.number: trial.state for trial in optuna.load_study(study_name=name, storage=storage).trials}
    assert states[stale.number] is optuna.trial.TrialState.FAIL
    assert optuna.trial.TrialState.RUNNING not in states.values()
    assert len(states) == 40
    first = [dict(item.point.place) for item in parts.measured][:16]
    assert first == [dict(item.point.place) for item in found.measured][:16]


def test_search_command_prints_its_summary(tmp_path):
    ran = topsieve(
        "search", "gpt2-machine", "--set", "trials=20", "--out", tmp_path / "out", "--executor", "serial", "--json"
    )
    assert ran.returncode == 0, ran.stderr
    summary = json.loads(ran.stdout)
    assert summary["objectives"] == ["latency_cycles", "energy_pj", "area_mm2"]
    assert summary["measured"] + summary["refused"] == 20
    assert (tmp_path / "out" / "results.csv").read_text().startswith("point,trace,dot_product.multipliers,")


@pytest.mark.parametrize("name", ["sweep", "search"])
def test_a_point_without_a_result_is_named_and_exit_code_one(name, tmp_path, monkeypatch, capsys):
    save_trace(bert_trace(Encoder(layers=1, heads=2), 12), tmp_path / "bert.npz")
    spec = {"workload": {"traces": [str(tmp_path / "bert.npz")]}, "fields": {"name": ["first", KILLER]}}
    spec |= {"search": {"trials": 4, "enqueue": [], "sampler": "random"}}.get(name, {})
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    line = [name, str(tmp_path / "spec.yaml"), "--out", str(tmp_path / "out"), "--executor", "serial"]
    with monkeypatch.context() as patched:
        patched.setattr("topsieve.cli.exploring.workers_of", lambda arguments: Workers(work=broken_work))
        assert main(line) == 1
    shown = capsys.readouterr()
    assert f"(trace={tmp_path / 'bert.npz'}, name={KILLER}): ValueError: broken" in shown.err
    assert "first" in (tmp_path / "out" / "results.csv").read_text()
    assert main([*line, "--retry"]) == 0
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert "Exit code 1" in " ".join(capsys.readouterr().out.split())
