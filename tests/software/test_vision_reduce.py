"""Image encoders and a LLaVA under every method made for images: the laws that hold for all of them."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, LlavaForConditionalGeneration, ViTForImageClassification

import topsieve
from software.encoders import relative
from software.test_model_reduce import state_of
from software.vision_models import (
    IMAGE,
    PATCHES,
    VISION_METHODS,
    images,
    questions,
    single,
    tiny_clip,
    tiny_llava,
    tiny_vit,
)
from topsieve.methods import describe
from topsieve.models import forward
from topsieve_sim.errors import InputError
from topsieve_sim.trace.ops import Merge, Projection, QueryKey, Similarity

METHODS = (*VISION_METHODS, "evit", "tome", "spatten:protect_first=1", "a-vit:gate_scale=1,gate_center=1")
# Float32 rounding of another summation order, through up to eight layers whose attention is peaked.
FLOAT32 = 1e-4
LLAVA = {name: tiny_llava(name) for name in ("sdpa", "eager")}


def under(model: torch.nn.Module, method: str, batch: dict[str, torch.Tensor], **options: object) -> tuple:
    with torch.no_grad(), topsieve.reduce(model, method, **options) as reduced:
        output = model(**batch)
    return (output.logits if "logits" in output else output.last_hidden_state), reduced


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_questions_equals_each_alone(method: str, attention: str) -> None:
    model, batch = LLAVA[attention], questions()
    logits, together = under(model, method, batch)
    for row in range(len(logits)):
        alone, one = under(model, method, single(batch, row))
        live = together.valid[row]
        assert one.valid.all()
        assert together.positions[row][live].tolist() == one.positions[0].tolist()
        assert relative(logits[row][live], alone[0]) < FLOAT32
        text = batch["input_ids"][row] != IMAGE
        kept = set(together.positions[row].tolist())
        assert set((text & batch["attention_mask"][row].bool()).nonzero().flatten().tolist()) <= kept


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_of_images_equals_each_alone(method: str) -> None:
    for model in (tiny_vit(), tiny_clip()):
        pixels = images(3)
        hidden, together = under(model, method, {"pixel_values": pixels})
        for row in range(3):
            alone, one = under(model, method, {"pixel_values": pixels[row : row + 1]})
            live = together.valid[row]
            assert together.positions[row][live].tolist() == one.positions[0].tolist()
            assert relative(hidden[row][live], alone[0]) < FLOAT32


@pytest.mark.parametrize("method", [name for name in VISION_METHODS if describe(name).takes_keep])
def test_keeping_all_is_the_model_to_the_bit(method: str) -> None:
    for attention, model in LLAVA.items():
        batch = questions()
        with torch.no_grad():
            whole = model(**batch).logits
        assert torch.equal(under(model, method, batch, keep=1.0)[0], whole)
        assert torch.equal(under(tiny_vit(attention), "dense", {"pixel_values": images(2)})[0], run_vit(attention))


def run_vit(attention: str) -> torch.Tensor:
    with torch.no_grad():
        hidden: torch.Tensor = tiny_vit(attention)(pixel_values=images(2)).last_hidden_state
    return hidden


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_left_as_it_was(method: str) -> None:
    model, batch = LLAVA["sdpa"], questions()
    with torch.no_grad():
        whole = model(**batch).logits
    before = state_of(model)
    under(model, method, batch)
    assert state_of(model) == before
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, whole)
    with pytest.raises(ZeroDivisionError), topsieve.reduce(model, method):
        raise ZeroDivisionError
    assert state_of(model) == before


@pytest.mark.parametrize("method", ["fastv:keep=0.5", "divprune:keep=0.5", "evit:keep=0.5,fuse_token=false"])
def test_gathering_image_tokens_equals_hiding_them(method: str) -> None:
    """The survivors' logits are those of the model when no query may see the removed image tokens any more.

    The language model numbers its tokens by their place, so only methods that act inside of it keep their positions.
    """
    model, batch = LLAVA["eager"], single(questions(), 0)
    logits, reduced = under(model, method, batch)
    record = reduced.record
    if not method.startswith("fastv"):
        assert {layer.attention_padded for layer in record.layers} == {reduced.valid.shape[1]}
        return
    alive = {layer.layer: set(layer.positions[0].tolist()) for layer in record.layers}
    handles = []
    tokens = batch["input_ids"].shape[1]
    for index, layer in enumerate(model.model.language_model.layers):
        hidden = torch.tensor([place not in alive[index] for place in range(tokens)])
        later = torch.ones(tokens, tokens, dtype=torch.bool).triu(1) | hidden
        mask = torch.zeros(1, 1, tokens, tokens).masked_fill(later, torch.finfo(torch.float32).min)

        def masked(module: torch.nn.Module, args: tuple, kwargs: dict, mask: torch.Tensor = mask) -> tuple:
            return args, kwargs | {"attention_mask": mask}

        handles.append(layer.register_forward_pre_hook(masked, with_kwargs=True))
    with torch.no_grad():
        reference = model(**batch).logits[0]
    for handle in handles:
        handle.remove()
    assert len(alive[4]) == 3 + PATCHES // 2 + 5
    assert relative(logits[0], reference[reduced.positions[0]]) < FLOAT32


def of_decisions(ops: tuple) -> int:
    """FLOPs that the decisions ask for; the layers' projections are of role qkv and o, the projector's are counted here."""
    extra = [op for op in ops if isinstance(op, Similarity) or (isinstance(op, Projection) and op.role in ("q", "k"))]
    return sum(op.flops for op in extra)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("dynamicvit", "zoo-prune")])
def test_padded_flops_equal_the_flop_counter(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tower, projector and language model, to the last digit; what the decisions compute is counted apart."""
    model, batch = LLAVA["eager"], questions()
    decided = 0
    decide = forward.decide

    def counted(*arguments: object) -> object:
        nonlocal decided
        with FlopCounterMode(display=False) as inner:
            decision = decide(*arguments)
        decided += inner.get_total_flops()
        return decision

    monkeypatch.setattr(forward, "decide", counted)
    context = forward.ForwardPass._context

    def probed(*arguments: object) -> object:
        nonlocal decided
        with FlopCounterMode(display=False) as inner:
            seen = context(*arguments)
        decided += inner.get_total_flops()
        return seen

    monkeypatch.setattr(forward.ForwardPass, "_context", probed)
    with torch.no_grad(), topsieve.reduce(model, method) as reduced:
        with FlopCounterMode(display=False) as counter:
            model.model(**batch)
        trace = topsieve.lower(reduced.record, mode="padded")
    patches = 2 * len(batch["input_ids"]) * PATCHES * 16 * 32  # the embedding of patches is not part of a trace
    assert trace.flops - of_decisions(trace.ops) == counter.get_total_flops() - decided - patches


