"""Train the two small heads that prompt methods use on MiniLM here: no weights of the published compressors are at hand.

    python -m topsieve.prompt.train [FOLDER]

MiniLM stays as it is; both heads are logistic regressions on what it puts out, fitted to their optimum, so the result does
not depend on chance beyond the draw of the negatives. The text is the prose of the Python reference without the
paragraphs of `topsieve.corpus.python_reference()`, on which methods are compared.

* `keep`, for LLMLingua-2: is a word worth keeping? Teacher: MiniLM itself. Of each paragraph, the half of the words whose
  removal moves its embedding most are labelled 1. The paper's teacher was GPT-4 and its whole encoder learned.
* `judge`, for EXIT: does a sentence belong to a question? Two numbers over the cosine of MiniLM's embeddings. The question is a paragraph's first sentence. Positive: its
  other sentences. Negative, as many: half of them the most similar sentences of other paragraphs, half drawn. The paper
  tuned a language model of two thousand million parameters on HotpotQA.

Writes `heads.safetensors` and `training.json` into FOLDER, the package's own by default. A few minutes on one thread.
"""

from __future__ import annotations

import platform
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from topsieve.corpus import python_reference, sentences
from topsieve.models import mean_pool
from topsieve.pretrained import MINILM_SHA256, Pretrained, load_pretrained
from topsieve.prompt.classifier import CHECKPOINT, HEADS, TRAINING, TRAINING_COMMAND
from topsieve.results import json_text
from topsieve_sim.files import written_whole

SEED = 1
EVERY_PARAGRAPH = 1_000_000
TEST_SHARE = 0.2
KEPT_SHARE = 0.5
BATCH = 32
# Of the squared weights, beside the mean loss.
PENALTY = 1e-3


def training_paragraphs() -> tuple[str, ...]:
    """Prose of the Python reference that no comparison uses."""
    compared = set(python_reference().paragraphs)
    return tuple(text for text in python_reference(EVERY_PARAGRAPH).paragraphs if text not in compared)


def embeddings(pretrained: Pretrained, texts: Sequence[str]) -> Tensor:
    """Unit embeddings, float [T, C]."""
    rows = pretrained.tokens(texts)
    found = []
    for start in range(0, len(rows), BATCH):
        batch = pretrained.batch(rows[start : start + BATCH])
        hidden = pretrained.model(**batch).last_hidden_state
        mask = batch["attention_mask"]
        found.append(mean_pool(hidden, mask.bool(), mask.float()))
    return nn.functional.normalize(torch.cat(found), dim=-1)


def kept_words(pretrained: Pretrained, paragraph: str) -> list[bool]:
    """For each word between blanks: is it in the half whose removal moves the embedding most? Ties: the earlier word."""
    words = paragraph.split()
    without = [" ".join(words[:index] + words[index + 1 :]) for index in range(len(words))]
    vectors = embeddings(pretrained, [paragraph, *without])
    moved = (1 - vectors[1:] @ vectors[0]).tolist()
    ranked = sorted(range(len(words)), key=lambda index: (-moved[index], index))
    best = set(ranked[: round(len(words) * KEPT_SHARE)])
    return [index in best for index in range(len(words))]


def labelled_pieces(pretrained: Pretrained, paragraph: str) -> tuple[Tensor, Tensor]:
    """Last hidden states of the pieces, float [n, C], and the labels of their words, float [n]."""
    labels = kept_words(pretrained, paragraph)
    words = paragraph.split()
    given = pretrained.tokenizer(words, is_split_into_words=True, return_tensors="pt")
    hidden = pretrained.model(**given).last_hidden_state[0]
    places = [(place, word) for place, word in enumerate(given.word_ids()) if word is not None]
    return hidden[[place for place, _ in places]], torch.tensor([float(labels[word]) for _, word in places])


