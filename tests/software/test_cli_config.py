"""`topsieve config`: presets and files, resolved, checked and described."""

from __future__ import annotations

import json

import jsonschema
import pytest
import yaml

from topsieve.cli import main
from topsieve_sim.arch import load_config, preset_names
from topsieve_sim.trace import save_trace
from topsieve_sim.validation.workloads import Encoder, bert_trace


def test_list_names_every_preset(capsys):
    assert main(["config", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_show_is_complete_and_reads_back_equal(name, capsys, tmp_path):
    assert main(["config", "show", name]) == 0
    file = tmp_path / "machine.yaml"
    file.write_text(capsys.readouterr().out)
    assert load_config(file) == load_config(name)


def test_schema_accepts_the_shown_and_refuses_a_wrong_field(capsys):
    assert main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert main(["config", "show", "tiny"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    jsonschema.validate(shown, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**shown, "capacity": 0}, schema)


def test_overrides_reach_the_field(capsys):
    assert main(["config", "show", "tiny", "--set", "memory.latency_cycles=7", "--set", "capacity=16"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["memory"]["latency_cycles"], shown["capacity"]) == (7, 16)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("capacity: [", ("line 1", "not valid YAML")),
        ("- 1", ("mapping of fields",)),
        ("name: 7", ("name", "valid string", "7")),
        ("{}", ("required field is missing",)),
    ],
)
def test_check_says_what_is_wrong_in_one_line(text, words, tmp_path, capsys):
    file = tmp_path / "machine.yaml"
    file.write_text(text)
    assert main(["config", "check", str(file)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for word in (str(file), *words):
        assert word in line


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("topk.parallelism=x", ("topk.parallelism", "'x'", ">= 1")),
        ("topk.paralelism=4", ("topk.paralelism", "unknown field", "parallelism")),
        ("topk", ("malformed override", "field.path=value")),
        ("memory.channels=0", ("memory.channels", ">= 1")),
    ],
)
def test_wrong_overrides_name_field_value_and_allowed(override, words, capsys):
    assert main(["config", "show", "tiny", "--set", override]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for word in words:
        assert word in line


def test_energy_tables_are_printed_and_taken_back(capsys, tmp_path):
    assert main(["config", "energy", "spatten"]) == 0
    file = tmp_path / "own.yaml"
    file.write_text(capsys.readouterr().out)
    assert main(["config", "energy", "spatten", "--set", f"technology={file}"]) == 0
    assert capsys.readouterr().out == file.read_text()


def test_the_tables_of_a_run_are_a_technology(capsys, tmp_path):
    trace = tmp_path / "trace.npz"
    save_trace(bert_trace(Encoder(1, 2), 16), trace)
    assert main(["simulate", str(trace), "--out", str(tmp_path / "run"), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(["simulate", str(trace), "--set", f"technology={tmp_path / 'run'}", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["energy_pj"] == first["energy_pj"]
    assert again["area_um2"] == first["area_um2"]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("technology=3nm", ("technology", "3nm", "40nm")),
        ("memory.dram.preset=hbm9", ("memory.dram.preset", "hbm9", "hbm2")),
        ("memory.channels=3", ("memory.channels", "3", "power of two")),
    ],
)
def test_check_opens_what_the_configuration_names(override, words, capsys):
    assert main(["config", "check", "spatten", "--set", "memory.model=dram", "--set", override]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    for word in words:
        assert word in line
