"""`topsieve compare --gpu` from end to end: bounds of a data sheet, a file of the benchmark, refusals in one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from software.gpu_files import H100, bench_file, changed
from topsieve.cli import main
from topsieve_kernels.bench.__main__ import main as bench
from topsieve_kernels.bench.shapes import SelectShape, read_shapes
from topsieve_sim.rivals import load_platform

METHODS = ("dense", "spatten", "tome")
SOURCES = {"measured", "roofline", "mixed"}


def arguments(model: Path, text: Path, out: Path, *more: str) -> list[str]:
    return [
        "compare", "--model", str(model), "--text", str(text), "--accelerator", "tiny", "--set", "capacity=64",
        "--sequences", "2", "--methods", ",".join(METHODS), "--out", str(out), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def out(tiny_model, text_file, tmp_path_factory) -> Path:
    """Folder of a comparison beside a data sheet."""
    folder = tmp_path_factory.mktemp("gpu") / "out"
    assert main(arguments(tiny_model, text_file, folder, "--gpu", "a100-sxm-40gb", "--json")) == 0
    return folder


def comparison(out: Path) -> dict:
    return json.loads((out / "comparison.json").read_text())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def check_columns(out: Path) -> None:
    """JSON, the summary and the list of calls say the same."""
    found = comparison(out)
    calls = rows(out / "gpu.csv")
    for result, line in zip(found["results"], rows(out / "summary.csv"), strict=True):
        gpu, hardware = result["gpu"], result["hardware"]
        mine = [call for call in calls if call["method"] == result["method"]]
        assert float(line["gpu_us"]) == gpu["time_us"] > 0
        assert float(line["gpu_energy_uj"]) == gpu["energy_uj"] > 0
        assert line["gpu_source"] == gpu["source"] in SOURCES
        assert gpu["time_us"] == pytest.approx(sum(int(call["count"]) * float(call["us"]) for call in mine))
        assert gpu["energy_uj"] == pytest.approx(sum(int(call["count"]) * float(call["energy_uj"]) for call in mine))
        assert gpu["calls"] == sum(int(call["count"]) for call in mine)
        assert {call["source"] for call in mine} == (
            {"measured", "roofline"} if gpu["source"] == "mixed" else {gpu["source"]}
        )
        assert float(line["accelerator_over_gpu_time"]) == pytest.approx(hardware["latency_us"] / gpu["time_us"])
        assert float(line["accelerator_over_gpu_energy"]) == pytest.approx(
            hardware["energy_pj"] * 1e-6 / gpu["energy_uj"]
        )
        assert "gpu_work" not in result


def test_a_data_sheet_bounds_every_call(out):
    check_columns(out)
    found = comparison(out)
    assert (found["inputs"]["gpu"]["name"], found["inputs"]["gpu"]["measurement"]) == ("a100-sxm-40gb", None)
    watts = load_platform("a100-sxm-40gb").board_power_w.value
    for result in found["results"]:
        gpu = result["gpu"]
        assert (gpu["source"], gpu["power_source"], gpu["measured_share"]) == ("roofline", "data sheet", 0)
        assert gpu["time_us"] == gpu["bound_us"]
        assert gpu["energy_uj"] == pytest.approx(watts * gpu["time_us"])
    dense, spatten, _ = (result["gpu"] for result in found["results"])
    assert spatten["time_us"] < dense["time_us"]
    # Attention of four layers of two sequences.
    assert dense["calls"] == 8


def test_the_shapes_of_a_comparison_are_measured_and_found(out, tiny_model, text_file, tmp_path, capfd):
    """gpu_shapes.json, through the benchmark's own code, and back; the methods do not run again."""
    file = bench_file(tmp_path / "invented.json", read_shapes(out / "gpu_shapes.json"), first_us=5.0, watts=300.0)
    before = comparison(out)
    assert main(arguments(tiny_model, text_file, out, "--gpu", str(file))) == 0
    captured = capfd.readouterr()
    assert captured.err.count("kept from an earlier run") == len(METHODS)
    check_columns(out)
    after = comparison(out)
    assert after["inputs"]["gpu"]["measurement"]["device"] == H100
    assert after["inputs"]["gpu"]["measurement"]["file"] == "invented.json"
    for old, new in zip(before["results"], after["results"], strict=True):
        assert {**old, "gpu": None} == {**new, "gpu": None}
        # This model's methods ask for nothing that the benchmark does not have.
        assert (new["gpu"]["source"], new["gpu"]["power_source"]) == ("measured", "measured")
        assert new["gpu"]["time_us"] >= 5.0 * new["gpu"]["calls"]
        assert new["gpu"]["energy_uj"] == pytest.approx(300.0 * new["gpu"]["time_us"])
    assert f"measured on {after['inputs']['gpu']['measurement']['date']}" in captured.out
    assert "lower bound" not in captured.out


def test_the_table_marks_bounds(tiny_model, text_file, out, tmp_path, capfd):
    file = bench_file(tmp_path / "other.json", [SelectShape(3, 50, 7)])
    for gpu, basis in (("titan-xp", "nothing measured"), (str(file), "measured on")):
        assert main(arguments(tiny_model, text_file, out, "--gpu", gpu)) == 0
        shown = capfd.readouterr().out
        for word in ("GPU us", "GPU energy uJ", "GPU source", "latency / GPU", "energy / GPU", "lower bound", basis):
            assert word in shown
        lines = [line for line in shown.splitlines() if line.startswith(METHODS) and "roofline" in line]
        assert len(lines) == len(METHODS)
        assert all("at most" in line for line in lines)


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        ("cray-1", ("--gpu", "unknown GPU", "'cray-1'", "h100-sxm", "make gpu-bench")),
        ("xeon-e5-2640-v4", ("unknown GPU", "h100-sxm")),
        ("absent.json", ("absent.json", "No such file")),
        ("absent.yaml", ("absent.yaml", "No such file")),
        ("broken", ("broken.json", "not a JSON file of make gpu-bench")),
        ("old", ("old.json", "schema_version", "allowed: 2")),
        ("empty", ("empty.json", "ceilings", "missing")),
    ],
)
def test_a_gpu_that_is_none_is_one_line_before_any_work(gpu, words, tiny_model, text_file, tmp_path, capfd):
    if gpu in ("broken", "old", "empty"):
        file = bench_file(tmp_path / f"{gpu}.json", [SelectShape(3, 50, 7)])
        if gpu == "broken":
            file.write_text(file.read_text()[:99])
        else:
            changed(file, lambda content: content.update(schema_version=1) if gpu == "old" else content.pop("ceilings"))
        gpu = str(file)
    out = tmp_path / "out"
    assert main(arguments(tiny_model, text_file, out, "--gpu", gpu)) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("topsieve: ")
    for word in words:
        assert word in line
    assert not out.exists()


def test_the_benchmark_refuses_shapes_that_are_none(tmp_path, capfd):
    assert bench(["--shapes", str(tmp_path / "absent.json")]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("gpu-bench: ")
    assert "absent.json" in line
