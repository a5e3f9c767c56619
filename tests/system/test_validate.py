"""`topsieve validate`."""

from __future__ import annotations

import json

import pytest

from system.command_line import assert_refused, topsieve
from topsieve.cli import main
from topsieve_sim.validation import Workbench, document, gpt2, selection


@pytest.fixture
def few_sections(monkeypatch):
    """Two short sections of the real ones."""
    sections = (selection.SECTIONS[0], selection.SECTIONS[1])
    monkeypatch.setattr(document, "SECTIONS", sections)
    return sections


def test_the_page_is_written(few_sections, tmp_path, capsys):
    """The whole page, committed, is compared in `tests/sim/test_validation_rows.py`."""
    page = tmp_path / "validation.md"
    assert main(["validate", "--out", str(page)]) == 0
    assert f"written to {page}" in capsys.readouterr().out
    assert page.read_text(encoding="utf-8") == document.markdown(document.validate(Workbench("spatten")))


def test_without_options_a_table_is_printed(few_sections, capsys):
    assert main(["validate"]) == 0
    text = capsys.readouterr().out
    for section in few_sections:
        assert section.title in text
        assert all(check.name in text for check in section.checks)
    assert text.splitlines()[-1].startswith("0 equal, ")


def test_reasons_are_those_of_the_published_machine(few_sections, capsys):
    assert main(["validate", "--json"]) == 0
    published = json.loads(capsys.readouterr().out)
    assert main(["validate", "--json", "--set", "topk.seed=1"]) == 0
    other = json.loads(capsys.readouterr().out)
    reasons = [
        {row["reason"] for section in data["sections"] for row in section["rows"]} for data in (published, other)
    ]
    assert len(reasons[0]) > 1
    assert reasons[1] == {""}


def test_json_is_printed_or_written(few_sections, capsys, tmp_path):
    assert main(["validate", "--json"]) == 0
    printed = capsys.readouterr().out
    assert [section["title"] for section in json.loads(printed)["sections"]] == [each.title for each in few_sections]
    assert main(["validate", "--json", "--out", str(tmp_path / "rows.json")]) == 0
    assert (tmp_path / "rows.json").read_text() == printed


def test_an_exact_row_that_differs_is_exit_code_one(monkeypatch, capsys):
    """Without progressive quantisation no row is computed twice, and every LSB plane is fetched."""
    monkeypatch.setattr(document, "SECTIONS", (gpt2.SECTIONS[0],))
    assert main(["validate", "--set", "progressive.enabled=false"]) == 1
    errors = capsys.readouterr().err
    assert "not exact: small, pruned: rows that need LSBs: published 323, ours 0" in errors
    assert "not exact: small, pruned: K and V: published 82.4" in errors


def test_bad_input_is_one_line(tmp_path):
    assert_refused(topsieve("validate", "--accelerator", "abacus"), "'abacus'", "spatten")
    assert_refused(topsieve("validate", "--out", tmp_path / "none" / "page.md"), "cannot write", "a folder that exists")
    assert_refused(topsieve("validate", "--out", tmp_path), "cannot write", str(tmp_path))


def test_a_machine_too_small_is_one_line():
    assert_refused(topsieve("validate", "--set", "capacity=512"), "out of range", "512")
