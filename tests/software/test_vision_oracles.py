"""One step of each method for images against its text re-implemented with plain loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import topsieve
from software.toy_encoder import SHAPE, batch, run
from software.vision_models import VISION_METHODS, images, tiny_vit
from topsieve.methods import build, describe
from topsieve.reduction import Context, Decision, Signal, Site, Stage, Step, decide
from topsieve.reduction.roles import ModelShape, Tower
from topsieve.reduction.scorers.predictor import predictor_network

Array = NDArray[np.float64]
BOUNDED = settings(max_examples=20, deadline=None)
TOKENS = st.integers(2, 17)
SEEDS = st.integers(0, 10_000)
KEEPS = st.sampled_from([0.2, 0.5, 0.8])


class Sequence:
    """One sequence of random features, operands and probabilities; scores of random float64 numbers are distinct."""

    def __init__(self, tokens: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.tokens = tokens
        self.x: Array = random.standard_normal((tokens, SHAPE.width))
        heads = (SHAPE.heads, tokens, SHAPE.head_dim)
        self.query, self.key, self.value = (random.standard_normal(heads) for _ in range(3))
        exponential = np.exp(random.standard_normal((SHAPE.heads, tokens, tokens)))
        self.probability: Array = exponential / exponential.sum(-1, keepdims=True)
        self.next_query, self.next_key = (random.standard_normal(heads) for _ in range(2))

    def context(
        self,
        layer: int,
        initial: int | None = None,
        state: torch.Tensor | None = None,
        segment: list[bool] | None = None,
        shape: ModelShape = SHAPE,
    ) -> Context:
        def one(array: Array) -> torch.Tensor:
            return torch.from_numpy(array)[None]

        probability = one(self.probability)
        visual = self.tokens if segment is None else sum(segment)
        return Context(
            shape=shape,
            layer=layer,
            valid=torch.ones(1, self.tokens, dtype=torch.bool),
            positions=torch.arange(self.tokens)[None],
            size=torch.ones(1, self.tokens, dtype=torch.float64),
            initial=torch.tensor([initial or visual]),
            signals={
                Signal.ATTENTION_COLUMN_SUM: probability.sum(2),
                Signal.ATTENTION_CLS_ROW: probability[:, :, 0],
                Signal.ATTENTION_LAST_ROW: probability[:, :, -1],
                Signal.QUERY: one(self.query),
                Signal.KEY: one(self.key),
                Signal.VALUE: one(self.value),
                Signal.HIDDEN: one(self.x),
                Signal.FEATURES: one(self.x),
                Signal.FINAL_HIDDEN: one(self.x),
                Signal.NEXT_QUERY: one(self.next_query),
                Signal.NEXT_KEY: one(self.next_key),
                Signal.NEXT_ROTATED_QUERY: one(self.next_query),
                Signal.NEXT_ROTATED_KEY: one(self.next_key),
            },
            state=state,
            segment=None if segment is None else torch.tensor(segment)[None],
        )

    def reduced(self, decision: Decision) -> Array:
        return decision.reduction.apply(torch.from_numpy(self.x)[None])[0].numpy()


def step_of(text: str, layer: int | None = None, stage: int = 0, shape: ModelShape = SHAPE) -> tuple[Stage, Step]:
    """The step that the method `text` takes in `layer`; its only one where none is given."""
    found = build(text).stages(shape)[stage]
    steps = [step for step in found.schedule.plan(shape) if layer in (None, step.layer)]
    assert len(steps) == 1
    return found, steps[0]


def same(left: Array, right: Array) -> None:
    """Equal to a few thousand roundings of float64."""
    assert left.shape == right.shape
    assert np.linalg.norm(left - right) <= 1e-12 * np.linalg.norm(right)


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))


def best(scores: dict[int, float], count: int) -> list[int]:
    """The `count` largest, of equal ones the lowest index, ascending."""
    return sorted(sorted(scores, key=lambda j: (-scores[j], j))[:count])


@given(tokens=TOKENS, seed=SEEDS, samples=st.integers(1, 24))
@BOUNDED
def test_ats(tokens: int, seed: int, samples: int) -> None:
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"ats:n_tokens={samples + 1},least=1", layer=2)
    decision = decide(stage, step, sequence.context(2))

    score = {}
    for j in range(1, tokens):
        attention = sum(sequence.probability[h][0][j] for h in range(SHAPE.heads))
        length = math.sqrt(sum(v * v for h in range(SHAPE.heads) for v in sequence.value[h][j]))
        score[j] = attention * length
    order = sorted(score, key=lambda j: score[j])
    total = sum(score.values())
    cumulative = list(np.cumsum([score[j] / total for j in order]))
    low, high = cumulative[0], cumulative[-1]
    cumulative = [(c - low) / (high - low) if high > low else 1.0 for c in cumulative]
    first = min(c for c in cumulative if c > 0)
    kept = set()
    for t in range(samples):
        y = first + t * (1 - first) / max(samples - 1, 1)
        gaps = [abs(c - y) for c in cumulative]
        kept.add(order[gaps.index(min(gaps))])
    assert len(kept) < tokens - 1 or samples >= tokens - 1
    assert decision.reduction.keep[0].tolist() == sorted({0} | kept)


def test_ats_acts_from_a_quarter_of_the_depth_on_and_never_asks_for_less_than_eight() -> None:
    shape = ModelShape("vit-b", "vit", 12, 12, 12, 64, 768, 3072)
    (stage,) = build("ats:n_tokens=197").stages(shape)
    steps = stage.schedule.plan(shape)
    assert [step.layer for step in steps] == list(range(3, 12))
    assert steps[0].budget.keep_count(300, 300) == 197
    (stage,) = build("ats:keep=0.1").stages(shape)
    assert stage.schedule.plan(shape)[0].budget.keep_count(50, 50) == 8


@pytest.mark.parametrize("seed", range(4))
def test_avit_output_is_the_sum_over_depth(seed: int) -> None:
    """Against the published bookkeeping: cumulative score, remainder and mask of every token of a toy of four layers."""
    model, margin, scale, center = tiny_vit("eager"), 0.01, 1.0, 1.0 + seed / 2
    pixels = images(2, seed)
    with torch.no_grad(), topsieve.reduce(model, f"a-vit:gate_scale={scale},gate_center={center}") as reduced:
        got = model(pixel_values=pixels).last_hidden_state
    counts = [layer.attention_tokens.tolist() for layer in reduced.record.layers]

    with torch.no_grad():
        x = model.embeddings(pixels)
        cumulative, remainder = torch.zeros(x.shape[:2]), torch.ones(x.shape[:2])
        out, alive = torch.zeros_like(x), torch.ones(x.shape[:2], dtype=torch.bool)
        for index, layer in enumerate(model.layers):
            assert counts[index] == alive.sum(-1).tolist()
            mask = torch.zeros(x.shape[:2]).masked_fill(~alive, torch.finfo(torch.float32).min)[:, None, None]
            x = layer(x, mask.expand(-1, -1, x.shape[1], -1))
            halt = torch.sigmoid(scale * x[..., 0] - center)
            if index == len(model.layers) - 1:
                halt = torch.ones_like(halt)
            cumulative = cumulative + halt * alive
            reached = alive & (cumulative > 1 - margin)
            going = alive & ~reached
            out = out + x * (remainder * reached + halt * going).unsqueeze(-1)
            remainder = remainder - halt * going
            alive = alive & (cumulative < 1 - margin)
            if index < len(model.layers) - 1:
                assert alive.any(-1).all(), "the drawn gates leave a token in every image"
        wanted = model.layernorm(out)
    assert counts[-1] != counts[0]
    # Float32 rounding of another summation order, through four layers.
    assert (got - wanted).norm() < 1e-5 * wanted.norm()


def split(tokens: int, text: int) -> list[bool]:
    """Two tokens of text, the image, `text` tokens of text."""
    return [False] * 2 + [True] * tokens + [False] * text


@given(tokens=TOKENS, seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_fastv(tokens: int, seed: int, keep: float) -> None:
    segment = split(tokens, 3)
    sequence = Sequence(len(segment), seed)
    shape = ModelShape("l", "llama", 4, 3, 3, 4, 12, 16, tower=Tower.LANGUAGE)
    stage, step = step_of(f"fastv:keep={keep}", shape=shape)
    assert (step.site, step.layer) == (Site.LAYER, 1)
    decision = decide(stage, step, sequence.context(1, segment=segment))
    score = {j: float(sequence.probability[:, -1, j].mean()) for j in range(len(segment)) if segment[j]}
    kept = best(score, max(1, round(tokens * keep)))
    assert decision.reduction.keep[0].tolist() == sorted([j for j in range(len(segment)) if not segment[j]] + kept)


@given(tokens=TOKENS, seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_fastervlm(tokens: int, seed: int, keep: float) -> None:
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"fastervlm:keep={keep}")
    assert (step.site, step.layer) == (Site.PROJECTED, SHAPE.layers - 1)
    score = {j: float(sequence.probability[:, 0, j].mean()) for j in range(1, tokens)}
    kept = best(score, math.floor(round((tokens - 1) * keep, 9)))
    assert decide(stage, step, sequence.context(3)).reduction.keep[0].tolist() == [0, *kept]


@given(tokens=st.integers(3, 20), seed=SEEDS, dominant=st.integers(1, 9), contextual=st.integers(1, 6))
@BOUNDED
def test_visionzip(tokens: int, seed: int, dominant: int, contextual: int) -> None:
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"visionzip:dominant={dominant},contextual={contextual}")
    assert step.site is Site.OUTPUT
    decision = decide(stage, step, sequence.context(3))
    score = {j: float(sequence.probability[:, 0, j].sum()) for j in range(1, tokens)}
    if dominant + contextual >= tokens:
        # The budget takes contextual tokens out of what there is.
        contextual = min(contextual, tokens - 1)
        dominant = tokens - contextual
    top = [0, *best(score, dominant - 1)]
    rest = [j for j in range(tokens) if j not in top]
    step_size = max(1, len(rest) // contextual)
    targets = [rest[i] for i in range(0, len(rest), step_size)][:contextual]
    metric = sequence.key.mean(0)
    rows = {j: sequence.x[j].copy() for j in [*top, *targets]}
    members: dict[int, list[int]] = {target: [] for target in targets}
    for j in rest:
        if j not in targets:
            likeness = [cosine(metric[j], metric[target]) for target in targets]
            members[targets[likeness.index(max(likeness))]].append(j)
    for target, group in members.items():
        if group:
            rows[target] += sum(sequence.x[j] for j in group) / len(group)
    same(sequence.reduced(decision), np.array([rows[j] for j in sorted(rows)]))
    sizes = [1 + len(members.get(j, [])) for j in sorted(rows)]
    assert decision.reduction.size[0].tolist() == sizes


@given(tokens=TOKENS, seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_divprune(tokens: int, seed: int, keep: float) -> None:
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"divprune:keep={keep}")
    ids = range(1, tokens)
    count = round((tokens - 1) * keep)
    picked: list[int] = []
    distance = {(i, j): 1 - cosine(sequence.x[i], sequence.x[j]) for i in ids for j in ids}
    while len(picked) < count:
        if not picked:
            merit = {j: min([distance[i, j] for i in ids if i != j], default=0.0) for j in ids}
        else:
            merit = {j: min(distance[i, j] for i in picked) for j in ids if j not in picked}
        picked.append(max(merit, key=lambda j: (merit[j], -j)))
    assert decide(stage, step, sequence.context(3)).reduction.keep[0].tolist() == sorted([0, *picked])


def gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


@given(tokens=st.integers(3, 17), seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_dynamicvit(tokens: int, seed: int, keep: float) -> None:
    """The second stage, with the first one's weights of another seed left aside."""
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"dynamicvit:keep_rate={keep},seed=3", layer=1)
    decision = decide(stage, step, sequence.context(1, initial=tokens + 2))
    network = {k: v.double().numpy() for k, v in predictor_network("", 1, SHAPE.width, 3).state_dict().items()}

    def linear(name: str, x: Array) -> Array:
        return network[f"{name}.weight"] @ x + network[f"{name}.bias"]

    inner = {}
    for j in range(1, tokens):
        x = sequence.x[j]
        normed = (x - x.mean()) / math.sqrt(x.var() + 1e-5)
        inner[j] = np.array([gelu(v) for v in linear("in_conv.1", normed)])
    half = SHAPE.width // 2
    mean = sum(row[half:] for row in inner.values()) / len(inner)
    score = {}
    for j, row in inner.items():
        y = np.array([gelu(v) for v in linear("out_conv.0", np.concatenate([row[:half], mean]))])
        y = np.array([gelu(v) for v in linear("out_conv.2", y)])
        y = linear("out_conv.4", y)
        score[j] = float(y[0] - math.log(np.exp(y).sum()))
    kept = best(score, min(math.floor(round((tokens + 1) * round(keep**2, 12), 9)), tokens - 1))
    assert decision.reduction.keep[0].tolist() == [0, *kept]


