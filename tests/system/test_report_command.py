"""`topsieve report`: page and pictures of a run, a comparison and a sweep, every cycle accounted for, one layer told."""

from __future__ import annotations

import json
import shutil
import struct

import pytest

from system.command_line import assert_refused, topsieve
from topsieve.cli import main
from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate
from topsieve_sim.report import Stall, Unit
from topsieve_sim.trace import save_trace
from topsieve_sim.validation.benchmarks import pruned_bert_trace
from topsieve_sim.validation.workloads import Encoder, bert_trace

MODEL = Encoder(4, 4)
PICTURES = ("roofline", "stalls", "timeline")


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """The same model dense and pruned, as trace files."""
    folder = tmp_path_factory.mktemp("traces")
    save_trace(bert_trace(MODEL, 48), folder / "dense.npz")
    save_trace(pruned_bert_trace(MODEL, 48), folder / "pruned.npz")
    return folder


@pytest.fixture(scope="module")
def run(traces, tmp_path_factory):
    """What `topsieve simulate --out` leaves."""
    folder = tmp_path_factory.mktemp("run")
    assert main(["simulate", str(traces / "pruned.npz"), "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def told(run):
    """What `topsieve report` says of it, having drawn it."""
    result = topsieve("report", run)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def comparison(traces, tmp_path_factory):
    """The files of `topsieve compare` that a report reads: real reports under their methods' names."""
    folder = tmp_path_factory.mktemp("comparison")
    methods = {"dense": bert_trace(MODEL, 48), "spatten:keep=0.5": pruned_bert_trace(MODEL, 48)}
    for name, trace in methods.items():
        place = folder / "methods" / name.replace(":", "_")
        place.mkdir(parents=True)
        simulate(trace, load_config("spatten")).write_json(place / "report.json")
    metrics = [{"name": "cosine", "title": "cosine", "label": "mean cosine"}]
    results = [
        {
            "method": name,
            "metrics": metrics,
            "fidelity": {"cosine": 1.0 - place / 10},
            "survival": {"words": [f"word{index}" for index in range(24)], "layers": ["A" * 24, "AS" * 12]},
        }
        for place, name in enumerate(methods)
    ]
    (folder / "comparison.json").write_text(json.dumps({"results": results}))
    return folder


@pytest.fixture(scope="module")
def sweep(traces, tmp_path_factory):
    """What `topsieve sweep --out` leaves."""
    folder = tmp_path_factory.mktemp("sweep")
    spec = {
        "name": "lanes",
        "accelerator": "spatten",
        "workload": {"traces": [str(traces / "pruned.npz")]},
        "fields": {"softmax.lanes": [2, 4, 8]},
    }
    (folder / "lanes.yaml").write_text(json.dumps(spec))
    assert main(["sweep", str(folder / "lanes.yaml"), "--out", str(folder), "--executor", "serial"]) == 0
    return folder


def assert_pictures(folder, names=PICTURES):
    for name in names:
        png = (folder / f"{name}.png").read_bytes()
        assert png[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", png[16:24])
        assert 400 < width < 1600
        assert 200 < height < 1600
        assert (folder / f"{name}.pdf").read_bytes()[:5] == b"%PDF-"


def test_a_run_is_drawn_and_told(run, told):
    assert_pictures(run / "report")
    lines = told.splitlines()
    for unit in Unit:
        (line,) = (line for line in lines if line.startswith(unit.value + " "))
        *shares, total = map(float, line.split()[1:])
        assert len(shares) == 1 + len(Stall)
        assert total == 100.0
        assert round(sum(shares), 6) == 100.0
    assert f"written to {run / 'report'}: report.html, roofline.png, roofline.pdf" in lines[-1]


def test_json_accounts_for_every_cycle_and_equal_runs_are_equal_files(run, told, tmp_path, capsys):
    assert main(["report", str(run / "report.json"), "--out", str(tmp_path), "--json"]) == 0
    for file in ("report.html", *(f"{picture}.{form}" for picture in PICTURES for form in ("png", "pdf"))):
        first, second = ((folder / file).read_bytes() for folder in (run / "report", tmp_path))
        assert first == second
    ((_, facts),) = json.loads(capsys.readouterr().out).items()
    assert set(facts["units"]) == {unit.value for unit in Unit}
    for shares in facts["units"].values():
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-12)
    assert 0 < facts["tflops"] <= facts["roof_tflops"] * (1 + 1e-9)
    assert facts["bound"] == "arrays"


def test_a_comparison_has_a_page_one_roofline_and_pictures_of_each_method(comparison, capsys):
    assert main(["report", str(comparison)]) == 0
    text = capsys.readouterr().out
    assert "dense: every cycle of every unit" in text
    assert "spatten:keep=0.5: every cycle of every unit" in text
    out = comparison / "report"
    assert_pictures(out, ("roofline", "energy", "quality-cycles"))
    assert "2 methods on" in (out / "report.html").read_text(encoding="utf-8")
    for name in ("dense", "spatten_keep=0.5"):
        assert_pictures(out / "methods" / name, ("stalls", "timeline", "survival"))
    one = comparison / "methods" / "dense"
    assert main(["report", str(one)]) == 0
    assert_pictures(one / "report")


def test_a_sweep_has_a_page_and_its_front(sweep, capsys):
    assert main(["report", str(sweep)]) == 0
    assert "points are on the front of latency_cycles" in capsys.readouterr().out
    assert_pictures(sweep / "report", ("front",))
    assert "lanes: 3 designs" in (sweep / "report" / "report.html").read_text(encoding="utf-8")
    assert main(["report", str(sweep), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    summary = json.loads((sweep / "summary.json").read_text(encoding="utf-8"))
    assert told == {**{key: summary[key] for key in ("name", "objectives", "least", "front")}, "points": 3}


def test_one_layer_row_by_row(run, traces, capsys):
    arguments = ["report", str(run), "--rows", str(traces / "pruned.npz"), "--layer", "3"]
    assert main(arguments) == 0
    stem = "rows-layer3-sequence0-step0"
    assert_pictures(run / "report", (stem,))
    assert f"{stem}.perfetto-trace" in capsys.readouterr().out
    trace = (run / "report" / f"{stem}.perfetto-trace").read_bytes()
    for name in (b"memory bandwidth", b"rows in the softmax buffers", b"GB/s", b"keys of head 0"):
        assert name in trace


def test_bad_input_is_one_line(run, comparison, sweep, traces, tmp_path, capsys):
    assert_refused(topsieve("report", tmp_path / "none"), "no such run", "report.json")

    def refused(*arguments, says):
        assert main(["report", *map(str, arguments)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert all(word in line for word in says), line

    refused(tmp_path, says=("no report in this folder", "topsieve compare"))
    (tmp_path / "report.json").write_text("{")
    refused(tmp_path / "report.json", says=("not JSON",))
    refused(run, "--rows", traces / "dense.npz", "--layer", 9, says=("no attention there", "layer 9"))
    broken = tmp_path / "broken"
    shutil.copytree(comparison, broken)
    (broken / "methods" / "dense" / "report.json").unlink()
    refused(broken, says=("cannot read", "dense"))
    content = json.loads((broken / "comparison.json").read_text())
    # A GPU's cost without its columns.
    content["results"][-1]["gpu"] = {"time_us": 1.0}
    (broken / "comparison.json").write_text(json.dumps(content))
    refused(broken, says=("not a comparison",))
    (broken / "comparison.json").write_text("[]")
    refused(broken, says=("not a comparison",))
    refused(sweep, "--rows", traces / "dense.npz", says=("a sweep has no rows",))
    (tmp_path / "taken").write_text("")
    refused(run, "--out", tmp_path / "taken", says=("not a folder",))
