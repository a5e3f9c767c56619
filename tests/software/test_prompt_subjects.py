"""Prompt methods behind the models that comparisons run on: what stays of their answers, and who pays for the scorer."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
import torch

from topsieve.corpus import python_reference
from topsieve.fidelity import FidelityTest, embed
from topsieve.methods import build
from topsieve.pretrained import MINILM_SHA256, load_pretrained
from topsieve.prompt import charged, compress
from topsieve.prompt.classifier import CHECKPOINT, TRAINING, TRAINING_COMMAND
from topsieve.prompt.train import fitted, kept_words, training_paragraphs
from topsieve.reduction.roles import BitPlan
from topsieve.subjects import open_subject
from topsieve.subjects.byte_gpt.prompts import split
from topsieve.subjects.subject import Inputs
from topsieve_sim.arch import load_config
from topsieve_sim.engine import simulate

torch.set_num_threads(1)

PAGE = Path(__file__).parents[2] / "docs" / "text-methods.md"
BITS = BitPlan(12, 12, 0, 12, 0.0)
PARAGRAPHS = python_reference().paragraphs


def test_the_heads_name_how_they_came_to_be() -> None:
    facts = json.loads((CHECKPOINT / TRAINING).read_text(encoding="utf-8"))
    assert facts["command"] == TRAINING_COMMAND
    assert facts["encoder_sha256"] == MINILM_SHA256
    assert facts["keep"]["accuracy"]["test"] > facts["keep"]["positive_share"]["test"] + 0.1
    assert facts["judge"]["accuracy"]["test"] > 0.6
    page = PAGE.read_text(encoding="utf-8")
    assert f"{facts['keep']['accuracy']['test']:.0%}".replace("%", " %") in page
    assert f"{facts['judge']['accuracy']['test']:.0%}".replace("%", " %") in page
    assert not set(training_paragraphs()) & set(PARAGRAPHS)


def test_the_teacher_keeps_the_words_that_move_the_embedding_most() -> None:
    minilm = load_pretrained()
    words = ["Bananas", "and", "tractors", "and"]
    with torch.no_grad():
        assert kept_words(minilm, " ".join(words)) == [True, False, True, False]
    # A separable line: the fit finds its side everywhere.
    x = torch.linspace(-1, 1, 20).unsqueeze(1)
    weight, bias = fitted(x, (x[:, 0] > 0.3).float())
    assert ((x.double() @ weight + bias > 0) == (x[:, 0] > 0.3)).double().mean() >= 0.95


def test_llmlingua2_keeps_more_of_an_embedding_than_chance() -> None:
    """Of eight paragraphs, at as many words each, its words are nearer to the whole than words drawn at random."""
    minilm = load_pretrained()
    scorer = build("llmlingua-2").scorer()  # type: ignore[attr-defined]
    draw = random.Random(0)
    texts, chosen, drawn = PARAGRAPHS[::16], [], []
    for text in texts:
        short = compress("llmlingua-2:surface=source,keep=0.4", text, scorer=scorer)
        chosen.append(short.text)
        words = text.split()
        kept = sorted(draw.sample(range(len(words)), len(short.text.split())))
        drawn.append(" ".join(words[number] for number in kept))
    whole, ours, random_words = (embed(minilm, minilm.tokens(part), "dense").vectors for part in (texts, chosen, drawn))
    cosine = [float((part * whole).sum(-1).mean()) for part in (ours, random_words)]
    assert cosine[0] > cosine[1] + 0.05, cosine


def test_the_accelerator_is_charged_for_scorer_and_model() -> None:
    subject = open_subject("minilm", Inputs(paragraphs=6, sequences=2))
    subject.load()
    observed = subject.observe(build("llmlingua-2"), BITS)
    dense = subject.observe(build("dense"), BITS)
    facts = observed.more["prompt"]
    assert observed.trace.layers == 12
    assert {op.layer for op in observed.trace.ops} == set(range(12))
    model = sum(op.flops for op in observed.trace.ops if op.layer >= 6)
    assert observed.trace.flops == model + facts["scorer_flops"]
    assert model < dense.trace.flops < facts["scorer_flops"] + model
    assert 0.3 < facts["units_kept"] / facts["units"] < 0.5
    assert [len(layer) for layer in observed.survival] == [len(observed.words)] * 6
    assert observed.trace.has_attention_operands
    config = load_config("spatten-eighth")
    cycles = [simulate(trace, config, seed=0).cycles for trace in (observed.trace, dense.trace)]
    assert cycles[0] > cycles[1], "choosing with the model itself cannot pay for one reading"
    assert observed.trace.notes[-1].endswith("scorer, minilm")

    quality = subject.quality(build("llmlingua-2"))
    assert 0.5 < quality["cosine"] < 1
    assert quality["flops"] > quality["dense_flops"]
    whole = subject.quality(build("llmlingua-2", keep=1.0))
    assert whole["cosine"] == pytest.approx(1, abs=1e-6)
    assert (whole["recall"], whole["flops"]) == (1.0, whole["dense_flops"])


def test_byte_gpt_reads_what_is_left_and_the_question() -> None:
    subject = open_subject("byte-gpt", Inputs(paragraphs=5, sequences=2))
    subject.load()
    whole = subject.quality(build("selective-context", keep=1.0))
    assert whole["perplexity_ratio"] == pytest.approx(1, rel=1e-4)
    assert whole["cache_share"] == 1
    assert whole["recall_accuracy"] > 0.5
    half = subject.quality(build("selective-context:keep=0.5"))
    assert half["cache_share"] < 0.75
    assert half["recall_accuracy"] > 0.5, "notes are what a model cannot guess, so they stay"
    assert 0.8 < half["perplexity_ratio"] < 1.3, "far text says little about the next bytes"
    observed = subject.observe(build("selective-context:keep=0.5"), BITS)
    assert observed.trace.layers == 10
    assert {op.sequence for op in observed.trace.ops if op.layer >= 5} == {0, 1}
    assert min(op.sequence for op in observed.trace.ops if op.layer < 5) == 2
    assert simulate(observed.trace, load_config("spatten-eighth"), seed=0).cycles > 0
    assert all(0 < len(word) <= 16 for word in observed.words), "labels for plots"
    assert split(b"one two three four", tail=8) == (b"one two three", b" four")
    assert split(b"abcdefgh", tail=3) == (b"abcde", b"fgh")


def test_a_prompt_that_nothing_was_asked_of_costs_nothing() -> None:
    minilm = load_pretrained()
    test = FidelityTest(minilm, python_reference(4), queries=2)
    assert test.measure_prompts(build("frugalprompt", keep=1.0)).flops == test.measure("dense").flops  # type: ignore[arg-type]
    subject = open_subject("minilm", Inputs(paragraphs=4, sequences=1))
    subject.load()
    dense = subject.observe(build("dense"), BITS)
    short = compress("llmlingua-2", "Nothing.", keep=1.0)
    assert charged(dense.trace, [short], "llmlingua-2").ops == dense.trace.ops


def test_the_pages_code_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8").split("\n## ")[1], re.DOTALL):
        exec(block, {})
    assert "GFLOP for choosing" in capsys.readouterr().out
