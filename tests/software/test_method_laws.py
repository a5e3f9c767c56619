"""The laws every registered method obeys: specification `reduction-interface`, section 4.2."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import reduce

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from software.toy_encoder import SHAPE, batch, run
from topsieve.methods import build, describe, method_names
from topsieve.reduction import Method, Reduction
from topsieve.reduction.reducers import Drop, FuseRest, MergeTo, NeighbourSums

TAKES_KEEP = tuple(name for name in method_names() if describe(name).takes_keep and "layers" in describe(name).acts_on)
# Beside each method as it comes, the settings that take another path through the roles.
VARIANTS = (
    *TAKES_KEEP,
    "spatten:schedule=stepwise,head_keep=0.4",
    "spatten:start_keep=0.9,unpruned=0.5,protect_first=1,protect_last=1",
    "evit:fuse_token=false",
    "tome:proportional=false,protect_cls=false",
    "tome:order=paper,inflect=-1",
    "pooling:proportional=true",
)
CONTENT_ONLY = ("spatten", "powerbert", "ltp", "evit")
PROTECTS_CLS = ("random", "uniform", "pooling", "powerbert", "evit", "tome")
# How many stay depends on more than the number of tokens.
DATA_DECIDES = ("ltp", "ats", "prumerge", "dart", "sparsevlm", "pact", "dycoke", "turbo", "folder", "tokencorr")
# Methods that drop some tokens and merge others.
ALSO_DROPS = ("sparsevlm", "pact")
# One token, the first or the last, stays beside a share of the others, with the rounding of the paper.
ROUNDS_BESIDE = {
    "fastv": round,
    "fastervlm": math.floor,
    "visionzip": math.floor,
    "divprune": round,
    "dynamicvit": math.floor,
    "pyramiddrop": math.floor,
    "hiprune": math.floor,
    "flowcut": math.floor,
    "todre": math.floor,
    "globalcom2": math.floor,
    "zoo-prune": math.floor,
}
SEEDS = st.integers(0, 10_000)
LENGTHS = st.lists(st.integers(1, 13), min_size=1, max_size=4)
KEEPS = st.sampled_from([0.2, 0.35, 0.5, 0.7, 0.9])
BOUNDED = settings(max_examples=10, deadline=None)


def same(left: torch.Tensor, right: torch.Tensor) -> None:
    """Equal to within 1e-12 of the norm: a few thousand roundings of float64, amplified by four layers."""
    assert left.shape == right.shape
    assert (left - right).norm() <= 1e-12 * right.norm()


def prunes(method: Method) -> bool:
    return all(isinstance(stage.reducer, Drop) for stage in method.stages(SHAPE))


def same_reduction(left: Reduction, right: Reduction) -> None:
    assert left.keep.equal(right.keep)
    assert left.valid.equal(right.valid)
    assert left.positions.equal(right.positions)
    same(left.size, right.size)
    for role in {"x", *left.maps, *right.maps}:
        first, second = left.map(role), right.map(role)
        assert first.batch.equal(second.batch)
        assert first.out.equal(second.out)
        assert first.source.equal(second.source)
        same(first.weight, second.weight)


@pytest.mark.parametrize("name", TAKES_KEEP)
def test_keeping_everything_is_the_dense_model_to_the_bit(name: str) -> None:
    hidden, valid = batch([9, 4, 1], seed=1)
    dense = run(build("dense"), hidden, valid)
    whole = run(build(name, keep=1.0), hidden, valid)
    assert whole.hidden[whole.valid].equal(dense.hidden[dense.valid])


@pytest.mark.parametrize("name", TAKES_KEEP)
def test_a_step_that_removes_nothing_moves_nothing(name: str) -> None:
    """One token cannot be reduced, so every step of a real schedule must hand it through unchanged."""
    hidden, valid = batch([1], seed=2)
    result = run(build(name, keep=0.5), hidden, valid)
    dense = run(build("dense"), hidden, valid)
    assert result.decisions
    assert result.hidden.equal(dense.hidden)


@pytest.mark.parametrize("name", VARIANTS)
@given(lengths=LENGTHS, seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_every_reduction_is_well_formed(name: str, lengths: list[int], seed: int, keep: float) -> None:
    """Pruned rows are one token; merged ones share out every token once and add up its size."""
    hidden, valid = batch(lengths, seed)
    method = build(name, keep=keep)
    live, size = valid, valid.to(hidden.dtype)
    for decision in run(method, hidden, valid).decisions:
        reduction = decision.reduction
        made_of = reduction.sources()
        assert (reduction.valid.int().diff(dim=-1) <= 0).all(), "live slots come first"
        assert (decision.tokens_out >= torch.minimum(decision.tokens_in, torch.tensor(1))).all()
        assert (made_of & ~live.unsqueeze(1)).sum() == 0, "padding feeds no slot"
        assert made_of.any(-1).equal(reduction.valid), "each live slot is made of something"
        assert (reduction.size[~reduction.valid] == 0).all()
        assert (reduction.positions[~reduction.valid] == -1).all()
        kept = reduction.keep.masked_fill(reduction.keep < 0, reduction.n_in)
        if "order=paper" not in name:
            assert (kept.diff(dim=-1)[reduction.keep[:, 1:] >= 0] > 0).all(), "survivors ascend"
        if isinstance(decision.stage.reducer, Drop):
            assert reduction.is_prune()
            same(reduction.size, reduction.gather(size))
        elif isinstance(decision.stage.reducer, MergeTo | FuseRest) and name.partition(":")[0] not in ALSO_DROPS:
            assert made_of.sum(1).equal(live.long()), "each token is in one slot"
            same(reduction.size.sum(-1), size.sum(-1))
            same(reduction.size, (made_of * size.unsqueeze(1)).sum(-1))
        else:
            # Methods that also drop, or that put a token into several slots.
            assert (reduction.size[reduction.valid] > 0).all()
        live, size = reduction.valid, reduction.size


@pytest.mark.parametrize("name", VARIANTS)
@given(lengths=LENGTHS, seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_composition_is_doing_one_after_the_other(name: str, lengths: list[int], seed: int, keep: float) -> None:
    hidden, valid = batch(lengths, seed)
    steps = run(build(name, keep=keep), hidden, valid).reductions
    if not steps:
        return
    from_left = reduce(lambda first, second: first.then(second), steps)
    from_right = reduce(lambda second, first: first.then(second), reversed(steps))
    same_reduction(from_left, from_right)
    x = torch.randn(*hidden.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    same(from_left.apply(x), reduce(lambda y, step: step.apply(y), steps, x))
    # Un-merging goes back the same way: through every step, or at once.
    y = from_left.apply(x)
    if prunes(build(name, keep=keep)):
        same(from_left.scatter_back(y), reduce(lambda z, step: step.scatter_back(z), reversed(steps), y))
    same(from_left.size.sum(-1), steps[-1].size.sum(-1))


@pytest.mark.parametrize("name", VARIANTS)
@given(lengths=LENGTHS, seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_a_padded_batch_is_its_sequences_one_by_one(name: str, lengths: list[int], seed: int, keep: float) -> None:
    hidden, valid = batch(lengths, seed)
    method = build(name, keep=keep)
    together = run(method, hidden, valid)
    for row, length in enumerate(lengths):
        alone = run(method, hidden[row : row + 1, :length], valid[row : row + 1, :length])
        assert len(alone.decisions) == len(together.decisions)
        for one, many in zip(
            alone.decisions + alone.head_decisions, together.decisions + together.head_decisions, strict=True
        ):
            slots = int(one.tokens_out)
            assert int(many.tokens_out[row]) == slots
            assert many.reduction.keep[row, :slots].equal(one.reduction.keep[0, :slots])
            assert many.reduction.positions[row, :slots].equal(one.reduction.positions[0, :slots])
            same(many.reduction.size[row, :slots], one.reduction.size[0, :slots])
        slots = int(alone.valid.sum())
        same(together.hidden[row, :slots], alone.hidden[0, :slots])


@pytest.mark.parametrize("name", [name for name in VARIANTS if prunes(build(name, keep=0.5))])
@given(lengths=LENGTHS, seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_gathering_equals_masking(name: str, lengths: list[int], seed: int, keep: float) -> None:
    """Hiding removed tokens gives the surviving rows that moving the survivors together gives."""
    hidden, valid = batch(lengths, seed)
    method = build(name, keep=keep)
    gathered, hidden_only = run(method, hidden, valid), run(method, hidden, valid, masked=True)
    same(gathered.hidden[gathered.valid], hidden_only.hidden[hidden_only.valid])


@pytest.mark.parametrize("name", CONTENT_ONLY)
@given(length=st.integers(2, 13), seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_content_alone_decides(name: str, length: int, seed: int, keep: float) -> None:
    """Permuting the tokens behind CLS permutes the survivors: none of these methods looks at positions."""
    hidden, valid = batch([length], seed)
    order = torch.randperm(length - 1, generator=torch.Generator().manual_seed(seed)) + 1
    order = torch.cat([torch.zeros(1, dtype=torch.int64), order])
    method = build(name, keep=keep)
    plain, permuted = run(method, hidden, valid), run(method, hidden[:, order], valid)
    for before, after in zip(plain.reductions, permuted.reductions, strict=True):
        survivors = set(before.positions[0].tolist())
        assert {order[p].item() if p >= 0 else -1 for p in after.positions[0].tolist()} == survivors


@pytest.mark.parametrize("name", [name for name in TAKES_KEEP if name not in DATA_DECIDES])
@given(lengths=LENGTHS, seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_keep_is_the_share_left_at_the_end(name: str, lengths: list[int], seed: int, keep: float) -> None:
    hidden, valid = batch(lengths, seed)
    result = run(build(name, keep=keep), hidden, valid)
    assert result.valid.sum(-1).tolist() == [tokens_left(name, length, Fraction(str(keep))) for length in lengths]


def tokens_left(name: str, length: int, keep: Fraction) -> int:
    """Counts round down, but one token stays, of pooling and EViT two; matching may leave more."""
    if name == "tome":
        tokens = length
        for layer in range(1, SHAPE.layers + 1):
            wanted = math.floor(length * (1 - (1 - keep) * Fraction(layer, SHAPE.layers)))
            tokens = max(wanted, tokens - (tokens - 1) // 2)
        return tokens
    if name in ROUNDS_BESIDE:
        return 1 + ROUNDS_BESIDE[name]((length - 1) * keep)
    return max(math.floor(length * keep), min(length, 2 if name in ("pooling", "evit") else 1))


@pytest.mark.parametrize("name", PROTECTS_CLS)
@given(lengths=LENGTHS, seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_the_class_token_stays_alone_in_slot_0(name: str, lengths: list[int], seed: int, keep: float) -> None:
    hidden, valid = batch(lengths, seed)
    for reduction in run(build(name, keep=keep), hidden, valid).reductions:
        assert (reduction.positions[:, 0] == 0).all()
        assert (reduction.sources()[:, 0].sum(-1) == 1).all()
        assert reduction.apply(hidden_like(reduction))[:, 0].equal(hidden_like(reduction)[:, 0])


def hidden_like(reduction: Reduction) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(reduction.keep), reduction.n_in, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", VARIANTS)
def test_work_is_that_of_what_was_done(name: str) -> None:
    """A step that reduces names its selection and its data movement; one that does not costs no selection."""
    hidden, valid = batch([12], seed=5)
    result = run(build(name, keep=0.4), hidden, valid)
    kinds = set()
    for decision in result.decisions + result.head_decisions:
        stage, step = decision.stage, decision.step
        n, kept = int(decision.tokens_in), int(decision.reduction.kept)
        select = stage.selector.work(SHAPE, step.layer, n, kept, step.budget)
        move = stage.reducer.work(SHAPE, step.layer, n, kept)
        ops = (*stage.scorer.work(SHAPE, step.layer, n), *select, *move)
        assert all(op.layer == step.layer for op in ops)
        kinds |= {op.kind for op in ops}
        if kept == n:
            assert {op.kind for op in (*select, *move)} <= {"threshold"}
        elif decision.reduction.axis == "token":
            assert "gather" in {op.kind for op in move}
            merged = not isinstance(stage.reducer, Drop)
            assert ("merge" in {op.kind for op in move}) == merged
            assert isinstance(stage.reducer, FuseRest | NeighbourSums) == (int(decision.tokens_out) > kept)
    selects = {
        "tome": "topk",
        "ltp": "threshold",
        "spatten": "topk",
        "powerbert": "topk",
        "evit": "topk",
        "random": "topk",
    }
    assert selects.get(name.partition(":")[0], "gather") in kinds