def test_dynamicvit_counts_of_the_paper() -> None:
    """196 patches: 137, 96 and 67 before blocks 3, 6 and 9 of 12."""
    shape = ModelShape("deit-s", "vit", 12, 6, 6, 64, 384, 1536)
    (stage,) = build("dynamicvit:keep_rate=0.7").stages(shape)
    steps = stage.schedule.plan(shape)
    assert [step.layer for step in steps] == [2, 5, 8]
    assert [step.budget.keep_count(197, 197) - 1 for step in steps] == [137, 96, 67]


@given(tokens=st.integers(4, 20), seed=SEEDS, plus=st.booleans(), neighbours=st.integers(1, 5), fixed=st.booleans())
@BOUNDED
def test_prumerge(tokens: int, seed: int, plus: bool, neighbours: int, fixed: bool) -> None:
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"prumerge:plus={plus},neighbours={neighbours}" + (",keep=0.4" if fixed else ""))
    context = sequence.context(3)
    query, keys = (x.transpose(1, 0, 2).reshape(tokens, -1) for x in (sequence.query, sequence.key))
    logits = keys @ query[0] / math.sqrt(query.shape[1])
    attention = np.exp(logits) / np.exp(logits).sum()
    context.signals[Signal.ATTENTION_JOINT_CLS_ROW] = torch.from_numpy(attention)[None, None]
    decision = decide(stage, step, context)

    ids = list(range(1, tokens))
    n = len(ids)
    scores = [attention[j] for j in ids]
    low, high = np.percentile(scores, 25), np.percentile(scores, 75)
    share = sum(c > high + 1.5 * (high - low) for c in scores) / n
    count = max(1, math.floor(round(n * (0.4 if fixed else share), 9)))
    kept = set(best({j: float(attention[j]) for j in ids}, count))
    if plus:
        places = range(1, max(n - 1, 1), 2) if fixed else range(0, max(n - 1, 1), max(1, int(int(n / count) / 3)))
        kept |= {ids[i] for i in places}
    rest = [j for j in ids if j not in kept]
    rows = [sequence.x[0]]
    for i in sorted(kept):
        row = sequence.x[i].copy()
        if rest:
            others = sorted((j for j in ids if j != i), key=lambda j: (-cosine(keys[i], keys[j]), j))
            row += sum(attention[j] * sequence.x[j] for j in others[:neighbours])
        rows.append(row)
    if rest:
        rows.append(sum(attention[j] * sequence.x[j] for j in rest))
    same(sequence.reduced(decision), np.array(rows))
    assert decision.reduction.size.sum() == tokens


