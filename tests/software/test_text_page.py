"""The examples of `docs/text-methods.md` behind the chapter on prompts run and say what the page says of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

PAGE = (Path(__file__).parents[2] / "docs" / "text-methods.md").read_text(encoding="utf-8")
SAYS = {
    "Shorter sequences inside a model": r"\d+ of \d+ tokens",
    "In fine-tuning: LeMo": r"GFLOP with the backward pass",
    "Across prompts: Cache-Craft": r"queries a layer over 44 keys",
}


@pytest.mark.parametrize("chapter", SAYS)
def test_examples_run(chapter: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    (text,) = [part for part in PAGE.split("\n## ") if part.startswith(chapter)]
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, {})
    assert re.search(SAYS[chapter], capsys.readouterr().out)