def judged_pairs(pretrained: Pretrained, paragraphs: Sequence[str], draw: random.Random) -> tuple[Tensor, Tensor]:
    """Cosines of question and sentence embeddings, float [n, 1], and whether they belong together, float [n]."""
    split = [sentences(paragraph) for paragraph in paragraphs]
    texts = [sentence for part in split for sentence in part]
    owner = [number for number, part in enumerate(split) for _ in part]
    vectors = embeddings(pretrained, texts)
    features, labels = [], []
    start = 0
    for number, part in enumerate(split):
        question = vectors[start]
        positive = list(range(start + 1, start + len(part)))
        others = [index for index in range(len(texts)) if owner[index] != number]
        near = sorted(others, key=lambda index: (-float(vectors[index] @ question), index))
        hard = near[: len(positive) // 2]
        drawn = draw.sample(others, len(positive) - len(hard))
        for index, label in [*((i, 1.0) for i in positive), *((i, 0.0) for i in (*hard, *drawn))]:
            features.append((question @ vectors[index]).reshape(1))
            labels.append(label)
        start += len(part)
    return torch.stack(features), torch.tensor(labels)


def fitted(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Weight float [C] and bias of the logistic regression with a quadratic penalty, at its optimum."""
    centre, spread = features.double().mean(0), features.double().std(0)
    x, y = (features.double() - centre) / spread, labels.double()
    weight, bias = torch.zeros(x.shape[1], dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    parameters = [weight.requires_grad_(), bias.requires_grad_()]
    optimiser = torch.optim.LBFGS(parameters, max_iter=500, tolerance_grad=1e-8, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(x @ weight + bias, y) + PENALTY * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    scaled = (weight / spread).detach()
    return scaled, (bias - scaled @ centre).detach()


def accuracy(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> float:
    """Share of right answers at a score of 0."""
    right = (features.double() @ weight + bias > 0) == labels.bool()
    return round(float(right.double().mean()), 4)


def train() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The heads, and what was seen on the way. A fifth of the paragraphs is held out of the fit."""
    torch.set_num_threads(1)
    draw = random.Random(SEED)
    pretrained = load_pretrained()
    paragraphs = list(training_paragraphs())
    draw.shuffle(paragraphs)
    tested = round(len(paragraphs) * TEST_SHARE)
    parts = {"test": paragraphs[:tested], "train": paragraphs[tested:]}
    heads: dict[str, Tensor] = {}
    seen: dict[str, Any] = {"paragraphs": {name: len(part) for name, part in parts.items()}}
    with torch.no_grad():
        pieces = {
            name: tuple(
                torch.cat(found) for found in zip(*(labelled_pieces(pretrained, text) for text in part), strict=True)
            )
            for name, part in parts.items()
        }
        pairs = {name: judged_pairs(pretrained, part, draw) for name, part in parts.items()}
    for name, data in (("keep", pieces), ("judge", pairs)):
        weight, bias = fitted(*data["train"])
        seen[name] = {
            "examples": {part: len(labels) for part, (_, labels) in data.items()},
            "positive_share": {part: round(float(labels.mean()), 4) for part, (_, labels) in data.items()},
            "accuracy": {part: accuracy(x, y, weight, bias) for part, (x, y) in data.items()},
        }
        if name == "keep":
            heads["keep.weight"] = torch.stack([torch.zeros_like(weight), weight]).float()
            heads["keep.bias"] = torch.stack([torch.zeros_like(bias), bias]).float()
        else:
            heads["judge.weight"], heads["judge.bias"] = weight[0].float(), bias.float()
    return heads, seen


def main() -> None:
    """Train and write."""
    from safetensors.torch import save

    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKPOINT
    folder.mkdir(parents=True, exist_ok=True)
    heads, seen = train()
    with written_whole(folder / HEADS, "wb") as stream:
        stream.write(save(heads, {"format": "pt"}))
    facts = {
        "command": TRAINING_COMMAND,
        "seed": SEED,
        "encoder_sha256": MINILM_SHA256,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu_seconds": round(time.process_time(), 1),
        **seen,
    }
    with written_whole(folder / TRAINING) as stream:
        stream.write(json_text(facts))


if __name__ == "__main__":
    main()