LANGUAGE = ModelShape("l", "llama", 8, 3, 3, 4, 12, 16, tower=Tower.LANGUAGE, class_token=False)


def text_and(kept: list[int], segment: list[bool]) -> list[int]:
    return sorted([j for j in range(len(segment)) if not segment[j]] + kept)


@given(tokens=TOKENS, seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_pyramiddrop(tokens: int, seed: int, keep: float) -> None:
    segment = split(tokens, 3)
    sequence = Sequence(len(segment), seed)
    stage, step = step_of(f"pyramiddrop:keep={keep}", layer=5, shape=LANGUAGE)
    assert stage.renumber
    decision = decide(stage, step, sequence.context(5, initial=tokens + 1, segment=segment))
    score = dict.fromkeys(range(len(segment)), 0.0)
    for h in range(SHAPE.heads):
        weight = np.exp(sequence.next_key[h] @ sequence.next_query[h][-1] / math.sqrt(SHAPE.head_dim))
        for j in score:
            score[j] += weight[j] / weight.sum() / SHAPE.heads
    count = max(1, math.floor(round((tokens + 1) * keep, 9)))
    kept = best({j: s for j, s in score.items() if segment[j]}, min(count, tokens))
    assert decision.reduction.keep[0].tolist() == text_and(kept, segment)


def test_pyramiddrop_counts_of_the_paper() -> None:
    """576 image tokens: 288, 144 and 72 are left after 8, 16 and 24 of 32 layers."""
    shape = ModelShape("vicuna", "llama", 32, 32, 32, 128, 4096, 11008, tower=Tower.LANGUAGE)
    (stage,) = build("pyramiddrop").stages(shape)
    steps = stage.schedule.plan(shape)
    assert [step.layer for step in steps] == [7, 15, 23]
    assert [step.budget.keep_count(576, 576) for step in steps] == [288, 144, 72]


@given(tokens=st.integers(2, 24), seed=SEEDS, keep=KEEPS, image=st.integers(1, 3), text=st.integers(0, 3))
@BOUNDED
def test_dart(tokens: int, seed: int, keep: float, image: int, text: int) -> None:
    segment = split(tokens, 3)
    sequence = Sequence(len(segment), seed)
    name = f"dart:keep={keep},image_pivots={image},text_pivots={text}"
    stage, step = step_of(name, shape=LANGUAGE)
    decision = decide(stage, step, sequence.context(step.layer, segment=segment))
    length = [float(np.abs(sequence.key[:, j]).sum()) for j in range(len(segment))]
    order = sorted(range(len(segment)), key=lambda j: -length[j])
    own = [j for j in order if segment[j]][:image]
    taken = set(own)
    each = math.floor(round(tokens * keep, 9) / (image + text))
    for pivot in own + [j for j in order if not segment[j]][:text]:
        left = [j for j in range(len(segment)) if segment[j] and j not in taken]
        taken |= set(sorted(left, key=lambda j: cosine(sequence.x[j], sequence.x[pivot]))[:each])
    assert decision.reduction.keep[0].tolist() == text_and(sorted(taken), segment)


def attention_rows(sequence: Sequence, row: int) -> Array:
    """Causal probabilities of one query, [heads, row + 1]."""
    logits = np.array([k[: row + 1] @ q[row] for q, k in zip(sequence.query, sequence.key, strict=True)])
    weight = np.exp(logits / math.sqrt(SHAPE.head_dim))
    return np.asarray(weight / weight.sum(1, keepdims=True))


@given(tokens=st.integers(3, 40), seed=SEEDS, keep=st.sampled_from([0.1, 0.3, 0.6]))
@BOUNDED
def test_sparsevlm(tokens: int, seed: int, keep: float) -> None:
    segment = split(tokens, 4)
    n = len(segment)
    sequence, after = Sequence(n, seed), Sequence(n, seed + 1)
    (stage,) = build(f"sparsevlm:keep={keep}").stages(LANGUAGE)
    choose, *steps = stage.schedule.plan(LANGUAGE)
    assert [(step.site, step.layer) for step in (choose, steps[0])] == [(Site.INPUT, -1), (Site.LAYER, 0)]
    raters = decide(stage, choose, sequence.context(-1, segment=segment)).reduction
    assert raters.keep[0].tolist() == list(range(n))
    decision = decide(stage, steps[-1], after.context(steps[-1].layer, state=raters.scores, segment=segment))

    text, image = ([j for j in range(n) if segment[j] is kind] for kind in (False, True))
    share = dict.fromkeys(text, 0.0)
    for v in image:
        weight = np.exp([sequence.x[v] @ sequence.x[t] for t in text])
        for t, w in zip(text, weight / weight.sum(), strict=True):
            share[t] += float(w) / tokens
    chosen = [t for t in text if share[t] > sum(share.values()) / len(text)]
    score = {
        j: float(np.mean([attention_rows(after, t)[:, j] if j <= t else np.zeros(SHAPE.heads) for t in chosen]))
        for j in image
    }
    k = max(1, math.floor(round(tokens * keep, 9)))
    kept = best(score, k)
    dropped = {j: s for j, s in score.items() if j not in kept}
    m = len(dropped)
    rows = {j: after.x[j] for j in [*text, *kept]}
    if m:
        recycled = best(dropped, min(int(0.3 * m + 1e-9) + 1, m))
        centres = min(len(recycled) // 10 + 1, len(recycled))
        for centre, group in density_peaks(after.x, recycled, centres).items():
            rows[centre] = np.mean([after.x[j] for j in group], axis=0)
    same(after.reduced(decision), np.array([rows[j] for j in sorted(rows)]))


def density_peaks(x: Array, ids: list[int], centres: int) -> dict[int, list[int]]:
    """Members of each centre: specification `methods-more`, SparseVLM."""
    distance = {(i, j): float(np.linalg.norm(x[i] - x[j])) / math.sqrt(x.shape[1]) for i in ids for j in ids}
    density = {i: math.exp(-float(np.mean(sorted(distance[i, j] ** 2 for j in ids)[:centres]))) for i in ids}
    merit = {}
    for i in ids:
        denser = [distance[i, j] for j in ids if density[j] > density[i]]
        merit[i] = density[i] * (min(denser) if denser else max(distance[i, j] for j in ids))
    chosen = best(merit, centres)
    members: dict[int, list[int]] = {centre: [centre] for centre in chosen}
    for i in ids:
        if i not in chosen:
            members[min(chosen, key=lambda centre: (distance[i, centre], centre))].append(i)
    return members


@given(tokens=TOKENS, seed=SEEDS, keep=KEEPS, cutoff=st.sampled_from([0.21, 0.6, 1.0]))
@BOUNDED
def test_pact(tokens: int, seed: int, keep: float, cutoff: float) -> None:
    segment = split(tokens, 3)
    sequence = Sequence(len(segment), seed)
    stage, step = step_of(f"pact:keep={keep},cutoff={cutoff}", shape=LANGUAGE)
    assert step.layer == 3
    decision = decide(stage, step, sequence.context(3, segment=segment))
    image = [j for j, visual in enumerate(segment) if visual]
    score = dict.fromkeys(image, 0.0)
    for h in range(SHAPE.heads):
        mean = sequence.next_query[h][image].mean(0)
        weight = np.exp(sequence.next_key[h][image] @ mean / math.sqrt(SHAPE.head_dim))
        for j, w in zip(image, weight / weight.sum(), strict=True):
            score[j] += float(w) / SHAPE.heads * float(np.linalg.norm(sequence.x[j]))
    kept = best(score, max(1, math.floor(round(tokens * keep, 9))))
    keys = sequence.next_key.transpose(1, 0, 2).reshape(len(segment), -1)

    def distance(i: int, j: int) -> float:
        return 0.0 if i == j else 1 - cosine(keys[i], keys[j])

    density = {i: sum(math.exp(-((distance(i, j) / 2) ** 2)) for j in kept) for i in kept}
    centres: list[int] = []
    for i in sorted(kept, key=lambda i: -density[i]):
        if all(distance(i, centre) > cutoff for centre in centres):
            centres.append(i)
    members: dict[int, list[int]] = {centre: [] for centre in centres}
    for j in image:
        nearest = min(centres, key=lambda centre: distance(j, centre))
        if j in kept or distance(j, nearest) <= 1.5 * cutoff:
            members[nearest].append(j)
    rows = {j: sequence.x[j] for j, visual in enumerate(segment) if not visual}
    rows |= {centre: np.mean([sequence.x[j] for j in group], axis=0) for centre, group in members.items()}
    same(sequence.reduced(decision), np.array([rows[j] for j in sorted(rows)]))
    size = dict(zip(sorted(rows), decision.reduction.size[0].tolist(), strict=True))
    assert all(size[centre] == len(group) for centre, group in members.items())
    policies = [build("pact").attention(LANGUAGE, layer).size_bias for layer in (3, 4)]
    assert policies == [False, True]


@given(length=st.integers(1, 6), frames=st.integers(1, 9), more=st.integers(0, 1), seed=SEEDS, keep=KEEPS)
@BOUNDED
def test_dycoke(length: int, frames: int, more: int, seed: int, keep: float) -> None:
    tokens = 1 + length * frames + (more if frames > 1 else 0)
    sequence = Sequence(tokens, seed)
    stage, step = step_of(f"dycoke:keep={keep},frames={frames}")
    decision = decide(stage, step, sequence.context(3))
    gone: set[int] = set()
    pairs = [(i, i + 1) for i in range(0, frames - 1, 2)]
    i = 0
    while i < frames - 4:
        pairs.append((i, i + 2))
        i += 4
    for earlier, later in pairs:
        places = range(length)
        alike = {p: cosine(sequence.x[1 + earlier * length + p], sequence.x[1 + later * length + p]) for p in places}
        stays = sorted(places, key=lambda p: (alike[p], p))[: math.floor(round(length * keep, 9))]
        gone |= {1 + later * length + p for p in places if p not in stays}
    assert decision.reduction.keep[0].tolist() == [j for j in range(tokens) if j not in gone]


def test_toy_runs_what_the_oracles_check() -> None:
    """The steps that the oracles look at are those that the toy takes."""
    hidden, valid = batch([12], seed=5)
    for name in VISION_METHODS:
        method = build(name, keep=0.5 if describe(name).takes_keep else None)
        assert run(method, hidden, valid).decisions
