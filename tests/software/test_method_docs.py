"""The pages `docs/methods.md` and `docs/reduction.md` speak of what exists, and their code runs."""

from __future__ import annotations

import inspect
import re
import sys
import types
from pathlib import Path

import pytest

from topsieve.methods import build, method_names
from topsieve.reduction import Method, ModelShape, Reduction, Stage, reducers, schedules, scorers, selectors

DOCS = Path(__file__).parents[2] / "docs"
METHODS = (DOCS / "methods.md").read_text(encoding="utf-8")
REDUCTION = (DOCS / "reduction.md").read_text(encoding="utf-8")


def test_every_method_has_its_row_and_no_other() -> None:
    rows = [line.split("|")[1].strip(" `") for line in METHODS.splitlines() if line.startswith("| `")]
    assert set(method_names()) <= set(rows)
    others = set(rows) - set(method_names())
    spatten = {field for row in others for field in re.split(r"[`, ]+", row)}
    assert spatten <= set(type(build("spatten")).__dataclass_fields__)


@pytest.mark.parametrize("text", sorted(set(re.findall(r"`([a-z]+:[a-z_]+=[a-z0-9+][a-z0-9.+]*)`", METHODS))))
def test_examples_build(text: str) -> None:
    assert build(text).name == text.partition(":")[0]


def test_every_role_and_member_is_named() -> None:
    for package in (schedules, scorers, selectors, reducers):
        for name in package.__all__:
            assert f"`{name}`" in REDUCTION
    members = {name for name in vars(Reduction) if not name.startswith("_")} | set(Reduction.__dataclass_fields__)
    for name in members - {"map", "identity"}:
        assert re.search(rf"`{name}[`(]", REDUCTION), name


def test_the_example_method_works() -> None:
    blocks = re.findall(r"```python\n(.*?)```", REDUCTION, re.DOTALL)
    names: dict[str, object] = {"__name__": "example"}
    # A dataclass looks up the module it was written in.
    sys.modules["example"] = types.ModuleType("example")
    try:
        for block in blocks:
            exec(block, names)
    finally:
        del sys.modules["example"]
    method = names["ClassRamp"]
    assert inspect.isclass(method)
    made = method()
    assert isinstance(made, Method)
    (stage,) = made.stages(ModelShape("tiny", "bert", 2, 2, 2, 4, 8, 16))
    assert isinstance(stage, Stage)
