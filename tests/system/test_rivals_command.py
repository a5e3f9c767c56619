"""`topsieve rivals`: a table with errors, equal JSON for equal inputs, and one line where it cannot answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim.rival_cases import attention_trace
from topsieve.cli import main
from topsieve_sim.trace import save_trace


@pytest.fixture
def traced(tmp_path) -> Path:
    """A trace file with operands."""
    path = tmp_path / "trace.npz"
    save_trace(attention_trace(0, keys=16), path)
    return path


def test_table_shows_every_rival_with_its_error_and_basis(traced, capfd):
    assert main(["rivals", str(traced), "--accelerator", "spatten-eighth"]) == 0
    shown = capfd.readouterr().out
    for word in (
        "a3:search=0,margin_percent=0",
        "elsa",
        "sanger",
        "token_picker",
        "cycle-exact",
        "analytical bound",
        "%",
    ):
        assert word in shown


def test_json_is_equal_for_equal_inputs_and_written_whole(traced, tmp_path, capfd):
    line = [
        "rivals",
        str(traced),
        "--accelerator",
        "spatten-eighth",
        "--rivals",
        "a3:search=1,margin_percent=0,sanger",
        "--json",
    ]
    texts = []
    for _ in range(2):
        assert main([*line, "--out", str(tmp_path / "rivals.json")]) == 0
        texts.append(capfd.readouterr().out)
    assert texts[0] == texts[1] == (tmp_path / "rivals.json").read_text(encoding="utf-8")
    names = [row["machine"] for row in json.loads(texts[0])["rows"]]
    assert names == ["spatten-eighth", "a3:search=1,margin_percent=0", "sanger"]


def test_without_operands_the_default_leaves_out_what_cannot_be_known(tmp_path, capfd):
    path = tmp_path / "shapes.npz"
    save_trace(attention_trace(0, keys=16, operands=False), path)
    assert main(["rivals", str(path)]) == 0
    captured = capfd.readouterr()
    assert "left out, the trace holds no operands" in captured.err
    assert "systolic" in captured.out
    assert "sanger" not in captured.out
    assert main(["rivals", str(path), "--rivals", "sanger", "--drawn"]) == 0
    assert main(["rivals", str(path), "--rivals", "sanger"]) == 2
    assert "rival sanger: the cost of this rival depends on data" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ("needs an INPUT",)),
        (["absent.npz"], ("no such trace file", "'absent.npz'")),
        (["TRACE", "--rivals", "a4"], ("unknown rival", "'a4'", "mnnfast")),
        (["TRACE", "--rivals", "a3,a3"], ("given twice", "'a3'")),
        (["TRACE", "--rivals", ","], ("no rival given",)),
        (["TRACE", "--seed", "-1"], ("--seed", "at least 0")),
        (["TRACE", "--dense", "absent.csv"], ("absent.csv", "cannot read")),
        (["TRACE", "--out", "absent/rivals.json"], ("cannot write", "a folder that exists")),
    ],
)
def test_refusals_are_one_line(arguments, words, traced, capfd):
    assert main(["rivals", *(str(traced) if part == "TRACE" else part for part in arguments)]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("topsieve: ")]
    assert len(lines) == 1
    for word in words:
        assert word in lines[0]


def test_list_names_rivals_and_platforms(capfd):
    assert main(["rivals", "--list"]) == 0
    shown = capfd.readouterr().out
    assert "margin_percent" in shown
    assert "xeon-e5-2640-v4" in shown
