"""Token merging for code: the units of a text, both operators against plain loops, and MiniLM on real code."""

from __future__ import annotations

import inspect
import math
import re
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import topsieve
from software.encoders import ragged_batch, relative, tiny_encoder
from software.toy_encoder import SHAPE
from topsieve.code_units import Lexeme, batch_units, code_units, merged_graph_mask, python_lexemes, spread_back
from topsieve.lowering import lower
from topsieve.methods import build
from topsieve.models import mean_pool
from topsieve.pretrained import load_pretrained
from topsieve.reduction import Budget, Context, Decision, Signal, Site, Step, decide
from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate
from topsieve_sim.errors import InputError
from topsieve_sim.trace.ops import Gather, Merge, Norm, Projection

CODE = "def getName(user_id):\n    return 'a b' + user_id\n"


def spans(*pieces: str) -> list[tuple[int, int]]:
    """Where `pieces` stand in `CODE`, in order; an empty one is a special token."""
    found, at = [], 0
    for piece in pieces:
        start = CODE.index(piece, at)
        found.append((start, start + len(piece)) if piece else (0, 0))
        at = start + len(piece)
    return found


def test_tokens_of_one_identifier_are_one_unit():
    tokens = (
        "",
        "def",
        " get",
        "Name",
        "(",
        "user",
        "_",
        "id",
        "):",
        "return",
        "'",
        "a",
        " b",
        "'",
        "+",
        " user",
        "_id",
        "",
    )
    assert code_units(CODE, spans(*tokens)) == [0, 1, 2, 2, 3, 4, 4, 4, 5, 6, 7, 8, 9, 10, 11, 12, 12, 13]
    assert code_units(CODE, spans(*tokens), everything=True) == [0, 1, 2, 2, 3, 4, 4, 4, 5, 6, 7, 7, 7, 7, 8, 9, 9, 10]
    with pytest.raises(InputError, match="not Python"):
        code_units("'''never closed", [(0, 1)])
    marked = code_units("a->b1 b1", [(0, 1), (1, 3), (3, 4), (4, 5), (5, 7), (7, 8)], lexer=c_names)
    assert marked == [0, 1, 2, 2, 3, 3]


def c_names(code: str) -> list[Lexeme]:
    return [Lexeme(*found.span(), True) for found in re.finditer(r"[A-Za-z_]\w*", code)]


def test_lexemes_are_where_they_stand():
    for lexeme, word in zip(
        python_lexemes(CODE),
        ["def", "getName", "(", "user_id", ")", ":", "return", "'a_b'", "+", "user_id"],
        strict=True,
    ):
        assert CODE[lexeme.start : lexeme.stop] == word.replace("a_b", "a b")
        assert lexeme.identifier == word.replace("_", "").isalpha() * (word not in ("def", "return"))


def random_units(random: np.random.Generator, tokens: int) -> np.ndarray:
    return np.cumsum(random.random(tokens) < 0.5)


def step(method: str, hidden: torch.Tensor, units: torch.Tensor, valid: torch.Tensor) -> Decision:
    (stage,) = build(method).stages(SHAPE)
    place = torch.arange(valid.shape[1]).expand(valid.shape).masked_fill(~valid, -1)
    signals = {Signal.HIDDEN: hidden, Signal.UNIT: units}
    seen = Context(SHAPE, 2, valid, place, valid.to(hidden.dtype), valid.sum(-1), signals)
    return decide(stage, Step(Site.LAYER, 2, Budget(ratio=1)), seen)


@pytest.mark.parametrize("form", ["mean", "linear", "tanh"])
@given(lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3), seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_units_become_their_weighted_average(form, lengths, seed, tmp_path_factory):
    random = np.random.default_rng(seed)
    hidden = torch.from_numpy(random.standard_normal((len(lengths), max(lengths), SHAPE.width)))
    valid = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    units = torch.stack([torch.from_numpy(random_units(random, max(lengths))) for _ in lengths])
    method, maps = "code-merging", {}
    if form != "mean":
        inner = 5 if form == "tanh" else SHAPE.width
        maps = {"vector": torch.from_numpy(random.standard_normal(inner))}
        if form == "tanh":
            maps |= {
                "matrix": torch.from_numpy(random.standard_normal((inner, SHAPE.width))),
                "bias": torch.from_numpy(random.standard_normal(inner)),
            }
        path = tmp_path_factory.mktemp("weights") / "units.safetensors"
        save_file(maps, path)
        method = f"code-merging:operator=learned,weights={path}"
    reduction = step(method, hidden, units, valid).reduction
    merged = reduction.apply(hidden)
    for row, length in enumerate(lengths):
        groups: dict[int, list[int]] = {}
        for token in range(length):
            groups.setdefault(int(units[row, token]), []).append(token)
        assert int(reduction.valid[row].sum()) == len(groups)
        for slot, members in enumerate(groups.values()):
            weight = [math.exp(score(hidden[row, token].numpy(), maps)) for token in members]
            wanted = sum(w * hidden[row, token].numpy() for w, token in zip(weight, members, strict=True)) / sum(weight)
            assert np.linalg.norm(merged[row, slot].numpy() - wanted) <= 1e-12 * np.linalg.norm(wanted)
            assert int(reduction.keep[row, slot]) == members[0]
            assert int(reduction.size[row, slot]) == len(members)


