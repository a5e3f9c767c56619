"""`topsieve methods`: the registry on the terminal, without loading torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from topsieve.cli import main
from topsieve.methods import describe, method_names


def test_list_is_the_registry_in_order(capsys):
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(method_names())
    assert all(describe(line.split()[0]).summary in line for line in lines)


@pytest.mark.parametrize("name", method_names())
def test_description_names_every_parameter_and_its_default(name, capsys):
    assert main(["methods", name]) == 0
    text = capsys.readouterr().out
    for parameter in describe(name).parameters:
        assert f"  {parameter.name} = {parameter.default}" in text
    assert main(["methods", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == name


def test_unknown_method_is_one_line_with_the_known_ones(capsys):
    assert main(["methods", "spaten"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "'spaten'" in line
    assert "spatten" in line


@pytest.mark.parametrize("arguments", [["methods"], ["methods", "spatten"], ["config", "list"], ["doctor"]])
def test_light_commands_load_no_torch(arguments):
    code = (
        "import sys; from topsieve.cli import main; main(sys.argv[1:]); "
        "assert not {'torch', 'transformers', 'matplotlib', 'amaranth'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)
