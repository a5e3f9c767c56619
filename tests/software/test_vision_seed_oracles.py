"""One step of the later methods for images against its text re-implemented with plain loops in float64."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from software.test_vision_oracles import Array, Sequence, best, cosine, same, split, step_of
from software.toy_encoder import SHAPE
from topsieve.methods import build
from topsieve.methods.globalcom2 import crop_shares, crop_tokens, mosaic_order, unpadded
from topsieve.reduction import ModelShape, Signal, Site, decide
from topsieve.reduction.roles import Tower
from topsieve.reduction.selectors.entropy_paced import removed

BOUNDED = settings(max_examples=20, deadline=None)
SEEDS = st.integers(0, 10_000)
KEEPS = st.sampled_from([0.2, 0.5, 0.8])
LANGUAGE = ModelShape("l", "llama", 8, 3, 3, 4, 12, 16, tower=Tower.LANGUAGE, class_token=False)
CLIP = ModelShape("clip", "clip", 23, 16, 16, 64, 1024, 4096, tower=Tower.VISION, tail_layers=1, class_token=False)


@given(side=st.integers(2, 6), seed=SEEDS, share=st.floats(0.1, 0.9), alpha=st.sampled_from([0.1, 0.6, 1.0]))
@BOUNDED
def test_hiprune(side: int, seed: int, share: float, alpha: float) -> None:
    n = side * side
    k = max(1, round(n * share))
    middle, deep = Sequence(n + 1, seed), Sequence(n + 1, seed + 1)
    (stage,) = build(f"hiprune:tokens={k},alpha={alpha}").stages(SHAPE)
    look, choose = stage.schedule.plan(SHAPE)
    assert (look.site, look.layer, choose.site, choose.layer) == (Site.LAYER, 1, Site.PROJECTED, 3)
    state = decide(stage, look, middle.context(1)).reduction.scores
    decision = decide(stage, choose, deep.context(3, state=state))

    objects, registers = ([float(s.probability.mean((0, 1))[j]) for j in range(1, n + 1)] for s in (middle, deep))
    anchors = best(dict(enumerate(objects)), round(k * alpha / 5))
    near = {max(0, min(n - 1, a + d)) for a in anchors for d in (0, -1, 1, -side, side)}
    scores = {j: registers[j] - (1 if j in near else 0) for j in range(n)}
    if len(near) <= k:
        expected = near | set(best(scores, k - len(near)))
        assert decision.reduction.keep[0].tolist() == sorted({0} | {j + 1 for j in expected})
    else:  # the published code would keep more than the budget; here the best of the neighbourhood stay
        expected = set(best({j: registers[j] for j in near}, k))
        assert decision.reduction.keep[0].tolist() == sorted({0} | {j + 1 for j in expected})


def test_hiprune_anchors_of_the_paper() -> None:
    """192, 128 and 64 tokens have 4, 3 and 1 anchors, in layer 9 of 24 counted from 1."""
    for tokens, anchors in ((192, 4), (128, 3), (64, 1)):
        (stage,) = build(f"hiprune:tokens={tokens}").stages(CLIP)
        look, _ = stage.schedule.plan(CLIP)
        assert look.layer == 8
        (operation,) = stage.scorer.work(CLIP, 22, 576)
        assert operation.k == anchors


@given(tokens=st.integers(3, 20), seed=SEEDS, keep=KEEPS, layer=st.sampled_from([0, 1, 2]), paper=st.booleans())
@BOUNDED
def test_flowcut(tokens: int, seed: int, keep: float, layer: int, paper: bool) -> None:
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"flowcut:keep={keep},variant={'paper' if paper else 'official'}", layer=layer)
    before = torch.rand(1, tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    decision = decide(stage, step, sequence.context(layer, initial=tokens + 3, state=before))

    ids = range(1, tokens)
    attention = {j: float(sequence.probability[:, 0, j].mean()) for j in ids}
    semantic = dict.fromkeys(ids, 0.0)
    for h in range(SHAPE.heads):
        weight = np.exp(sequence.value[h] @ sequence.value[h][0])
        for j in ids:
            alike = max(cosine(sequence.value[h][j], sequence.value[h][0]), 0) if paper else weight[j] / weight.sum()
            semantic[j] += float(alike) / SHAPE.heads
    strength = {j: float(np.abs(sequence.value[:, j].mean(0)).sum()) for j in ids}
    cumulative = {}
    for j in ids:
        here = attention[j] / sum(attention.values()) + semantic[j] / max(sum(semantic.values()), 1e-300)
        cumulative[j] = 0.5 * float(before[0, j]) + 0.5 * here * strength[j]
    n, target = tokens - 1, min(math.floor(round((tokens + 2) * keep, 9)), tokens - 1)
    left = 2 - layer
    kept = n
    if left % 2 == 0 and n > target:
        share = [a / sum(attention.values()) for a in attention.values()]
        entropy = -sum(p * math.log(p) for p in share)
        most = math.log(n) if n > 1 else 1.0
        gone = n if left == 0 else round((n - target) / math.sqrt(left) * (1 - (entropy / most) ** 2))
        kept = max(n - gone, target)
    assert decision.reduction.keep[0].tolist() == [0, *best(cumulative, kept)]


def test_flowcut_prunes_every_second_layer_and_paces_by_entropy() -> None:
    """24 layers: after layers 1, 3, ..., 21; an even row removes nothing, a peaked one nearly the whole share."""
    (stage,) = build("flowcut:tokens=64").stages(CLIP)
    steps = stage.schedule.plan(CLIP)
    assert steps[-1].layer == 21
    assert [step.layer for step in steps if (21 - step.layer) % 2 == 0] == list(range(1, 22, 2))
    assert removed(torch.ones(100, dtype=torch.float64), 50, 4) == 0
    peaked = torch.full((100,), 1e-12, dtype=torch.float64)
    peaked[3] = 1
    assert removed(peaked, 50, 4) == 25
    assert removed(peaked, 50, 0) == 50


@pytest.mark.parametrize("update", ["sum", "max"])
@given(tokens=st.integers(2, 17), seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_todre_first_stage(update: str, tokens: int, seed: int, keep: float) -> None:
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"todre:keep={keep},update={update}")
    ids = range(1, tokens)
    count = math.floor(round((tokens - 1) * keep, 9))
    picked: list[int] = []
    while len(picked) < count:
        if not picked:
            attention = {j: float(sequence.probability[:, 0, j].mean()) for j in ids}
            picked.append(max(attention, key=lambda j: attention[j]))
            continue
        near = {
            j: (sum if update == "sum" else max)([cosine(sequence.x[j], sequence.x[p]) for p in picked])
            for j in ids
            if j not in picked
        }
        picked.append(min(near, key=lambda j: near[j]))
    assert decide(stage, step, sequence.context(3)).reduction.keep[0].tolist() == sorted([0, *picked])


@given(tokens=st.integers(2, 12), seed=SEEDS, threshold=st.sampled_from([0.02, 0.1, 0.3, 0.9]))
@BOUNDED
def test_todre_second_stage(tokens: int, seed: int, threshold: float) -> None:
    segment = split(tokens, 3)
    n = len(segment)
    sequence = Sequence(n, seed)
    stages = build(f"todre:threshold={threshold}").stages(LANGUAGE)
    (step,) = stages[1].schedule.plan(LANGUAGE)
    assert step.layer == 6
    attention = np.zeros((n, n))
    for h, row in itertools.product(range(SHAPE.heads), range(n)):
        weight = np.exp(sequence.key[h][: row + 1] @ sequence.query[h][row] / math.sqrt(SHAPE.head_dim))
        attention[row, : row + 1] += weight / weight.sum() / SHAPE.heads
    image = [j for j in range(n) if segment[j]]
    text = [j for j in range(n) if not segment[j] and j > image[0]]
    on_image = sum(attention[i][j] for i in text for j in image) / sum(attention[i].sum() for i in text)
    on_text = sum(attention[i][j] for i in image for j in text) / sum(attention[i].sum() for i in image)
    goes = on_image < threshold and on_text < threshold
    kept = decide(stages[1], step, sequence.context(6, segment=segment)).reduction.keep[0].tolist()
    assert kept == ([j for j in range(n) if not segment[j]] if goes else list(range(n)))


@given(tokens=st.integers(2, 17), seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_globalcom2_thumbnail(tokens: int, seed: int, keep: float) -> None:
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"globalcom2:keep={keep}")
    context = sequence.context(3)
    logits = np.einsum("hd,hnd->hn", sequence.query[:, 0], sequence.key) / math.sqrt(SHAPE.head_dim)
    context.signals[Signal.ATTENTION_CLS_LOGITS] = torch.from_numpy(logits)[None]
    score = {j: float(logits[:, j].mean()) for j in range(1, tokens)}
    kept = best(score, math.floor(round((tokens - 1) * keep, 9)))
    assert decide(stage, step, context).reduction.keep[0].tolist() == [0, *kept]


@given(rows=st.integers(1, 3), columns=st.integers(1, 3), seed=SEEDS, keep=st.sampled_from([0.1, 0.25, 0.6]))
@BOUNDED
def test_globalcom2_crops(rows: int, columns: int, seed: int, keep: float) -> None:
    side = 6
    random = np.random.default_rng(seed)
    thumbnail, crops = random.standard_normal(side * side) * 4, random.standard_normal((rows * columns, side * side))
    got = crop_tokens(torch.from_numpy(thumbnail), torch.from_numpy(crops), rows, columns, keep)

    sums = np.zeros(rows * columns)
    for i, j in itertools.product(range(side), range(side)):
        region = min(i // (side // rows), rows - 1) * columns + min(j // (side // columns), columns - 1)
        sums[region] += thumbnail[i * side + j]
    weight = np.exp((sums - sums.max()) / 10)
    share = weight / (weight.sum() + 1e-8)
    scale = np.minimum(keep * (1 + share - share.mean()), 1)
    same(crop_shares(torch.from_numpy(thumbnail), rows, columns, keep).numpy(), scale)
    picture = torch.from_numpy(thumbnail).reshape(1, 1, side, side)
    large = interpolate(picture, (rows * side, columns * side), mode="bilinear", align_corners=False)[0, 0].numpy()
    for r, c in itertools.product(range(rows), range(columns)):
        crop = r * columns + c
        part = large[r * side : (r + 1) * side, c * side : (c + 1) * side].flatten()
        own = crops[crop]
        score = own / np.linalg.norm(own) + part / np.linalg.norm(part)
        kept = best(dict(enumerate(score.tolist())), int(side * side * scale[crop]))
        assert got[crop].nonzero().flatten().tolist() == kept


@given(
    rows=st.integers(1, 3),
    columns=st.integers(1, 3),
    height=st.integers(40, 900),
    width=st.integers(40, 900),
    seed=SEEDS,
    variant=st.sampled_from(["official", "paper"]),
)
@BOUNDED
def test_globalcom2_padded_crops(rows: int, columns: int, height: int, width: int, seed: int, variant: str) -> None:
    side, keep = 6, 0.4
    high, wide = rows * side, columns * side
    shown = unpadded((height, width), rows, columns, side)
    if width / height > wide / high:
        pad = (high - int(height * (wide / width))) // 2
        inside = {(y, x) for y in range(pad, high - pad) for x in range(wide)}
    else:
        pad = (wide - int(width * (high / height))) // 2
        inside = {(y, x) for y in range(high) for x in range(pad, wide - pad)}
    random = np.random.default_rng(seed)
    thumbnail, crops = random.standard_normal(side * side), random.standard_normal((rows * columns, side * side))
    got = crop_tokens(
        torch.from_numpy(thumbnail), torch.from_numpy(crops), rows, columns, keep, shown=shown, variant=variant
    )
    scale = crop_shares(torch.from_numpy(thumbnail), rows, columns, keep)
    box = (
        1 + max(y for y, _ in inside) - min(y for y, _ in inside),
        1 + max(x for _, x in inside) - pad * (len({x for _, x in inside}) < wide),
    )
    picture = torch.from_numpy(thumbnail).reshape(1, 1, side, side)
    large = interpolate(picture, box, mode="bilinear", align_corners=False)[0, 0].numpy()
    lines: dict[tuple[int, int], int] = {}
    top = 0
    for r in range(rows):
        left, tall = 0, []
        for c in range(columns):
            crop = r * columns + c
            mine = [(y, x) for y in range(r * side, (r + 1) * side) for x in range(c * side, (c + 1) * side)]
            mine = [place for place in mine if place in inside]
            h, w = len({y for y, _ in mine}), len({x for _, x in mine})
            tall.append(h)
            places = [(y - r * side) * side + x - c * side for y, x in mine]
            assert shown[crop].nonzero().flatten().tolist() == places
            kept = []
            if places:
                part, own = large[top : top + h, left : left + w].flatten(), crops[crop][places]
                score = own / np.linalg.norm(own) + part / np.linalg.norm(part)
                kept = best(dict(enumerate(score.tolist())), int(len(places) * float(scale[crop])))
            assert got[crop].nonzero().flatten().tolist() == [places[j] for j in kept]
            for j in kept:
                y, x = divmod(j if variant == "official" else places[j], side)
                lines[r * side + y, c * side + x] = crop * side * side + places[j]
            left += w
        top += tall[0] if variant == "official" else max(tall)
    order = []
    for y in range(high):
        order += [lines[y, x] for x in range(wide) if (y, x) in lines] + [-1]
    assert mosaic_order(got, shown, rows, columns, variant).tolist() == order


@given(tokens=st.integers(3, 15), seed=SEEDS, keep=KEEPS, paper=st.booleans())
@BOUNDED
def test_zooprune(tokens: int, seed: int, keep: float, paper: bool) -> None:
    """With a projector of one linear map and a bend, against its own finite differences."""
    sequence = Sequence(tokens, seed)
    weight = torch.from_numpy(np.random.default_rng(seed).standard_normal((SHAPE.width, 7)))

    def project(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ weight)

    variant = "paper" if paper else "official"
    stage, step = step_of(f"zoo-prune:keep={keep},directions=5,seed=2,variant={variant}")
    plain = sequence.context(3)
    context = type(plain)(**{**plain.__dict__, "project": project})
    decision = decide(stage, step, context)
    random = torch.Generator().manual_seed(2)
    sensitivity = np.zeros(tokens)
    for _ in range(5):
        u = torch.randn(SHAPE.width, generator=random, dtype=torch.float64).numpy()
        u = 0.01 * u / (1 if paper else np.linalg.norm(u))
        for j in range(tokens):
            high, low = (np.tanh((sequence.x[j] + sign * u) @ weight.numpy()) for sign in (1, -1))
            sensitivity[j] += np.linalg.norm(high - low) / (2 * 0.01) / 5
    ids = range(1, tokens)
    low, high = min(sensitivity[1:]), max(sensitivity[1:])
    weightless = high - low <= 1e-8 * high
    scaled = {j: 1.0 if weightless else float((sensitivity[j] - low) / (high - low + 1e-8)) for j in ids}
    picked: list[int] = []
    while len(picked) < math.floor(round((tokens - 1) * keep, 9)):
        merit = {
            j: scaled[j] if not picked else scaled[j] * min(1 - cosine(sequence.x[j], sequence.x[p]) for p in picked)
            for j in ids
            if j not in picked
        }
        picked.append(max(merit, key=lambda j: merit[j]))
    assert decision.reduction.keep[0].tolist() == sorted([0, *picked])


def merged(
    x: Array, metric: Array, attention: Array, size: Array, r: int, coefficient: float
) -> tuple[Array, Array, Array, Array]:
    """One bipartite matching with CLS: features, metric and attention of the slots, ascending, and their sizes."""
    n = len(x)
    unit = metric / np.linalg.norm(metric, axis=1, keepdims=True)
    edges = []
    for a in range(2, n, 2):
        likeness = [(float(unit[a] @ unit[b]), -b) for b in range(1, n, 2)]
        value, b = max(likeness)
        edges.append((value - coefficient * attention[a], -a, -b))
    chosen = {-a: b for _, a, b in sorted(edges, reverse=True)[: min(r, (n - 1) // 2)]}
    groups = {j: [j] for j in range(n) if j not in chosen}
    for a, b in chosen.items():
        groups[b].append(a)

    def mean(values: Array) -> Array:
        rows = [np.average(values[group], axis=0, weights=size[group]) for _, group in sorted(groups.items())]
        return np.array(rows)

    sizes = np.array([size[group].sum() for _, group in sorted(groups.items())])
    return mean(x), mean(metric), mean(attention), sizes


@given(tokens=st.integers(3, 17), seed=SEEDS, r=st.integers(1, 8), alpha=st.sampled_from([0.0, 1.0, 5.0]))
@BOUNDED
def test_turbo(tokens: int, seed: int, r: int, alpha: float) -> None:
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"turbo:r={r},alpha={alpha},beta=0.9,gamma=3", layer=1)
    decision = decide(stage, step, sequence.context(1))
    attention = sequence.probability[:, 0].mean(0)
    coefficient = 0.9 ** abs(3 - 1) * alpha * 30
    x, _, _, size = merged(sequence.x, sequence.key.mean(0), attention, np.ones(tokens), r, coefficient)
    same(sequence.reduced(decision), x)
    same(decision.reduction.size[0].numpy(), size)
    stage, step = step_of(f"turbo:r={r},least={tokens + 1}", layer=1)
    assert decide(stage, step, sequence.context(1)).reduction.kept.item() == tokens


@given(tokens=st.integers(3, 40), seed=SEEDS, r=st.integers(1, 8))
@BOUNDED
def test_folder(tokens: int, seed: int, r: int) -> None:
    """r x layers tokens go, fold by fold, with keys and attention merged in between."""
    sequence = Sequence(tokens, seed)
    (stage,) = build(f"folder:r={r}").stages(SHAPE)
    steps = stage.schedule.plan(SHAPE)
    assert {step.layer for step in steps} == {SHAPE.layers - 1}
    context = sequence.context(3)
    x, key = torch.from_numpy(sequence.x)[None], torch.from_numpy(sequence.key)[None]
    row = torch.from_numpy(sequence.probability[:, 0])[None]
    for step in steps:
        signals = {Signal.KEY: key, Signal.ATTENTION_CLS_ROW: row}
        reduction = decide(stage, step, type(context)(**{**context.__dict__, "signals": signals})).reduction
        x = reduction.apply(x)
        key = reduction.apply(key.transpose(1, 2)).transpose(1, 2)
        row = reduction.apply(row.transpose(1, 2)).transpose(1, 2)
        moved = {"valid": reduction.valid, "positions": reduction.positions, "size": reduction.size}
        context = type(context)(**{**context.__dict__, **moved})

    wanted, metric = sequence.x, sequence.key.mean(0)
    attention, size = sequence.probability[:, 0].mean(0), np.ones(tokens)
    left = min(r * SHAPE.layers, tokens - 1)
    while left > 0 and (len(wanted) - 1) // 2 > 0:
        fold = min((len(wanted) - 1) // 2, left)
        wanted, metric, attention, size = merged(wanted, metric, attention, size, fold, 500)
        left -= fold
    same(x[0].numpy(), wanted)
    same(context.size[0].numpy(), size)


@given(tokens=st.integers(2, 20), seed=SEEDS, alike=st.sampled_from([0.0, 0.2, 0.5]), others=st.integers(0, 4))
@BOUNDED
def test_tokencorr(tokens: int, seed: int, alike: float, others: int) -> None:
    shallow, deep = Sequence(tokens, seed), Sequence(tokens, seed + 1)
    (stage,) = build(f"tokencorr:alike={alike},others={others}").stages(SHAPE)
    look, choose = stage.schedule.plan(SHAPE)
    state = decide(stage, look, shallow.context(look.layer)).reduction.scores
    decision = decide(stage, choose, deep.context(3, state=state))
    ids = range(1, tokens)
    keys = deep.key.transpose(1, 0, 2).reshape(tokens, -1)
    unique = sum(sum(cosine(keys[i], keys[j]) > alike for j in ids if j != i) <= others for i in ids)
    score = {j: float((shallow.probability[:, 0, j] + deep.probability[:, 0, j]).mean()) for j in ids}
    assert decision.reduction.keep[0].tolist() == [0, *best(score, max(unique, 1))]


def test_tokencorr_draws_by_attention() -> None:
    """One token of six, 3000 seeds: each as often as its share of the attention says, within four deviations."""
    shallow, deep = Sequence(7, 1), Sequence(7, 2)
    (stage,) = build("tokencorr:keep=0.17,sampling=drawn").stages(SHAPE)
    look, choose = stage.schedule.plan(SHAPE)
    state = decide(stage, look, shallow.context(look.layer)).reduction.scores
    context = deep.context(3, state=state)
    share = (shallow.probability[:, 0] + deep.probability[:, 0]).mean(0)[1:]
    share = share / share.sum()
    counts, draws = np.zeros(6), 3000
    scores = stage.scorer.score(context)
    for seed in range(draws):
        drawn = stage.selector.select(scores, choose.budget, dataclasses.replace(context, seed=seed)).keep[0]
        assert drawn[0] == 0
        counts[int(drawn[1]) - 1] += 1
    assert (np.abs(counts / draws - share) <= 4 * np.sqrt(share * (1 - share) / draws)).all()