def score(x: np.ndarray, maps: dict[str, torch.Tensor]) -> float:
    if not maps:
        return 0.0
    if "matrix" in maps:
        x = np.tanh(maps["matrix"].numpy() @ x + maps["bias"].numpy())
    return float(maps["vector"].numpy() @ x)


def test_learned_weights_start_as_the_mean_and_no_units_merge_nothing():
    model, batch = tiny_encoder(), ragged_batch((12, 7))
    units = (torch.arange(12) // 3).expand(2, 12)
    with torch.no_grad():
        whole = model(**batch).last_hidden_state
        with topsieve.reduce(model, "code-merging"):
            live = batch["attention_mask"].bool()
            assert model(**batch).last_hidden_state[live].equal(whole[live])
        outputs = []
        for operator in ("mean", "learned"):
            with topsieve.reduce(model, f"code-merging:layer=2,operator={operator}", units=units) as r:
                outputs.append(model(**batch).last_hidden_state)
                assert r.valid.sum(-1).tolist() == [4, 3]
                assert r.size.tolist() == [[3, 3, 3, 3], [3, 3, 1, 0]]
                assert r.positions.tolist() == [[0, 3, 6, 9], [0, 3, 6, -1]]
    assert relative(outputs[1], outputs[0]) < 1e-6


def test_what_does_not_fit_is_refused(tmp_path):
    model, batch = tiny_encoder(), ragged_batch((6,))
    short = topsieve.reduce(model, "code-merging", units=torch.zeros(1, 5, dtype=torch.int64))
    with short, pytest.raises(InputError, match="units"):
        model(**batch)
    with pytest.raises(InputError, match="operator"):
        build("code-merging:weights=some")
    path = tmp_path / "odd.safetensors"
    save_file({"vector": torch.zeros(3)}, path)
    units = torch.zeros(1, 6, dtype=torch.int64)
    odd = topsieve.reduce(model, f"code-merging:operator=learned,weights={path}", units=units)
    with odd, pytest.raises(InputError, match="vector"):
        model(**batch)


def test_masks_and_outputs_of_units():
    units = torch.tensor([0, 0, 1, 2, 2])
    mask = torch.zeros(5, 5, dtype=torch.bool)
    mask[1, 3] = mask[2, 2] = True
    assert merged_graph_mask(mask, units).tolist() == [[False, False, True], [False, True, False], [False] * 3]
    rows = torch.arange(6.0).reshape(3, 2)
    assert spread_back(rows, units).tolist() == [[0, 1], [0, 1], [2, 3], [4, 5], [4, 5]]


def test_minilm_on_real_code():
    """Functions of the standard library: merging late moves the embedding less than merging early, and costs more."""
    minilm = load_pretrained()
    codes = [inspect.getsource(function) for function in (textwrap.indent, textwrap.shorten, inspect.cleandoc)]
    codes = [textwrap.dedent(code.replace(function_doc(code), "")) for code in codes]
    batch = minilm.batch(minilm.tokens(codes))
    units = batch_units(codes, minilm.tokenizer)
    merged, flops = {}, {}
    with torch.no_grad():
        for method in (
            "dense",
            "code-merging:layer=1",
            "code-merging:layer=5",
            "code-merging:layer=5,operator=learned",
        ):
            with topsieve.reduce(minilm.model, method, units=units) as r:
                hidden = minilm.model(**batch).last_hidden_state
                merged[method] = torch.nn.functional.normalize(mean_pool(hidden, r.valid, r.size), dim=-1)
                trace = lower(r.record)
                flops[method] = trace.flops
    cosine = {method: float((x * merged["dense"]).sum(-1).mean()) for method, x in merged.items()}
    assert cosine["code-merging:layer=1"] < cosine["code-merging:layer=5"] < 1
    assert flops["code-merging:layer=1"] < flops["code-merging:layer=5"] < flops["dense"]
    tokens = int(batch["attention_mask"].sum())
    left = int(units.max(-1).values.sum()) + len(codes)
    here = [op for op in trace.ops if op.layer == 4]
    assert sum(op.rows for op in here if isinstance(op, Gather)) == left
    assert sum(op.sources for op in here if isinstance(op, Merge)) == tokens - left
    assert sum(op.tokens for op in here if isinstance(op, Projection) and op.outputs == 1) == tokens
    assert sum(op.width for op in here if isinstance(op, Norm)) == tokens
    assert simulate(trace, load_config("spatten")).cycles > 0


def function_doc(code: str) -> str:
    start = code.index('"""')
    return code[start : code.index('"""', start + 3) + 3]
