"""Laws of every cache method's reductions: order, counts, ties, conservation, determinism."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import topsieve
from software.decoders import VARIANTS, generate, prompt, tiny_decoder
from topsieve.cache.budget import CacheBudget, HalvingBudget
from topsieve.cache.grouping import pooled
from topsieve.cache.roles import CacheContext, CacheStep, Moment
from topsieve.cache.schedules import EveryLayer
from topsieve.cache.selectors.joint_slots import JointSlots
from topsieve.cache.selectors.top_slots import TopSlots
from topsieve.methods import describe, method_names
from topsieve.reduction import ModelShape

SHAPE = ModelShape("toy", "toy", 3, 4, 2, 4, 16, 16)
LENGTHS = [13, 8]
BOUNDED = settings(max_examples=30, deadline=None)


@pytest.fixture(scope="module")
def model():
    return tiny_decoder("qwen3")


def decisions(model, name, keep=0.5):
    takes_keep = describe(name.partition(":")[0]).takes_keep
    with topsieve.reduce(model, name, keep=keep if takes_keep else None) as r:
        scores = generate(model, prompt(LENGTHS), 5)
    found = [decision for layers in r.record.passes for layer in layers for decision in layer.decisions]
    return scores, found, r


@pytest.mark.parametrize("name", VARIANTS)
def test_every_reduction_is_well_formed_and_repeats(model, name):
    scores, found, r = decisions(model, name)
    again, other, _ = decisions(model, name)
    assert scores.equal(again)
    assert scores.isfinite().all()
    heads = r._decoder.shape.kv_heads
    if not (r.record.policy.reader or r.record.policy.channels or r.record.policy.cascade or r.record.policy.layers):
        assert found
    for decision, twin in zip(found, other, strict=True):
        reduction = decision.reduction
        assert reduction.scope == "kv_head"
        assert reduction.keep.shape[0] == heads * len(LENGTHS)
        assert reduction.keep.equal(twin.reduction.keep)
        assert (reduction.valid.int().diff(dim=-1) <= 0).all(), "live slots come first"
        ordered = reduction.positions.masked_fill(~reduction.valid, 10**6)
        assert ((ordered.diff(dim=-1) > 0) | ~reduction.valid[:, 1:]).all(), "survivors ascend"
        assert (decision.slots_out <= decision.slots_in).all()
        assert (decision.slots_out >= 1).all()
        if decision.stage.shared:
            rows = reduction.positions.reshape(len(LENGTHS), heads, -1)
            assert (rows == rows[:, :1]).all()
        made_of = reduction.sources("v")
        assert made_of.any(-1).equal(reduction.valid)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith(("kvmerger", "ems", "d2o", "cam"))])
def test_merges_conserve(model, name):
    """Averages have rows of 1; a value that is shared out is shared out once; a token goes to one slot of a pure merge."""
    method = name.partition(":")[0]
    merged = 0
    for decision in decisions(model, name)[1]:
        reduction = decision.reduction
        if "v" not in reduction.maps:
            assert reduction.is_prune()
            continue
        entries = reduction.map("v")
        merged += 1
        shape = (len(reduction.keep), reduction.n_out, reduction.n_in)
        dense = torch.zeros(shape, dtype=torch.float64)
        dense[entries.batch, entries.out, entries.source] = entries.weight.double()
        assert (dense >= 0).all() or method == "d2o", "cosines may be negative"
        if method == "cam":
            assert (dense.sum(1) <= 1 + 1e-6).all()
            assert (reduction.size[reduction.valid] == 1).all()
            continue
        assert ((dense != 0).sum(1) <= 1).all()
        made_of = (dense != 0).sum(-1).to(reduction.size.dtype)
        assert (made_of[reduction.valid] >= 1).all()
        if method in ("kvmerger", "ems"):
            assert torch.allclose(dense.sum(-1)[reduction.valid], torch.ones((), dtype=torch.float64), atol=1e-6)
    assert merged or name == "cam:targets=3,sinks=1", "where a draw decides, none may be merged"


def context(heads: int, live: torch.Tensor, prompt_tokens: int) -> CacheContext:
    positions = (live.cumsum(-1) - 1).masked_fill(~live, -1)
    rows = torch.full((len(live),), prompt_tokens)
    shape = ModelShape("toy", "toy", 3, heads, heads, 4, 16, 16)
    return CacheContext(shape, 0, live, positions, live.float(), rows, {})


@given(st.integers(2, 12), st.integers(1, 12), st.integers(0, 4), st.integers(0, 4), st.integers(0, 1000))
@BOUNDED
def test_top_slots_keep_ends_and_the_best_oldest_first(slots, capacity, first, last, seed):
    generator = torch.Generator().manual_seed(seed)
    live = torch.rand(3, slots, generator=generator) < 0.8
    live[:, 0] = True
    scores = torch.randint(0, 3, (3, slots), generator=generator).float()
    budget = CacheBudget(capacity=capacity, first=first, last=last)
    found = TopSlots().select(scores, budget, context(1, live, slots))
    for row in range(3):
        ids = live[row].nonzero().flatten().tolist()
        kept = found.keep[row][found.valid[row]].tolist()
        quota = budget.quota(len(ids), slots)
        fixed = ids if quota.total == len(ids) else ids[: quota.first] + ids[len(ids) - quota.last :]
        rest = sorted((i for i in ids if i not in fixed), key=lambda i, s=scores[row]: (-s[i], i))
        assert kept == sorted(fixed + rest[: quota.total - len(fixed)])


def test_joint_slots_of_equal_scores_go_to_the_first_head():
    live = torch.ones(2, 6, dtype=torch.bool)
    found = JointSlots(alpha=0.0).select(torch.zeros(2, 6), CacheBudget(capacity=3), context(2, live, 6))
    assert found.keep[found.valid.logical_and(torch.tensor([[True], [False]]))].tolist() == [0, 1, 2, 3, 4, 5]
    assert found.valid[1].sum() == 1, "a head without a hit keeps one slot all the same"


def test_moments_say_when():
    prompt_only, every, decoding = (CacheStep(0, CacheBudget(capacity=1), m, 3) for m in Moment)
    assert [n for n in range(8) if prompt_only.due(n)] == [0]
    assert [n for n in range(8) if every.due(n)] == [0, 3, 6]
    assert [n for n in range(8) if decoding.due(n)] == [3, 6]
    steps = EveryLayer(CacheBudget(capacity=1), skip_first=1, skip_last=1).plan(SHAPE)
    assert [step.layer for step in steps] == [1]


def test_a_full_cache_gives_up_half_at_once():
    budget = HalvingBudget(capacity=8, last=2, drop_share=0.5)
    assert [budget.quota(n, 20).total for n in (8, 9, 10, 20)] == [8, 4, 8, 8]


def test_pooling_sees_zeros_beyond_and_counts_them():
    x = torch.tensor([[3.0, 6.0, 9.0, 100.0]])
    live = torch.tensor([[True, True, True, False]])
    assert pooled(x, 3, "average", live).tolist() == [[3.0, 6.0, 5.0, 3.0]]
    assert pooled(x, 3, "maximum", live)[0, :3].tolist() == [6.0, 9.0, 9.0]
    assert pooled(x, 1, "average", live).equal(x)


@pytest.mark.parametrize("name", [name for name in method_names() if describe(name).acts_on == ("cache",)])
def test_parameters_are_checked(name):
    info = describe(name)
    for parameter in info.parameters:
        wrong = "-1" if parameter.type in ("int", "int | None", "float", "float | None") else "neither"
        if parameter.name == "threshold":
            wrong = "-2"
        if parameter.name == "tau":
            wrong = "-2"
        with pytest.raises(Exception, match=parameter.name) as caught:
            topsieve.methods.build(f"{name}:{parameter.name}={wrong}")
        assert type(caught.value).__name__ == "InputError"
