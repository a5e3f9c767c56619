"""A LLaVA that generates under methods: what is decoded is what the reduced prompt says, in less memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import topsieve
from software.encoders import relative
from software.test_model_reduce import state_of
from software.vision_models import IMAGE, PAD, PATCHES, images, questions, tiny_llava
from topsieve_sim.errors import InputError
from topsieve_sim.trace.ops import QueryKey, Softmax

NEW = 4
LLAVA = {name: tiny_llava(name).double() for name in ("sdpa", "eager")}
# One a role; the others differ in what they do with scores, which no family of models changes.
CACHE_VARIANTS = ("h2o", "streaming-llm:sinks=2", "adakv:window=2,kernel=3", "quest:page_size=2,skip_layers=0",
                  "think:window=3", "kvmerger:threshold=0.2", "skipdecode:max_layers=4,min_layers=2,new_tokens=4")  # fmt: skip
# Within the language model, with and without merges, with positions kept and numbered anew.
INSIDE = ("fastv", "pyramiddrop", "dart", "sparsevlm", "pact:k=2,cutoff=0.6", "todre:threshold=1")
# In the tower, around the projector; counts that images share and counts that they do not.
EVERYWHERE = (
    *INSIDE,
    "dycoke:decode_layer=1",
    "evit",
    "ats",
    "flowcut",
    "visionzip",
    "prumerge",
    "divprune",
    "tokencorr:keep=none",
)
# The model runs in float64, but `generate` hands its logits over in float32.
FLOAT32 = 1e-6
# The eager code's softmax runs in float32, here through five layers whose attention is peaked.
BOUND = {"sdpa": FLOAT32, "eager": 1e-4}


def prompts(texts: tuple[int, ...] = (5, 3, 7)) -> dict[str, torch.Tensor]:
    """`questions`, padded on the left."""
    batch = questions(texts)
    rows = [row[mask.bool()] for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    width = max(len(row) for row in rows)
    ids = torch.stack([torch.nn.functional.pad(row, (width - len(row), 0), value=PAD) for row in rows])
    mask = torch.stack([torch.arange(width) >= width - len(row) for row in rows]).long()
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": batch["pixel_values"].double()}


def alone(batch: dict[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    live = batch["attention_mask"][row].bool()
    return {
        "input_ids": batch["input_ids"][row : row + 1, live],
        "attention_mask": batch["attention_mask"][row : row + 1, live],
        "pixel_values": batch["pixel_values"][row : row + 1],
    }


def generate(model: torch.nn.Module, batch: dict[str, torch.Tensor], tokens: int = NEW, **more: object) -> tuple:
    """Tokens int64 [B, tokens], and their logits float64 [B, tokens, V]."""
    settings = {"do_sample": False, "pad_token_id": PAD, "eos_token_id": None, "max_new_tokens": tokens} | more
    out = model.generate(**batch, **settings, output_logits=True, return_dict_in_generate=True)
    return out.sequences[:, batch["input_ids"].shape[1] :], torch.stack(out.logits, 1)


def entered(model: torch.nn.Module, method: str, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """float [N, C]: the rows of a prompt of one sequence that the language model is given under `method`."""
    seen: list[torch.Tensor] = []
    with torch.no_grad(), topsieve.reduce(model, method):
        hook = model.model.language_model.register_forward_pre_hook(
            lambda _, args, given: seen.append(given["inputs_embeds"][0]), with_kwargs=True
        )
        model(**batch)
        hook.remove()
    return seen[0]


def under(model: torch.nn.Module, method: str, batch: dict[str, torch.Tensor], **more: object) -> tuple:
    """As `generate`, and the reduction, the record and the bytes held."""
    with topsieve.reduce(model, method) as reduced:
        text, logits = generate(model, batch, **more)
        return text, logits, reduced, reduced.record, reduced.held_bytes


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", ["dense", "fastv:keep=1", "divprune:keep=1", "h2o:keep=1", "snapkv:keep=1"])
def test_keeping_all_is_generate_to_the_bit(method: str, attention: str) -> None:
    # The eager code of transformers turns a padded float64 batch into not-a-number by itself.
    model, batch = LLAVA[attention], prompts((5, 5, 5) if attention == "eager" else (5, 3, 7))
    wanted, logits = generate(model, batch)
    text, found, *_ = under(model, method, batch)
    assert text.equal(wanted)
    assert found.equal(logits)


@pytest.mark.parametrize("method", [*EVERYWHERE, "spatten:value_keep=0.6", *CACHE_VARIANTS])
def test_a_padded_batch_is_its_prompts_alone(method: str) -> None:
    model, batch = LLAVA["sdpa"], prompts()
    text, logits, *_ = under(model, method, batch)
    assert logits.isfinite().all()
    for row in range(len(text)):
        single, own, *_ = under(model, method, alone(batch, row))
        assert single[0].equal(text[row])
        assert relative(logits[row], own[0]) < FLOAT32


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", [*INSIDE, "divprune", "prumerge", "flowcut", "tome"])
def test_decoding_is_the_reduced_prompt_read_once_more_with_its_answer(method: str, attention: str) -> None:
    """What is left of the prompt goes with the answer through the language model at once, reduced as the record says."""
    model, batch = LLAVA[attention], alone(prompts(), 2)
    text, logits, reduced, record, _ = under(model, method, batch)
    assert len(reduced.positions[0]) < batch["input_ids"].shape[1]
    assert reduced.positions[0, -1] == batch["input_ids"].shape[1] - 1
    language = model.model.language_model
    with torch.no_grad():
        prompt, answer = entered(model, method, batch), model.get_input_embeddings()(text[0, :-1])
        ids = torch.arange(len(prompt))
        size = torch.ones(len(prompt), dtype=torch.float64)
        for layer, known in zip(language.layers, record.layers, strict=True):
            rows = torch.cat([prompt, answer])[None]
            place = torch.cat([ids, int(ids[-1]) + 1 + torch.arange(len(answer))])[None]
            bias = torch.cat([size, torch.ones(len(answer))]).log() * known.policy.size_bias
            later = torch.ones(rows.shape[1], rows.shape[1], dtype=torch.bool).triu(1)
            mask = bias.expand(later.shape).masked_fill(later, torch.finfo(torch.float64).min)
            turned = language.rotary_emb(rows, position_ids=place)
            rows = layer(rows, attention_mask=mask[None, None], position_ids=place, position_embeddings=turned)[0]
            prompt, answer = rows[: len(prompt)], rows[len(prompt) :]
            for decision in known.decisions:
                prompt = decision.reduction.apply(prompt[None])[0]
                ids = decision.reduction.gather(ids[None])[0]
                ids = torch.arange(len(ids)) if decision.stage.renumber else ids
                size = decision.reduction.size[0].double()
        wanted = model.lm_head(language.norm(torch.cat([prompt[-1:], answer])))
    assert relative(logits[0], wanted) < BOUND[attention]


@pytest.mark.parametrize("method", ["fastv", "pyramiddrop", "divprune", "pact:k=2,cutoff=0.6"])
def test_held_bytes_are_those_of_the_slots(method: str) -> None:
    model, batch = LLAVA["sdpa"], prompts()
    with topsieve.reduce(model, method) as reduced:
        generate(model, batch)
        record, held = reduced.record, reduced.held_bytes
        layers = reduced._whole.language.continuation._run.layers
        tensors = [x for layer in layers for x in (layer.keys, layer.values)]
    assert held == sum(x.untyped_storage().nbytes() for x in tensors), "nothing larger hides behind a view"
    # Keys and values of two heads of eight channels, float64; layers that saw padding keep it.
    slot = 2 * 2 * 8 * 8
    slots = [int((layer.attention_tokens if known.reduced else torch.tensor(layer.attention_padded * 3)).sum())
             for layer, known in zip(record.layers, layers, strict=True)]  # fmt: skip
    assert record.behind.held_bytes[0] == slot * sum(slots)
    assert held == record.behind.held_bytes[-1] == slot * (sum(slots) + len(slots) * 3 * (NEW - 1))
    dense = under(model, "dense", batch)[4]
    assert held < dense


def test_the_trace_goes_on_behind_the_prompt() -> None:
    model, batch = LLAVA["sdpa"], alone(prompts((4,)), 0)
    *_, record, _ = under(model, "pact:k=2,cutoff=0.6", batch)
    trace = topsieve.lower(record)
    tower, language = record.vision.tower.shape, record.shape
    first = tower.layers + tower.tail_layers
    tokens = [int(layer.attention_tokens) for layer in record.layers]
    assert tokens[2] < tokens[1]
    for step in range(1, NEW):
        groups = [op for op in trace.ops if op.step == step and isinstance(op, QueryKey)]
        assert [op.layer for op in groups] == list(range(first, first + language.layers))
        assert [(op.queries, op.keys) for op in groups] == [(1, n + step) for n in tokens]
        biased = [op.size_bias for op in trace.ops if op.step == step and isinstance(op, Softmax)]
        assert biased == [layer.policy.size_bias for layer in record.layers]
    assert len({op.step for op in trace.ops}) == NEW
    with pytest.raises(InputError, match="lowered live"):
        topsieve.lower(record, mode="padded")
    *_, record, _ = under(model, "h2o", batch)
    whole = topsieve.lower(record)
    prompt = [op for op in whole.ops if op.step == 0 and isinstance(op, QueryKey)]
    assert [op.keys for op in prompt] == [PATCHES + 1] * 3 + [3 + PATCHES + 4] * 5
    assert whole.layers == trace.layers


def test_beams_share_the_image() -> None:
    model, batch = LLAVA["sdpa"], prompts((5, 3))
    for method in ("fastv", "divprune", "tova"):
        with topsieve.reduce(model, method) as reduced:
            settings = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": PAD, "eos_token_id": None}
            beams = model.generate(**batch, **settings, num_beams=3)
            trace = topsieve.lower(reduced.record)
            one = model.generate(**alone(batch, 1), **settings, num_beams=3)
        assert beams[1, -3:].equal(one[0, -3:])
        tower = [op.sequence for op in trace.ops if isinstance(op, QueryKey) and op.layer == 0]
        assert tower == [0, 3]
        assert {op.sequence for op in trace.ops} == set(range(6))


@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("method", ["pyramiddrop", "divprune", "snapkv:window=3"])
def test_the_model_is_left_as_it_was(method: str, fail: bool) -> None:
    model, batch = LLAVA["sdpa"], prompts()
    before, state = generate(model, batch)[1], state_of(model)
    try:
        under(model, method, batch)
        with topsieve.reduce(model, method):
            generate(model, batch)
            if fail:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert fail
    assert state_of(model) == state
    assert generate(model, batch)[1].equal(before)


def test_a_cache_may_be_kept_by_hand_and_belongs_to_its_prompt() -> None:
    model, batch = LLAVA["sdpa"], alone(prompts(), 0)
    wanted = under(model, "fastv", batch)[1]
    with torch.no_grad(), topsieve.reduce(model, "fastv") as reduced:
        out = model(**batch, use_cache=True)
        token = out.logits[:, -1:].argmax(-1)
        assert relative(out.logits[:, -1], wanted[:, 0]) < FLOAT32
        assert (
            relative(model(input_ids=token, past_key_values=out.past_key_values).logits[:, -1], wanted[:, 1]) < FLOAT32
        )
        kept = reduced.record
        with pytest.raises(InputError, match="behind a prompt come input_ids and no image"):
            model(**batch, past_key_values=out.past_key_values)
        with pytest.raises(InputError, match="attention_mask: wrong shape"):
            model(input_ids=token, attention_mask=batch["attention_mask"], past_key_values=out.past_key_values)
        model(**batch)
        assert reduced.held_bytes == 0
        with pytest.raises(InputError, match="not filled under this reduction"):
            model(input_ids=token, past_key_values=out.past_key_values)
        with pytest.raises(InputError, match="both input_ids and pixel_values"):
            model(input_ids=token.clamp(min=IMAGE + 1))
        with pytest.raises(InputError, match="every sequence needs one image"):
            model.generate(**(batch | {"pixel_values": images(2).double()}), max_new_tokens=2)
    assert len(kept.behind.passes) == 2


def test_the_example_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "vision-methods.md").read_text(encoding="utf-8")
    (chapter,) = [part for part in page.split("\n## ") if part.startswith("Generating")]
    (block,) = re.findall(r"```python\n(.*?)```", chapter, re.DOTALL)
    exec(block, {})
    held = [int(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert len(held) == 2
    assert all(held)


@pytest.mark.parametrize("alike", [-1.0, 0.9, 1.0])
def test_dycoke_reads_what_one_layer_attends_to(alike: float) -> None:
    """Against the text, token by token, from the operands of the record; and the layers behind hide what was not chosen."""
    model, batch = LLAVA["sdpa"], alone(prompts(), 0)
    method = f"dycoke:decode_layer=1,decode_keep=0.4,alike={alike}"
    with topsieve.reduce(model, method, operands=True) as reduced:
        text, logits = generate(model, batch, 6)
        record, trace = reduced.record, topsieve.lower(reduced.record)
    image = [3 <= column < 3 + PATCHES for column in reduced.positions[0].tolist()]
    tokens, n = len(image), sum(image)
    count, stored, chosen, chosen_often = int(0.4 * n), None, None, 0
    hidden: list[list[int]] = []
    assert n < PATCHES
    for number, layers in enumerate(record.behind.passes[1:]):
        key, query = layers[1].key, layers[1].query
        share = [(query[r, g, 0] @ key[r].T / 8**0.5).softmax(-1)[:tokens] for r in range(2) for g in range(2)]
        now = torch.stack(share).mean(0)[torch.tensor(image)]
        if stored is None or torch.cosine_similarity(stored, now, dim=0) < alike:
            stored, chosen_often = now, chosen_often + 1
            chosen = sorted(sorted(range(n), key=lambda j: (-float(stored[j]), j))[:count])
        places = [j for j, is_image in enumerate(image) if is_image]
        seen = [not image[j] or j in {places[i] for i in chosen} for j in range(tokens)] + [True] * (number + 1)
        assert [int(layer.read[0, 0]) for layer in layers] == [len(seen)] * 2 + [sum(seen)] * 3
        hidden.append([place for place in range(tokens) if not seen[place]])
    assert chosen_often == {-1.0: 1, 1.0: 5}.get(alike, chosen_often)
    assert [op.keys for op in trace.ops if op.step == 1 and isinstance(op, QueryKey)][-1] == tokens - n + count + 1
    rows = torch.cat([entered(model, method, batch), model.get_input_embeddings()(text[0, :-1])])
    later = torch.ones(len(rows), len(rows), dtype=torch.bool).triu(1)
    language = model.model.language_model
    turned = language.rotary_emb(rows[None], position_ids=torch.arange(len(rows))[None])
    with torch.no_grad():
        rows = rows[None]
        for index, layer in enumerate(language.layers):
            mask = later.clone()
            for step, places in enumerate(hidden):
                mask[tokens + step, places] |= index > 1
            rows = layer(rows, attention_mask=~mask[None, None], position_embeddings=turned)
        wanted = model.lm_head(language.norm(rows[0, tokens - 1 :]))
    assert relative(logits[0], wanted) < FLOAT32
    with topsieve.reduce(model, method.replace("0.4", "1.0")) as plain:
        assert not generate(model, batch, 6)[1].equal(logits)
        assert plain.record.behind.policy.reader is None