def test_the_trace_of_a_llava_is_tower_projector_language() -> None:
    batch = questions((4,))
    _, reduced = under(LLAVA["eager"], "divprune:keep=0.25", batch, operands=True)
    trace = topsieve.lower(reduced.record, operands=True)
    attention = [op for op in trace.ops if isinstance(op, QueryKey)]
    # Three layers of the tower are used; its fourth is not run. Five layers of the language model follow.
    assert [op.layer for op in attention] == [0, 1, 2, 4, 5, 6, 7, 8]
    assert [op.keys for op in attention] == [17] * 3 + [3 + 4 + 4] * 5
    assert [op.causal for op in attention] == [False] * 3 + [True] * 5
    kinds = [op.kind for op in trace.ops if op.layer == 2]
    assert kinds[-6:] == ["projection", "projection", "norm", "similarity", "greedy_max_min", "gather"]
    (similarity,) = [op for op in trace.ops if isinstance(op, Similarity)]
    assert (similarity.rows_a, similarity.rows_b, similarity.width) == (16, 16, 32)
    projector = [op for op in trace.ops if isinstance(op, Projection) and op.role == "other"]
    assert [(op.tokens, op.inputs, op.outputs) for op in projector] == [(16, 32, 32)] * 2
    report = reduced.report()
    assert "vision tower" in report
    assert "language tower" in report


def test_merging_before_the_projector_saves_the_projector_too() -> None:
    batch = questions((4,))
    _, reduced = under(LLAVA["eager"], "visionzip:keep=0.5", batch)
    trace = topsieve.lower(reduced.record)
    assert [op.tokens for op in trace.ops if isinstance(op, Projection) and op.role == "other"] == [8, 8]
    assert any(isinstance(op, Merge) for op in trace.ops)


def test_prumerge_runs_the_towers_last_layer_for_its_signals() -> None:
    batch = questions((4,))
    _, reduced = under(LLAVA["eager"], "prumerge", batch)
    attention = [op.layer for op in topsieve.lower(reduced.record).ops if isinstance(op, QueryKey)]
    assert attention[:4] == [0, 1, 2, 3]


@pytest.mark.parametrize("method", ["fastervlm", "visionzip", "divprune", "prumerge", "evit", "dynamicvit"])
def test_a_class_token_that_the_language_model_sees_stays(method: str) -> None:
    _, reduced = under(tiny_llava(strategy="full"), method, questions(tokens=PATCHES + 1))
    assert reduced.record.vision.tower.shape.class_token
    assert (reduced.positions[:, 3] == 3).all()
    assert (reduced.valid.sum(-1) < questions(tokens=PATCHES + 1)["attention_mask"].sum(-1)).all()


def test_positions_name_the_patches_that_are_left() -> None:
    batch = questions((5, 3, 7))
    _, reduced = under(LLAVA["sdpa"], "fastervlm:keep=0.25", batch)
    tower = reduced.record.vision.tower
    assert tower.boundaries[0].decisions[0].reduction.keep.shape == (3, 4)
    patches = tower.boundaries[0].decisions[0].reduction.positions - 1
    columns = reduced.positions
    for row in range(3):
        image = [c for c in columns[row].tolist() if 3 <= c < 3 + PATCHES]
        assert [c - 3 for c in image] == patches[row].tolist()


def test_what_is_not_available_is_refused() -> None:
    model, batch = LLAVA["sdpa"], questions()
    with topsieve.reduce(model, "fastv"):
        with pytest.raises(InputError, match="both input_ids and pixel_values"):
            model(input_ids=batch["input_ids"])
        with pytest.raises(InputError, match="every sequence needs one image"):
            model(**(batch | {"pixel_values": images(1)}))
        with pytest.raises(InputError, match="attention_mask: wrong shape"):
            model(**(batch | {"attention_mask": torch.ones(3, 2)}))
        with pytest.raises(InputError, match="already under a reduction"):
            topsieve.reduce(model, "fastv")


def test_a_classifier_is_reduced_inside() -> None:
    torch.manual_seed(0)
    model = ViTForImageClassification(tiny_vit().config).eval()
    logits, reduced = under(model, "evit", {"pixel_values": images(2)})
    assert logits.shape == (2, 2)
    assert reduced.valid.sum(-1).tolist() == [8, 8]
    assert isinstance(AutoModel.from_config(model.config), torch.nn.Module)
    assert isinstance(LLAVA["sdpa"], LlavaForConditionalGeneration)
