"""What holds for every method that shortens prompts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import topsieve
from software.tiny_text import TEXT, scorer_of, tiny
from topsieve.corpus import sentences
from topsieve.methods import build, describe, method_names
from topsieve.prompt import Compressed, Prompt, compress
from topsieve.prompt.roles import PromptMethod
from topsieve_sim.errors import InputError
from topsieve_sim.trace.ops import QueryKey, Threshold, TopK

torch.set_num_threads(1)

METHODS = tuple(name for name in method_names() if describe(name).acts_on == ("prompt",))
TAKES_KEEP = tuple(name for name in METHODS if describe(name).takes_keep)
VARIANTS = (
    *METHODS,
    "llmlingua-2:surface=source",
    "llmlingua-2:variant=paper",
    "frugalprompt:attribution=globenc",
    "frugalprompt:variant=paper",
    "selective-context:unit=sentence",
    "selective-context:unit=token",
    "exit:joint=documents",
)
WITH_KEEP = tuple(name for name in VARIANTS if name.partition(":")[0] in TAKES_KEEP)
WORDS = st.sampled_from(["the", "Block", "ends.", "exceptions", "x=1", "Why?", "unbelievable", "(a,", "b)", "3.14"])
TEXTS = st.lists(WORDS, max_size=12).map(" ".join)
BOUNDED = settings(max_examples=5, deadline=None)


def shortened(name: str, text: str | Prompt, keep: float | None = None) -> Compressed:
    return compress(build(name, keep=keep), text, scorer=scorer_of(name))


def test_every_prompt_method_is_here() -> None:
    assert set(METHODS) == {"llmlingua-2", "frugalprompt", "exit", "selective-context"}
    assert all(isinstance(build(name), PromptMethod) for name in METHODS)


@pytest.mark.parametrize("name", WITH_KEEP)
def test_keeping_everything_is_the_text_and_runs_nothing(name: str) -> None:
    whole = shortened(name, TEXT, keep=1.0)
    assert whole.text == TEXT
    assert whole.work is None
    assert whole.kept == tuple(range(len(whole.units)))


@pytest.mark.parametrize("name", VARIANTS)
@given(text=TEXTS, second=TEXTS)
@BOUNDED
def test_what_is_left_is_some_of_the_units_in_order(name: str, text: str, second: str) -> None:
    short = shortened(name, Prompt((text, second), "when does a block end?"))
    reduction = short.reduction
    assert reduction.axis == "phrase"
    assert reduction.is_prune()
    assert reduction.n_in == len(short.units)
    assert list(short.kept) == sorted(set(short.kept))
    assert reduction.positions.equal(reduction.keep)
    assert (short.work is None) == (not short.units)
    letters = "".join(short.text.lower().split())
    place = 0
    for number in short.kept:
        unit = "".join(short.units[number].lower().split())
        place = letters.index(unit, place) + len(unit)
    assert place == len(letters), "nothing else is in the text"


@pytest.mark.parametrize("name", WITH_KEEP)
@given(text=TEXTS, keeps=st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95)).map(sorted))
@BOUNDED
def test_a_larger_share_keeps_what_a_smaller_one_keeps(name: str, text: str, keeps: list[float]) -> None:
    smaller, larger = (shortened(name, text, keep=round(keep, 2)) for keep in keeps)
    assert set(smaller.kept) <= set(larger.kept)


@pytest.mark.parametrize("name", VARIANTS)
def test_prompts_do_not_know_of_each_other(name: str) -> None:
    first = shortened(name, TEXT)
    shortened(name, "Another text. It is in between.")
    again = shortened(name, TEXT)
    assert (first.text, first.units, first.kept) == (again.text, again.units, again.kept)
    assert first.reduction.scores.equal(again.reduction.scores)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_scorer_and_the_decision_are_in_the_work(name: str) -> None:
    scorer = scorer_of(name)
    short = compress(build(name), Prompt((TEXT,), "what is closed?"), scorer=scorer, operands=True)
    assert short.work is not None
    asked = [op for op in short.work.ops if isinstance(op, QueryKey)]
    passes = 1 + max(op.sequence for op in short.work.ops)
    assert len(asked) == passes * short.work.layers
    wanted = {"llmlingua-2": 2, "exit": 1 + len(sentences(TEXT))}.get(name.partition(":")[0], len(sentences(TEXT)))
    assert passes == wanted, "one pass a chunk, a sentence, or a sentence and the question"
    assert short.work.has_attention_operands
    selections = [(index, op) for index, op in enumerate(short.work.ops) if isinstance(op, TopK | Threshold)]
    assert selections
    for index, op in selections:
        if isinstance(op, TopK):
            assert short.work.operand(index, "scores") is not None
    if "paper" not in name and not name.startswith("frugalprompt"):
        assert sum(op.kept for _, op in selections if isinstance(op, Threshold)) == len(short.kept)


def test_a_prompt_method_is_refused_inside_a_model() -> None:
    with pytest.raises(InputError, match=r"llmlingua-2.*topsieve\.prompt\.compress"):
        topsieve.reduce(tiny().model, "llmlingua-2")
    with pytest.raises(InputError, match="does not shorten prompts"):
        compress("spatten", TEXT)
    with pytest.raises(InputError, match="holds no context"):
        compress("exit", Prompt(()))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("llmlingua-2:target_tokens=-2", "target_tokens"),
        ("llmlingua-2:context_rate=-0.1", "context_rate"),
        ("llmlingua-2:surface=words", "surface"),
        ("frugalprompt:attribution=gradient", "attribution"),
        ("exit:threshold=1.5", "threshold"),
        ("selective-context:unit=word", "unit"),
    ],
)
def test_a_wrong_parameter_is_named(text: str, field: str) -> None:
    with pytest.raises(InputError, match=f"{field}: "):
        build(text)
