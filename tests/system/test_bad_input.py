"""Bad input: one clear line on stderr, exit code 2, nothing half-written. The real command line, the real parts."""

from __future__ import annotations

import gzip
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from topsieve.cli import main
from topsieve_sim.trace import Trace, save_trace
from topsieve_sim.trace.ops import ProbabilityValue, QueryKey, Softmax


@pytest.fixture
def refused(capfd):
    """Runs the command line and checks how it refuses; returns the line."""

    def run(*arguments: str | Path) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("topsieve: ")]
        assert len(lines) == 1
        assert "internal error" not in lines[0]
        return lines[0]

    return run


@pytest.fixture
def question(tiny_model, text_file, tmp_path) -> list[str]:
    """Arguments of a comparison that works."""
    return [
        "compare", "--model", str(tiny_model), "--methods", "dense,spatten", "--accelerator", "tiny",
        "--set", "capacity=64", "--text", str(text_file), "--out", str(tmp_path / "out"),
    ]  # fmt: skip


def changed(question: list[str], option: str, value: str) -> list[str]:
    """`question` with another value of `option`."""
    copy = list(question)
    copy[copy.index(option) + 1] = value
    return copy


def left_behind(tmp_path: Path) -> list[Path]:
    """Results and temporary files in the output folder."""
    return [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "accelerator.yaml"]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--model", "absent-folder", ("no such model directory", "'absent-folder'", "minilm")),
        ("--methods", "dense,spaten", ("unknown method", "'spaten'", "spatten")),
        ("--methods", "dense,dense", ("given twice", "'dense'")),
        ("--methods", ",", ("no method given", "spatten")),
        ("--methods", "dense,spatten:value_keep=2", ("spatten", "value_keep", "(0, 1]")),
        ("--methods", "dense,spatten:colour=2", ("spatten", "unknown parameter", "'colour'", "value_keep")),
        ("--accelerator", "spaten", ("unknown accelerator", "'spaten'", "spatten")),
        ("--accelerator", "absent.yaml", ("absent.yaml", "cannot read", "No such file")),
        ("--set", "capacity=ten", ("capacity", "'ten'", ">= 2")),
        ("--text", "absent.txt", ("absent.txt", "No such file")),
    ],
)
def test_wrong_value_is_named_with_what_is_allowed(option, value, words, question, refused, tmp_path):
    line = refused(*changed(question, option, value))
    for word in words:
        assert word in line
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("keep", ["0", "-0.5", "1.01", "nan", "inf", "half"])
def test_keep_outside_its_range(keep, question, refused, tmp_path):
    line = refused(*question, f"--keep={keep}")
    assert "keep" in line
    assert keep in line
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("option", ["--sequences", "--paragraphs"])
def test_counts_start_at_one(option, question, refused):
    if option == "--paragraphs":
        question = [part for part in question if part not in ("--text", question[question.index("--text") + 1])]
    assert "at least 1" in refused(*question, option, "0")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("holds no text",)),
        (b" \n\n \t\n", ("holds no text",)),
        (b"\xff\xfe broken", ("not UTF-8",)),
        (("the object " * 64).encode(), ("paragraph 1", "tokens", "at most 64 tokens")),
    ],
)
def test_unusable_text(content, words, question, refused, tmp_path):
    file = tmp_path / "given.txt"
    file.write_bytes(content)
    line = refused(*changed(question, "--text", str(file)))
    for word in ("given.txt", *words):
        assert word in line
    assert left_behind(tmp_path) == []


def test_text_is_a_folder(question, refused, tmp_path):
    assert "directory" in refused(*changed(question, "--text", str(tmp_path)))


