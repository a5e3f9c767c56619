"""byte-gpt: the checkpoint is what it says, reads unseen text and recalls, and methods differ on it as they should."""

from __future__ import annotations

import json
import random
import re
import sys
import types
from pathlib import Path

import pytest
import torch

from topsieve.corpus import Corpus
from topsieve.methods import build
from topsieve.reduction.roles import BitPlan
from topsieve.subjects import open_subject, subject_names
from topsieve.subjects.byte_gpt import text
from topsieve.subjects.byte_gpt.model import CHECKPOINT, TRAINING, TRAINING_COMMAND, load_byte_gpt
from topsieve.subjects.byte_gpt.subject import DECODED, PROMPT, ByteGpt
from topsieve.subjects.byte_gpt.train import batch, start
from topsieve.subjects.subject import Inputs
from topsieve_sim.errors import InputError

# Two threads on tensors this small only wait for each other.
torch.set_num_threads(1)

PAGE = Path(__file__).parents[2] / "docs" / "cache-methods.md"


@pytest.fixture(scope="module")
def subject() -> ByteGpt:
    found = open_subject("byte-gpt", Inputs(paragraphs=16, sequences=1))
    assert isinstance(found, ByteGpt)
    found.load()
    return found


@pytest.fixture(scope="module")
def measured(subject):
    names = ("dense", "random:keep=0.5", "snapkv:keep=0.5", "quest:keep=0.5")
    return {name.partition(":")[0]: subject.quality(build(name)) for name in names}


def test_the_checkpoint_names_how_it_came_to_be():
    facts = json.loads((CHECKPOINT / TRAINING).read_text(encoding="utf-8"))
    model = load_byte_gpt()
    assert facts["command"] == TRAINING_COMMAND
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    assert 1_000_000 < facts["parameters"] < 2_000_000
    assert facts["cpu_seconds"] < 900
    assert facts["log"][-1]["answers_right"] > 0.9


def test_held_out_text_is_not_trained_on():
    trained, unseen = (text.reference(held_out=held_out) for held_out in (False, True))
    assert len(unseen) > 20_000
    windows = [unseen[start : start + 80] for start in range(0, len(unseen) - 80, 400)]
    assert not any(window in trained for window in windows)
    for reserved in (text.NOTE, text.QUESTION):
        assert reserved not in trained + unseen


def test_recall_sequences_are_answerable():
    draw = random.Random(0)
    for filler in (0.0, 5.0):
        content, answers = text.recall_training(draw, 200, filler)
        assert len(content) == 200
        for place in answers:
            asked = content[place - 2 : place]
            assert asked[:1] == text.QUESTION
            note = content.rindex(text.NOTE + asked[1:], 0, place)
            assert content[note + 2] == content[place]
    question = text.recall_question(draw, text.reference(held_out=True), 100, 4)
    assert len(question.context) == 100
    note = question.context.index(text.NOTE + question.context[-1:])
    assert question.context[note + 2] == question.answer


def test_training_starts_at_recall_and_draws_what_it_says():
    torch.manual_seed(0)
    from transformers import GPT2LMHeadModel

    from topsieve.subjects.byte_gpt.model import configuration

    model = GPT2LMHeadModel(configuration()).eval()
    with torch.no_grad():
        start(model)
    tokens, weight = batch(random.Random(0), 8, 128, 0.0)
    assert tokens.shape == weight.shape == (8, 128)
    assert (weight[0::2] > 1).any()
    assert (weight[1::2] == 1).all()
    with torch.no_grad():
        guess = model(input_ids=tokens).logits[:, :-1].argmax(-1)
    asked = weight[:, 1:] > 1
    assert float((guess == tokens[:, 1:])[asked].double().mean()) > 0.5


def test_the_full_model_reads_and_recalls(measured):
    dense = measured["dense"]
    assert dense["perplexity"] < 8
    assert dense["recall_accuracy"] >= 0.75
    assert dense["perplexity_ratio"] == dense["cache_share"] == 1


def test_methods_separate(measured):
    """Half of the cache costs recall, whichever half; reading half of it does not. Attention chooses better than chance."""
    dense = measured["dense"]
    for name in ("random", "snapkv"):
        assert measured[name]["cache_share"] == 0.5
        assert measured[name]["recall_accuracy"] < dense["recall_accuracy"] - 0.2
    assert measured["quest"]["cache_share"] == 1
    assert measured["quest"]["recall_accuracy"] > dense["recall_accuracy"] - 0.1
    assert measured["snapkv"]["perplexity_ratio"] < measured["random"]["perplexity_ratio"]
    # Nothing beats the whole cache by more than the scatter of 16 x 64 bytes.
    assert min(result["perplexity_ratio"] for result in measured.values()) > 0.97


def test_an_observation_is_ready_for_the_accelerator(subject):
    observed = subject.observe(build("h2o:keep=0.5"), BitPlan(12, 12, 0, 12, 0.0))
    assert observed.trace.model == "byte-gpt"
    assert {op.step for op in observed.trace.ops} == set(range(DECODED + 1))
    assert len(observed.words) == PROMPT == len(observed.survival[0])
    assert observed.tokens["attention"] == [PROMPT // 2 + 1] * 5
    assert observed.more["cache"]["held_bytes_after_prompt"] * 2 == 2 * 5 * 128 * 4 * PROMPT
    assert subject.longest == PROMPT + DECODED
    assert "." in observed.survival[1]


def test_facts_and_errors():
    assert "byte-gpt" in subject_names()
    facts = open_subject("byte-gpt", Inputs(paragraphs=3)).facts()
    assert (facts["model"], facts["paragraphs"]) == ("byte-gpt", 3)
    other = open_subject("byte-gpt", Inputs(corpus=Corpus("mine", ("word " * 100,)))).facts()
    assert other["corpus"] == "mine"
    assert other["corpus_digest"] != facts["corpus_digest"]
    with pytest.raises(InputError, match="mine: too short"):
        open_subject("byte-gpt", Inputs(corpus=Corpus("mine", ("few words",))))
    with pytest.raises(InputError, match=r"no such model.*minilm.*byte-gpt"):
        open_subject("nothing-here", Inputs())
    with pytest.raises(InputError, match="cannot load"):
        load_byte_gpt(Path("nowhere"))


def test_the_pages_code_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {"__name__": "page"}
    sys.modules["page"] = types.ModuleType("page")
    try:
        for block in blocks:
            exec(block, names)
        method = names["SmallKeys"]()
        with names["topsieve"].reduce(names["model"], method) as r:
            names["model"](input_ids=names["prompt"])
        assert r.record.held_bytes[0] == 2 * 5 * 128 * 4 * (names["prompt"].shape[1] // 2)
    finally:
        del sys.modules["page"]
    assert "h2o" in capsys.readouterr().out
