"""Workloads of transforms: their traces are what lowering makes, run on the simulator, and stand in the documented table."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from topsieve.cli import main
from topsieve.lowering import lower
from topsieve.methods import build as build_method
from topsieve.subjects.decoding import decode
from topsieve.transforms import build, describe, transform_names
from topsieve.transforms.decoder import byte_decoder, prompts
from topsieve.transforms.table import END, START, markdown, measure, replace_table, row_names
from topsieve.transforms.workload import WIDTHS, Pass, Workload, exact_topk, generation
from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate
from topsieve_sim.errors import InputError
from topsieve_sim.trace import load_trace, save_trace

PAGE = Path(__file__).parents[2] / "docs" / "transforms.md"

SMALL = {
    "token-recycling": "sequences=1,prompt=32,new_tokens=6",
    "copyspec": "window=2,sequences=1,prompt=64,new_tokens=8",
    "eqspec": "batch=2,requests=2,prompt=24,new_tokens=4",
    "r2r": "training_steps=1,training_batch=1,hidden=8,sequences=1,prompt=32,new_tokens=4",
    "simpletool": "heads=3,most=3,sequences=2,prompt=64",
    "simultaneous": "most=4,sequences=1,source=64,reads=3",
    "uscd": "sequences=2,prompt=64",
    "byte-probabilities": "merges=16,sequences=1,length=24",
    "consistency": "merges=16,trials=4,tokens=8,sequences=2,length=64",
    "rainbow": "room=80,steps=8",
}
SLOW = {
    "dupmae": "texts=6,words=8,training=true,sequences=2",
    "ner-adapters": "steps=1,batch=1,rank=4,sequences=2",
    "tokenadapt": "merges=200,paragraphs=2,sequences=2",
}


def test_every_transform_is_tried():
    assert set(SMALL) | set(SLOW) == set(transform_names())
    assert len(transform_names()) == 13


def test_listing_transforms_loads_no_torch():
    code = (
        "import sys; from topsieve.transforms import describe, transform_names; "
        "list(map(describe, transform_names())); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_plain_decoding_is_what_lowering_makes_of_it():
    """The same operations, one by one, as the trace of a real run of the model without a method."""
    decoder = byte_decoder()
    (prompt,) = prompts(1, 20, 0)
    ran = decode(decoder.model, build_method("dense"), torch.tensor([prompt[:16]]), torch.tensor([prompt[16:]]))
    wanted = lower(ran.record, bits=WIDTHS)
    assert Workload(generation(decoder.shape, 17, 4), "dense").trace().ops == wanted.ops


def run_small(name: str, settings: str, folder: Path) -> None:
    transform = build(f"{name}:{settings}")
    outcome = transform.run()
    assert outcome.effect == " ".join(outcome.effect.split())
    assert all(math.isfinite(value) for value in outcome.facts.values())
    for workload in (outcome.plain, outcome.changed):
        trace = workload.trace()
        save_trace(trace, folder / "trace.npz")
        assert load_trace(folder / "trace.npz").ops == trace.ops
        report = simulate(trace, load_config("spatten"))
        assert report.query_rows == sum(item.queries * item.shape.heads * item.shape.layers for item in workload.passes)
        assert report.cycles > 0


@pytest.mark.parametrize("name", SMALL)
def test_transforms_run_and_their_traces_simulate(name, tmp_path):
    run_small(name, SMALL[name], tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("name", SLOW)
def test_slow_transforms_run_and_their_traces_simulate(name, tmp_path):
    run_small(name, SLOW[name], tmp_path)


def test_equal_parameters_give_equal_runs():
    first, second = (build(f"copyspec:{SMALL['copyspec']}").run() for _ in range(2))
    assert first == second
    assert build("copyspec:seed=3") == replace(build("copyspec"), seed=3)


def test_layers_of_a_second_model_come_behind_the_first():
    large = byte_decoder().shape
    small = byte_decoder().shallow(2).shape
    work = Workload((Pass(shape=large, queries=2, keys=5), Pass(shape=small, queries=1, keys=4, step=1)), "two")
    trace = work.trace()
    assert trace.layers == large.layers + 2
    assert [group.query_key.layer for group in trace.attention_groups()] == list(range(7))
    assert [group.query_key.causal for group in trace.attention_groups()] == [True] * 5 + [False] * 2


def test_selection_in_blocks():
    assert [(op.n, op.k, op.repeats) for op in exact_topk(30522, 128)] == [
        (1024, 128, 30), (1024, 128, 4), (512, 128, 1),
    ]  # fmt: skip
    assert [(op.n, op.k, op.repeats) for op in exact_topk(200, 256, repeats=3)] == [(200, 200, 3)]


def test_command_lists_describes_and_writes_traces(tmp_path, capsys):
    assert main(["transforms", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(transform_names())
    assert main(["transforms", "list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(transform_names())
    assert main(["transforms", "show", "eqspec"]) == 0
    assert "draft_layers = 3" in capsys.readouterr().out
    out = tmp_path / "copy.npz"
    assert main(["transforms", "trace", f"copyspec:{SMALL['copyspec']}", "--out", str(out)]) == 0
    assert main(["simulate", str(out)]) == 0
    assert "(copyspec) on spatten" in capsys.readouterr().out
    assert main(["transforms", "trace", f"copyspec:{SMALL['copyspec']}", "--plain", "--out", str(out)]) == 0
    assert load_trace(out).method == "greedy"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "copyspex"), ("unknown transform", "'copyspex'", "copyspec")),
        (("trace", "copyspec:colour=1", "--out", "a.npz"), ("transform copyspec", "unknown parameter", "window")),
        (("trace", "copyspec:window=0", "--out", "a.npz"), ("window", "got 0", "at least 1")),
        (("trace", "uscd:prompt=900", "--out", "a.npz"), ("transform uscd", "prompt", "positions")),
        (("trace", "copyspec", "--out", "absent/a.npz"), ("absent/a.npz", "folder that exists")),
        (("trace", "copyspec", "--out", "a.csv"), ("a.csv", ".npz")),
        (("table", "--only", "nothing"), ("unknown transform", "'nothing'")),
        (("table", "--only", " "), ("no transform given", "copyspec")),
        (("table", "--accelerator", "spaten"), ("unknown accelerator", "spatten")),
        (("table", "--out", "absent.md"), ("absent.md", "no such page")),
    ],
)
def test_bad_input_is_one_line(arguments, words, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["transforms", *arguments]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "internal error" not in line
    for word in words:
        assert word in line
    assert list(tmp_path.iterdir()) == []


def test_table_goes_between_its_marks(tmp_path):
    row = measure(f"copyspec:{SMALL['copyspec']}", load_config("spatten"))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    replace_table(page, markdown([row], "spatten"))
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert row.effect in text
    again = replace(row, effect="measured again")
    more = replace(row, name="copyspec:window=9")
    other = replace(row, name="uscd")
    replace_table(page, markdown([row, other], "spatten"))
    replace_table(page, markdown([more, again], "spatten"), rows_only=True)
    whole = page.read_text()
    assert re.findall(r"^\| `([^`]*)` \|", whole, re.MULTILINE) == [row.name, more.name, "uscd"]
    assert whole.count("measured again") == 1
    assert markdown([again, more, other], "spatten").strip() in whole
    with pytest.raises(InputError, match="another form or machine"):
        replace_table(page, markdown([row], "tiny"), rows_only=True)
    page.write_text("no marks")
    with pytest.raises(InputError, match="no place for the table"):
        replace_table(page, "table")


def test_page_has_a_row_for_every_transform():
    table = PAGE.read_text(encoding="utf-8").split(START)[1].split(END)[0]
    rows = re.findall(r"^\| `([^`]*)` \|", table, re.MULTILINE)
    assert rows == list(row_names())
    assert [name for name in rows if ":" not in name] == list(transform_names())
    assert all(build(name).name == name.partition(":")[0] for name in rows)
    for name in transform_names():
        info = describe(name)
        assert info.summary.endswith(".")
        assert "specification `methods-text`, section" in info.description
        # Every parameter is described.
        for parameter in info.parameters:
            assert re.search(rf"\b{parameter.name}\b", info.description), (name, parameter.name)


@pytest.mark.full
def test_page_is_what_the_command_writes():
    """Row by row. What is trained in a run depends on the machine's arithmetic in the last digits, so it is left out."""
    table = PAGE.read_text(encoding="utf-8").split(START)[1].split(END)[0]
    for line in re.findall(r"^\| `.*$", table, re.MULTILINE):
        name = line.split("`")[1]
        if name.partition(":")[0] not in ("r2r", "ner-adapters"):
            assert line in markdown([measure(name, load_config("spatten"))], "spatten")
