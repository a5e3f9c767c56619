"""`topsieve compare` from end to end on a small real model: files, numbers that agree, equal bytes, resuming."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path

import pytest
import yaml

from system.command_line import topsieve
from topsieve.cli import main
from topsieve.cli.commands.compare import print_tables
from topsieve.compare import Question, compare, method_folder, split_methods
from topsieve.corpus import read_corpus
from topsieve.methods import method_names
from topsieve.subjects.subject import Inputs
from topsieve_sim.arch import load_config
from topsieve_sim.errors import InputError
from topsieve_sim.report import load_report

METHODS = "dense,random,spatten:value_keep=0.5,quantisation=8+4,tome,evit:fuse_token=false"


def arguments(model: Path, text: Path, out: Path, *more: str) -> list[str]:
    return [
        "compare", "--model", str(model), "--text", str(text), "--accelerator", "tiny", "--set", "capacity=64",
        "--sequences", "3", "--out", str(out), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tiny_model, text_file, tmp_path_factory) -> Path:
    """Folder of one comparison, with traces."""
    out = tmp_path_factory.mktemp("compare") / "out"
    assert main(arguments(tiny_model, text_file, out, "--methods", METHODS, "--traces", "--json")) == 0
    return out


@pytest.fixture(scope="module")
def results(finished) -> list[dict]:
    return json.loads((finished / "comparison.json").read_text())["results"]


def test_methods_with_parameters_are_split_at_the_right_commas():
    assert split_methods(METHODS) == (
        "dense",
        "random",
        "spatten:value_keep=0.5,quantisation=8+4",
        "tome",
        "evit:fuse_token=false",
    )


def test_folder_is_complete(finished):
    assert load_config(finished / "accelerator.yaml") == load_config("tiny", ["capacity=64"])
    assert {path.name for path in finished.iterdir()} == {
        "accelerator.yaml", "comparison.json", "energy.csv", "gpu.csv", "gpu_shapes.json", "layers.csv", "methods", "plots",
        "summary.csv", "units.csv",
    }  # fmt: skip
    for method in split_methods(METHODS):
        folder = method_folder(finished, method)
        assert {path.name for path in folder.iterdir()} == {
            "report.json", "result.json", "timeline.perfetto-trace", "times.json", "trace.npz",
        }  # fmt: skip
        assert (finished / "plots" / f"survival-{folder.name}.png").read_bytes().startswith(b"\x89PNG")
    assert (finished / "plots" / "energy.png").exists()
    assert (finished / "plots" / "fidelity-cycles.png").exists()


def test_inputs_are_recorded(finished):
    facts = json.loads((finished / "comparison.json").read_text())["inputs"]
    assert facts["accelerator"] == yaml.safe_load((finished / "accelerator.yaml").read_text())
    assert facts["accelerator_digest"] == load_config("tiny", ["capacity=64"]).digest
    assert (facts["model"], facts["corpus"], facts["seed"], facts["keep"]) == ("tiny-bert", "six.txt", 0, 0.5)
    assert {"topsieve", "python", "numpy", "torch", "transformers"} <= set(facts["versions"])


def test_result_repeats_the_report(finished, results):
    for result in results:
        report = load_report(method_folder(finished, result["method"]) / "report.json")
        hardware = result["hardware"]
        assert hardware["cycles"] == report.cycles
        assert hardware["dram_bytes"] == report.dram_bytes_total
        assert hardware["energy_pj"] == report.energy_total_pj
        assert math.isclose(sum(hardware["energy_by_component_pj"].values()), hardware["energy_pj"], rel_tol=1e-9)
        for unit in hardware["units"]:
            assert unit["busy_cycles"] + sum(unit["stall_cycles"].values()) == hardware["cycles"]


def test_simulating_a_kept_trace_gives_the_same_report(finished, capsys):
    folder = method_folder(finished, "tome")
    assert (
        main(["simulate", str(folder / "trace.npz"), "--accelerator", str(finished / "accelerator.yaml"), "--json"])
        == 0
    )
    assert capsys.readouterr().out == (folder / "report.json").read_text()


def test_dense_is_the_full_model_and_others_keep_what_they_were_asked_to(results):
    by_name = {result["method"]: result for result in results}
    dense = by_name["dense"]
    assert dense["fidelity"]["cosine"] == pytest.approx(1, abs=1e-5)  # float32 rounding of a unit vector's square
    assert dense["fidelity"]["recall"] == 1
    assert len(set(dense["tokens"]["attention"])) == 1
    assert set("".join(dense["survival"]["layers"])) == {"A"}
    for name in set(by_name) - {"dense"}:
        result = by_name[name]
        attention = result["tokens"]["attention"]
        assert attention == sorted(attention, reverse=True)
        assert attention[-1] < attention[0]
        assert result["hardware"]["cycles"] < dense["hardware"]["cycles"]
        assert result["hardware"]["flops"] < dense["hardware"]["flops"]
        assert result["fidelity"]["cosine"] < 1


def test_survival_counts_agree_with_the_tokens(results):
    """A pruning method has one letter a survivor; merging leaves no token behind, dropping does."""
    for result in results:
        layers = result["survival"]["layers"]
        assert layers[0] == "A" * len(result["survival"]["words"])
        merges = result["method"] == "tome"
        assert ("S" in "".join(layers)) == merges
        assert ("." in "".join(layers)) == (not merges and result["method"] != "dense")


def test_survivors_are_the_tokens_that_enter_attention(tiny_model, text_file, tmp_path):
    """With one sequence, the letters of a layer count to what the hardware was given."""
    text = tmp_path / "one.txt"
    text.write_text(read_corpus(text_file).paragraphs[0])
    out = tmp_path / "out"
    assert main(arguments(tiny_model, text, out, "--methods", "spatten", "--json")) == 0
    (result,) = json.loads((out / "comparison.json").read_text())["results"]
    assert [layer.count("A") for layer in result["survival"]["layers"]] == result["tokens"]["attention"]


def test_csv_headers_carry_units_and_rows_agree(finished, results):
    with (finished / "summary.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["method"] for row in rows] == list(split_methods(METHODS))
    assert {"latency_us", "dram_bytes", "energy_pj", "power_w"} <= set(rows[0])
    for row, result in zip(rows, results, strict=True):
        assert int(row["cycles"]) == result["hardware"]["cycles"]
    with (finished / "units.csv").open() as stream:
        cycles: dict[tuple[str, str], int] = {}
        for row in csv.DictReader(stream):
            key = (row["method"], row["unit"])
            cycles[key] = cycles.get(key, 0) + int(row["cycles"])
    for result in results:
        assert {total for (method, _), total in cycles.items() if method == result["method"]} == {
            result["hardware"]["cycles"]
        }


def test_two_runs_are_equal_to_the_byte(finished, tiny_model, text_file, tmp_path):
    """In a process of its own, into another folder; only the times differ."""
    again = topsieve(*arguments(tiny_model, text_file, tmp_path / "out", "--methods", METHODS, "--traces", "--json"))
    assert again.returncode == 0, again.stderr
    assert again.stdout == (finished / "comparison.json").read_text()
    for path in sorted(finished.rglob("*")):
        if path.is_file() and path.name != "times.json":
            assert (tmp_path / "out" / path.relative_to(finished)).read_bytes() == path.read_bytes(), path


def test_a_rerun_takes_what_is_there_and_other_inputs_do_not(tiny_model, text_file, tmp_path, capfd):
    out = tmp_path / "out"
    assert main(arguments(tiny_model, text_file, out, "--methods", "dense", "--json")) == 0
    assert "kept from an earlier run" not in capfd.readouterr().err
    written = (method_folder(out, "dense") / "times.json").stat().st_mtime_ns
    assert main(arguments(tiny_model, text_file, out, "--methods", "dense,uniform", "--json")) == 0
    captured = capfd.readouterr()
    assert "dense: kept from an earlier run" in captured.err
    assert "uniform: kept" not in captured.err
    assert (method_folder(out, "dense") / "times.json").stat().st_mtime_ns == written
    assert [result["method"] for result in json.loads(captured.out)["results"]] == ["dense", "uniform"]
    for more in (["--seed", "1"], ["--set", "memory.latency_cycles=9"], ["--keep", "0.4"], ["--sequences", "2"]):
        assert main(arguments(tiny_model, text_file, out, "--methods", "dense", "--json", *more)) == 0
        assert "kept from an earlier run" not in capfd.readouterr().err


def test_all_methods_run_or_say_why_not(tiny_model, text_file, tmp_path, capsys):
    """On an encoder the methods of the cache are refused, each with its reason; a repeated run finds both kinds."""
    from topsieve.cache.roles import CacheOnly
    from topsieve.methods.registry import method_class

    methods = ("random", "all", "evit:fuse_token=false")
    question = Question(
        str(tiny_model), methods, 0.5, load_config("tiny", ["capacity=64"]), Inputs(read_corpus(text_file), sequences=1)
    )
    outcome = compare(question, tmp_path)
    ran = [result["method"] for result in outcome.results]
    assert ran[0] == "random"
    assert ran[-1] == "evit:fuse_token=false"
    assert sorted([*ran[:-1], *outcome.refused]) == sorted(method_names())
    for name in method_names():
        if issubclass(method_class(name), CacheOnly):
            assert f"{name} acts on the cache of decoders" in outcome.refused[name]
    assert all(reason and "\n" not in reason for reason in outcome.refused.values())
    for result in outcome.results:
        hardware = result["hardware"]
        assert 0 <= hardware["selection"]["cycles"] < hardware["cycles"]
        assert 0 <= hardware["selection"]["energy_pj"] < hardware["energy_pj"]
    costs = {result["method"]: result["hardware"]["selection"] for result in outcome.results}
    assert costs["dense"] == {"cycles": 0, "overlapped_cycles": 0, "dram_bytes": 0, "energy_pj": 0.0}
    assert costs["tome"]["cycles"] > costs["spatten"]["cycles"] > 0
    again = compare(question, tmp_path)
    assert set(again.reused) == {*ran, *outcome.refused}
    assert again.to_json() == outcome.to_json()
    print_tables(again)
    assert "h2o acts on the cache of decoders" in capsys.readouterr().out
    with pytest.raises(InputError, match="h2o acts on the cache"):
        compare(dataclasses.replace(question, methods=("h2o",), every=False), tmp_path)


def test_a_damaged_result_is_measured_again(tiny_model, text_file, tmp_path, capfd):
    out = tmp_path / "out"
    assert main(arguments(tiny_model, text_file, out, "--methods", "dense", "--json")) == 0
    first = (out / "comparison.json").read_bytes()
    file = method_folder(out, "dense") / "result.json"
    file.write_text(file.read_text()[:100])
    capfd.readouterr()
    assert main(arguments(tiny_model, text_file, out, "--methods", "dense", "--json")) == 0
    assert "kept from an earlier run" not in capfd.readouterr().err
    assert (out / "comparison.json").read_bytes() == first


def test_tables_show_every_method(tiny_model, text_file, finished, capsys):
    assert main(arguments(tiny_model, text_file, finished, "--methods", METHODS, "--traces")) == 0
    shown = capsys.readouterr().out
    for heading in ("cycles", "latency us", "DRAM", "operations", "energy", "cosine", "recall@3", "layer 3", "GPU us"):
        assert heading in shown
    for method in ("dense", "random", "tome"):
        assert sum(line.startswith(method) for line in shown.splitlines()) == 4
