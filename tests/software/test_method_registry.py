"""Methods by name, from text and from other packages, without loading torch to list them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from topsieve.methods import build, describe, method_class, method_names, spell
from topsieve.methods.parameters import Parameter, spell_value
from topsieve.reduction import BitPlan, Method, ModelShape, Schedule
from topsieve_sim.errors import InputError

SHAPE = ModelShape("tiny", "bert", 2, 2, 2, 4, 8, 16)


def test_listing_loads_no_torch() -> None:
    program = (
        "import sys; from topsieve.methods import describe, method_names;"
        "assert [describe(name).summary for name in method_names()];"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("name", method_names())
def test_what_is_listed_is_what_is_built(name: str) -> None:
    info, cls = describe(name), method_class(name)
    method = build(name)
    assert isinstance(method, Method)
    assert method.name == name
    assert [parameter.name for parameter in info.parameters] == [field.name for field in dataclasses.fields(cls)]
    for parameter, field in zip(info.parameters, dataclasses.fields(cls), strict=True):
        assert parameter == Parameter(field.name, field.type, repr(field.default))
        assert parameter.name in info.description, "every parameter is explained"
    assert info.summary.endswith(".")
    assert len(info.summary) <= 100
    assert build(spell(method)) == method
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.name = "other"  # type: ignore[misc]
    for stage in method.stages(SHAPE):
        assert isinstance(stage.schedule, Schedule)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("spatten:value_keep=0.5", {"value_keep": 0.5}),
        ("spatten: keep=0.3 , schedule=stepwise,start_keep=none", {"keep": 0.3, "schedule": "stepwise"}),
        ("tome:r=8,proportional=false", {"r": 8, "proportional": False}),
        ("powerbert:counts=30/20/10", {"counts": (30, 20, 10)}),
        ("ltp:thresholds=0.001/0.01", {"thresholds": (0.001, 0.01)}),
        ("evit:keep_rate=0.7,layers=1/2,fuse_token=False", {"keep_rate": 0.7, "layers": (1, 2), "fuse_token": False}),
    ],
)
def test_parameters_from_text(text: str, values: dict[str, object]) -> None:
    method = build(text)
    assert method == dataclasses.replace(build(method.name), **values)  # type: ignore[type-var]
    assert build(spell(method)) == method


def test_keep_from_outside_gives_way_to_the_text() -> None:
    assert spell(build("random", keep=0.25)) == "random:keep=0.25"
    assert spell(build("random:keep=0.75", keep=0.25)) == "random:keep=0.75"
    assert not describe("dense").takes_keep
    with pytest.raises(InputError, match=r"dense: unknown parameter .*keep"):
        build("dense", keep=0.5)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("nothing", "unknown method .*'nothing'.*allowed: dense, random, uniform, pooling, spatten"),
        ("spatten:speed=1", "method spatten: unknown parameter .*'speed'.*allowed: keep, schedule"),
        ("spatten:keep", "allowed: parameter=value"),
        ("spatten:keep=0.5,keep=0.6", "keep: given twice"),
        ("spatten:schedule=curved", "schedule: .*allowed: linear, stepwise"),
        ("spatten:quantisation=8+", "quantisation: "),
        ("spatten:quantisation=0", "quantisation: "),
        ("spatten:value_keep=1.5", r"value_keep: .*\(0, 1\]"),
        ("spatten:query_bits=1", "query_bits: "),
        ("spatten:protect_first=-1", "protect_first: "),
        ("tome:r=much", "r: .*an integer"),
        ("tome:r=-1", "r: .*at least 0"),
        ("tome:inflect=2", "inflect: "),
        ("tome:protect_cls=maybe", "protect_cls: .*true or false"),
        ("tome:order=up", "order: .*ascending, paper"),
        ("powerbert:counts=5/0", "counts: "),
        ("ltp:final_token_threshold=-0.1", "final_token_threshold: "),
        ("ltp:thresholds=a", "thresholds: .*a number"),
        ("evit:keep_rate=0", "keep_rate: "),
        ("evit:layers=-2", "layers: "),
        ("random:seed=-1", "seed: "),
    ],
)
def test_a_wrong_text_is_one_line_that_says_what_is_allowed(text: str, line: str) -> None:
    with pytest.raises(InputError, match=line) as caught:
        build(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in method_names() if describe(name).takes_keep])
@pytest.mark.parametrize("keep", ["0", "-0.5", "1.01", "nan", "inf", "half"])
def test_keep_is_a_share(name: str, keep: str) -> None:
    with pytest.raises(InputError, match="keep: ") as caught:
        build(f"{name}:keep={keep}")
    assert caught.value.field == "keep"


def test_bit_plan_defaults_are_the_same_in_both_places() -> None:
    assert build("spatten:quantisation=8+4").attention(SHAPE, 0).bits == BitPlan()


def test_values_spell_themselves() -> None:
    assert [spell_value(value) for value in (None, True, 0.5, (1, 2), ())] == ["none", "true", "0.5", "1/2", ""]


def outside_package(folder: Path, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    """A package with one method, as another distribution would install it."""
    (folder / "half.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import ClassVar\n"
        "from topsieve.reduction import AttentionPolicy\n\n\n"
        "@dataclass(frozen=True)\n"
        "class Half:\n"
        '    """Half of the values."""\n\n'
        '    name: ClassVar[str] = "half"\n'
        "    share: float = 0.5\n\n"
        "    def stages(self, shape):\n"
        "        return ()\n\n"
        "    def attention(self, shape, layer):\n"
        "        return AttentionPolicy(value_keep=self.share)\n"
    )
    information = folder / "half-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: half\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[topsieve.methods]\n{entry}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "half", raising=False)


def test_other_packages_add_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside_package(tmp_path, monkeypatch, "half = half:Half")
    assert method_names()[-1] == "half"
    assert describe("half").summary == "Half of the values."
    assert describe("half").parameters == (Parameter("share", "float", "0.5"),)
    assert build("half:share=0.25").attention(SHAPE, 0).value_keep == 0.25


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ("spatten = half:Half", "two methods have this name"),
        ("half = nowhere:Half", "module not found"),
        ("half = half:Third", "class not found"),
    ],
)
def test_a_broken_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, line: str) -> None:
    outside_package(tmp_path, monkeypatch, entry)
    with pytest.raises(InputError, match=line):
        describe("half")


def test_a_package_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside_package(tmp_path, monkeypatch, "half = half:Half")
    (tmp_path / "half.py").write_text("import nowhere_to_be_found\n")
    with pytest.raises(InputError, match=r"method half: cannot be loaded: .*nowhere_to_be_found"):
        build("half")
