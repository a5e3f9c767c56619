"""Every command in the README and in docs is run: most here, the long ones in `make test-full`; none is forgotten."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from system.command_line import ROOT, environment
from system.documented_commands import (
    AFTER,
    ELSEWHERE,
    LONG_SECONDS,
    PAGES,
    RECIPES,
    TYPED,
    Command,
    Way,
    commands_of,
    documented,
    words_of,
)
from system.test_add_a_method import project
from topsieve.cli import main
from topsieve.cli.main import command_names

COMMANDS = documented()


def by(way: Way) -> list[Command]:
    return [command for command in COMMANDS if command.ways == (way,)]


SUITE = by(Way.SUITE)


def planned(line: str) -> str:
    """What make would do."""
    words = shlex.split(line)
    named = words.index("make")
    # MAKEFLAGS of a `make test` around this test would reach the inner make.
    clean = {key: value for key, value in os.environ.items() if key not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    given = dict(word.split("=", 1) for word in words[:named])
    ran = subprocess.run(
        ["make", "-n", *words[named + 1 :]],
        cwd=ROOT,
        env={**clean, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, (line, ran.stderr)
    return ran.stdout


def run_here(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`topsieve ...` in this process, in the current folder, as in a shell."""
    words, file = words_of(line)
    capsys.readouterr()
    try:
        code = main(words)
    except SystemExit as ended:  # --help
        code = ended.code
    shown = capsys.readouterr()
    assert code == 0, (line, shown.err)
    assert shown.out, line
    if file:
        Path(file).write_text(shown.out, encoding="utf-8")


def test_every_command_has_somebody_who_runs_it():
    wrong = {f"{command.page}: {command.text}": command.ways for command in COMMANDS if len(command.ways) != 1}
    assert not wrong
    # Nothing in the tables that no page has.
    texts = {command.text for command in COMMANDS}
    assert not {*LONG_SECONDS, *ELSEWHERE, *TYPED} - texts
    left = [line for command in COMMANDS for line in command.typed if re.search(r"\b(?<!-)[A-Z]{3,}\b(?!=)", line)]
    assert not left, "a word in capitals that nothing is typed for"


def test_commands_are_found_wherever_a_page_has_them():
    text = (
        "Say `topsieve doctor`, `topsieve compare` or `make\ntest`; `topsieve.lower` and `topsieve` are none.\n"
        "```sh\ntopsieve config list  # all\n```\n\n    topsieve verify --preset tiny   # jobs\n    not a command\n"
        "```python\nmake = topsieve\n```\n```yaml\nname: `make up`\n```\n"
    )
    found = commands_of("page", text)
    assert [command.text for command in found] == [
        "topsieve doctor",
        "topsieve compare",
        "make test",
        "topsieve config list",
        "topsieve verify --preset tiny",
    ]
    assert [command.block for command in found] == [False, False, False, True, True]
    assert found[1].typed == ("topsieve compare --help",)
    assert commands_of("page", "`python -m topsieve.unknown`")[0].ways == ()
    with pytest.raises(AssertionError, match="no known program"):
        commands_of("page", "```sh\nrm -rf results\n```\n")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page in {AFTER.get(each.page, each.page) for each in SUITE}]
)
def test_every_command_of_the_page_runs(page, tmp_path, monkeypatch, capsys):
    """In the order of the page, in one folder, because one may read what another wrote; then those of pages that go on."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("TOPSIEVE_DEBUG", raising=False)
    followers = [each for each in SUITE if AFTER.get(each.page) == page]
    for command in [*(each for each in SUITE if each.page == page), *followers]:
        for line in command.typed:
            run_here(line, capsys)


@pytest.mark.parametrize("command", by(Way.MAKE), ids=lambda command: command.text)
def test_every_make_target_exists(command):
    assert planned(command.text)


@pytest.mark.parametrize("command", by(Way.PART), ids=lambda command: command.text)
def test_every_part_of_the_tests_is_there(command):
    """Files as a shell expands them."""
    named = [word for word in command.text.split() if word.startswith("tests/")]
    assert named
    for word in named:
        listed = subprocess.run(["bash", "-c", f"ls -d {word}"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert listed.returncode == 0, (word, listed.stderr)


def test_what_the_targets_do_is_tested():
    """Each module and script that a documented target runs is named by a test, or runs in full."""
    recipes = {line for command in by(Way.MAKE) for line in planned(command.text).splitlines()}
    run = {found[1] for line in recipes if (found := re.search(r"bin/python (?:-m )?(\S+)", line))}
    full = {shlex.split(line)[-1 if "-m" not in line else 2] for line in (*LONG_SECONDS, *RECIPES) if "python" in line}
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert {"topsieve_sim.bench", "topsieve.leaderboard", "scripts/notebooks.py"} <= run
    assert not [name for name in run - full - {"pytest"} if Path(name).name not in tests and name not in tests]


@pytest.mark.parametrize(("command", "test"), ELSEWHERE.items())
def test_the_other_test_is_there(command, test):
    file, _, name = test.partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), command


def test_the_table_of_commands_has_them_all():
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"`([a-z]+)", row)}
    assert set(command_names()) <= named


@pytest.mark.full
@pytest.mark.parametrize(
    "line", [*(line for command in by(Way.FULL) for line in command.typed), *RECIPES], ids=lambda line: line
)
def test_long_command_runs(line, tmp_path):
    """In a folder with a copy of docs; what pip would install is already there, so it needs no index."""
    program, *words = shlex.split(line)
    folder, more = tmp_path, {}
    if program == "topsieve":
        shutil.copytree(ROOT / "docs", folder / "docs")
        argv = [sys.executable, "-m", "topsieve.cli", *words]
    elif program == "pip":
        folder = project(tmp_path) if words[-1] == "." else ROOT if words[-1].startswith(".") else folder
        argv = [sys.executable, "-m", "pip", *words, "--dry-run", "--no-index", "--no-build-isolation"]
    elif program == "pytest":
        folder, more = ROOT, {"PYTHONPATH": str(project(tmp_path))}
        argv = [sys.executable, "-m", "pytest", *words]
    else:
        assert program == "python"
        argv = [sys.executable, *(str(ROOT / word) if word.startswith("scripts/") else word for word in words)]
    ran = subprocess.run(argv, cwd=folder, env=environment(**more), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, (ran.stdout[-2000:], ran.stderr[-2000:])
    assert ran.stdout or program == "python"