def test_sequence_longer_than_the_accelerators_capacity(question, refused, tmp_path):
    line = refused(*changed(question, "--set", "capacity=8"))
    for word in ("tokens", "tiny", "at most 8", "--set capacity="):
        assert word in line
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors", "everything"])
def test_damaged_model_directory(broken, question, refused, tiny_model, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    if broken != "everything":
        for path in tiny_model.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        (folder / broken).write_bytes((folder / broken).read_bytes()[:40])
    line = refused(*changed(question, "--model", str(folder)))
    assert str(folder) in line
    assert left_behind(tmp_path) == []


def test_output_folder_is_a_file(question, refused, tmp_path):
    (tmp_path / "taken").write_text("mine")
    assert "not a folder" in refused(*changed(question, "--out", str(tmp_path / "taken")))
    assert (tmp_path / "taken").read_text() == "mine"


def test_missing_and_unknown_arguments(refused):
    assert "--methods" in refused("compare", "--out", "x")
    assert "'comparee'" in refused("comparee")
    assert "--colour" in refused("methods", "--colour")
    assert "INPUT" in refused("simulate")


def small_trace(path: Path) -> Path:
    """A trace of one attention group with operands."""
    shape = {"layer": 0, "heads": 2}
    ops = (
        QueryKey(**shape, kv_heads=2, queries=4, keys=4, head_dim=8),
        Softmax(**shape, rows=4, cols=4),
        ProbabilityValue(**shape, kv_heads=2, queries=4, keys=4, kept=4, head_dim=8),
    )
    drawn = np.random.default_rng(0).standard_normal((3, 2, 4, 8), dtype=np.float32)
    operands = {(0, "query"): drawn[0], (0, "key"): drawn[1], (2, "value"): drawn[2]}
    save_trace(Trace(ops, operands, model="toy", method="dense", layers=1, heads=2), path)
    return path


def test_a_whole_trace_file_runs(tmp_path, capsys):
    """The damaged ones below differ from it in the damage only."""
    assert main(["simulate", str(small_trace(tmp_path / "whole.npz")), "--accelerator", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cycles"] > 0


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_trace_file(share, refused, tmp_path):
    whole = small_trace(tmp_path / "whole.npz").read_bytes()
    cut = tmp_path / "cut.npz"
    cut.write_bytes(whole[: int(len(whole) * share)])
    line = refused("simulate", cut, "--accelerator", "tiny", "--out", tmp_path / "out")
    assert "cut.npz" in line
    assert left_behind(tmp_path) == []


def test_trace_file_with_flipped_bytes(refused, tmp_path):
    whole = bytearray(small_trace(tmp_path / "whole.npz").read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 64] = bytes(64)
    (tmp_path / "flipped.npz").write_bytes(whole)
    assert "flipped.npz" in refused("simulate", tmp_path / "flipped.npz", "--accelerator", "tiny")


def test_trace_that_does_not_fit_the_machine(refused, tmp_path):
    line = refused("simulate", small_trace(tmp_path / "whole.npz"), "--accelerator", "tiny", "--set", "max_head_dim=4")
    assert "head_dim" in line


def test_no_such_trace(refused):
    line = refused("simulate", "gpt3-large")
    assert "'gpt3-large'" in line
    assert "gpt2-small-wikitext2-pruned" in line


@pytest.fixture
def workload_lines() -> list[str]:
    """Header and first rows of a published workload."""
    packed = files("topsieve_sim.trace") / "data" / "gpt2-small-wikitext2-pruned.csv.gz"
    return gzip.decompress(packed.read_bytes()).decode().splitlines()[:20]


def test_csv_without_a_column(workload_lines, refused, tmp_path):
    file = tmp_path / "workload.csv"
    file.write_text("\n".join(line.replace("key_fetch_num", "keys") for line in workload_lines))
    line = refused("simulate", file)
    assert "workload.csv" in line
    assert "key_fetch_num: column is missing" in line


def test_csv_with_a_value_that_is_no_number(workload_lines, refused, tmp_path):
    column = workload_lines[0].split(",").index("key_fetch_num")
    cells = workload_lines[3].split(",")
    cells[column] = "many"
    file = tmp_path / "workload.csv"
    file.write_text("\n".join([*workload_lines[:3], ",".join(cells), *workload_lines[4:]]))
    line = refused("simulate", file)
    for word in ("workload.csv", "row 3", "key_fetch_num", "'many'"):
        assert word in line
