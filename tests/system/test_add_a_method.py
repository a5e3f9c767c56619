"""The page about adding a method: its code, installed as the page says, is found, keeps the laws and is compared."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import torch

from topsieve.cli import main
from topsieve.methods import build, method_names
from topsieve.reduction import ModelShape
from topsieve.reduction.deciding import decide
from topsieve.reduction.roles import Context, Signal

PAGE = Path(__file__).parents[2] / "docs" / "add-a-method.md"
LONGEST_METHOD = 40


def block(language: str) -> str:
    """The one code block of `language` on the page."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return found


def project(folder: Path) -> Path:
    """`folder` with the page's project, and with the metadata that pip would leave beside an installed one."""
    described = tomllib.loads(block("toml"))["project"]
    (folder / "pyproject.toml").write_text(block("toml"))
    (folder / "odd_ones.py").write_text(block("python"))
    information = folder / f"{described['name'].replace('-', '_')}-{described['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {described['name']}\nVersion: {described['version']}\n"
    )
    ((group, points),) = described["entry-points"].items()
    ((name, target),) = points.items()
    (information / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")
    return folder


@pytest.fixture
def installed(tmp_path, monkeypatch) -> str:
    """Name of the page's method, found in a folder on the path."""
    monkeypatch.syspath_prepend(project(tmp_path))
    ((name, _),) = tomllib.loads(block("toml"))["project"]["entry-points"]["topsieve.methods"].items()
    return name


def test_the_method_is_short():
    lines = [line for line in block("python").splitlines() if line.strip()]
    assert len(lines) <= LONGEST_METHOD


def test_the_method_is_found_and_compared(installed, tmp_path, capsys):
    assert installed in method_names()
    for command in block("sh").splitlines():
        words = shlex.split(command)
        assert words.pop(0) == "topsieve"
        if "--out" in words:
            words[words.index("--out") + 1] = str(tmp_path / "out")
        assert main(words) == 0
    shown = capsys.readouterr().out
    assert "Tokens whose keys are least like the average key stay." in shown
    results = json.loads((tmp_path / "out" / "comparison.json").read_text())["results"]
    by_name = {result["method"]: result for result in results}
    mine, uniform, dense = by_name[installed], by_name["uniform"], by_name["dense"]
    # Equal `keep` and schedule are equal tokens; what differs is the choice and its price.
    assert mine["tokens"]["attention"] == uniform["tokens"]["attention"]
    assert uniform["hardware"]["selection"]["cycles"] == 0
    assert 0 < mine["hardware"]["selection"]["cycles"] < mine["hardware"]["cycles"]
    assert mine["hardware"]["energy_pj"] < dense["hardware"]["energy_pj"]


def test_padding_does_not_change_the_choice(installed):
    """What the page promises of `context.valid`."""
    shape = ModelShape("tiny", "vit", 4, 2, 2, 4, 8, 16)
    method = build(installed, keep=0.5)
    (stage,) = method.stages(shape)
    step = stage.schedule.plan(shape)[-1]
    key = torch.randn(1, 2, 12, 4, generator=torch.Generator().manual_seed(5))

    def kept(tokens: int, padding: int) -> list[int]:
        valid = torch.arange(tokens + padding).unsqueeze(0) < tokens
        filled = key[:, :, : tokens + padding].clone()
        filled[:, :, tokens:] = 7.0
        context = Context(
            shape=shape,
            layer=step.layer,
            valid=valid,
            positions=torch.arange(tokens + padding).unsqueeze(0).where(valid, -1),
            size=valid.float(),
            initial=valid.sum(-1),
            signals={Signal.KEY: filled},
        )
        reduction = decide(stage, step, context).reduction
        return reduction.keep[reduction.valid].tolist()

    alone = kept(9, 0)
    assert alone == kept(9, 3)
    assert 0 in alone
    assert len(alone) == 4
