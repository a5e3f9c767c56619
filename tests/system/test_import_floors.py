"""The house stands on its floors: imports point down only, and the command line starts light."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from system.command_line import ROOT, command, environment

PACKAGES = {
    "topsieve": ROOT / "software" / "topsieve",
    "topsieve_rtl": ROOT / "rtl" / "topsieve_rtl",
    "topsieve_sim": ROOT / "sim" / "topsieve_sim",
    "topsieve_kernels": ROOT / "kernels" / "topsieve_kernels",
}
# What a package may import of the other three.
ALLOWED_BELOW = {
    "topsieve": ("topsieve_rtl", "topsieve_sim", "topsieve_kernels"),
    "topsieve_rtl": ("topsieve_sim",),
    "topsieve_sim": (),
    "topsieve_kernels": (),
}
# What the floors under the software may import from outside; the software may import anything.
ALLOWED_OUTSIDE = {
    "topsieve_sim": {"numpy", "numba", "llvmlite", "pydantic", "pydantic_core", "yaml"},
    "topsieve_kernels": {"torch", "triton", "numpy"},
}
FORBIDDEN_OUTSIDE = {"topsieve_rtl": {"torch", "transformers", "triton"}}
HEAVY = ("torch", "numba", "matplotlib", "amaranth", "transformers", "numpy", "pydantic")
START_LIMIT_S = 0.3


def modules(package: str) -> Iterator[tuple[str, Path]]:
    """Dotted name and file of every module of `package`."""
    folder = PACKAGES[package]
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder.parent).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


def imported(name: str, path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything `path` imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; say the whole name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_down(package):
    wrong = []
    for name, path in modules(package):
        for line, target in imported(name, path):
            root = target.split(".")[0]
            if root in PACKAGES and root != package and root not in ALLOWED_BELOW[package]:
                wrong.append(f"{path}:{line}: {name} imports {target}")
            elif root not in PACKAGES and root not in sys.stdlib_module_names:
                outside = ALLOWED_OUTSIDE.get(package)
                if (outside is not None and root not in outside) or root in FORBIDDEN_OUTSIDE.get(package, ()):
                    wrong.append(f"{path}:{line}: {name} imports {target}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_cycles_at_load_time(package):
    """Module-level imports inside a package form no cycle (a package's own `__init__` collects its parts)."""
    names = dict(modules(package))
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        if path.name == "__init__.py":
            continue
        targets = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    target = full if full in names else node.module
                    if target in names and names[target].name != "__init__.py":
                        targets.add(target)
        graph[name] = targets
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "import cycle: " + " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in graph[name]:
                walk(target, (*trail, name))
            done.add(name)

    for name in graph:
        walk(name, ())


@pytest.mark.parametrize("start", [["-c", "import topsieve"], ["-m", "topsieve.cli", "--help"]])
def test_start_loads_nothing_heavy(start):
    code = subprocess.run(
        [sys.executable, "-X", "importtime", *start], capture_output=True, text=True, env=environment(), check=True
    )
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in code.stderr.splitlines()}
    assert "topsieve" in loaded
    assert not loaded & set(HEAVY)


def test_help_answers_at_once():
    """Processor time, best of five: other processes share the machine."""
    best = min(_seconds(command("--help")) for _ in range(5))
    assert best < START_LIMIT_S


def _seconds(argv: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, capture_output=True, env=environment(), check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
