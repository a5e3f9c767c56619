"""`topsieve doctor`: what is there, what is not, and the command that gets it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib

from system.command_line import ROOT, environment
from topsieve.cli import main
from topsieve.doctor import PROGRAMS, PURPOSES, examine


def test_looks_for_every_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {"base": project["dependencies"], **project["optional-dependencies"]}
    assert set(declared) == set(PURPOSES)
    found = {(finding.group, finding.name.lower()) for finding in examine()}
    for group, lines in declared.items():
        for line in lines:
            name = line.split(";")[0].split("[")[0].split(">")[0].split("=")[0].strip().lower()
            assert (group, name) in found


def test_everything_missing_comes_with_a_remedy():
    for finding in examine():
        assert finding.purpose
        assert finding.remedy or finding.name == "python"


def test_programs_are_where_it_says():
    places = {finding.name: finding.found for finding in examine() if finding.group == "program"}
    assert places == {name: shutil.which(name) for name in PROGRAMS}


def test_json_is_the_same_findings(capsys):
    assert main(["doctor", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in listed] == [finding.name for finding in examine()]


def test_a_bare_machine_is_told_what_to_do(tmp_path):
    """With an empty search path no program is found, and each line says how to get it."""
    ran = subprocess.run(
        [sys.executable, "-m", "topsieve.cli", "doctor"],
        env=environment(PATH=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0
    for name in ("iverilog", "g++", "make", "perl"):
        assert f"apt-get install {name}" in ran.stdout
