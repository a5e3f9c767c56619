"""Train `byte-gpt`: a GPT-2 of bytes that continues the Python reference and answers recall questions.

    python -m topsieve.subjects.byte_gpt.train [FOLDER]

One thread, fixed seed, about ten minutes of CPU time. Writes the checkpoint (half precision) and `training.json` into
FOLDER, which is the package's own by default.
"""

from __future__ import annotations

import json
import platform
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from topsieve.results import json_text
from topsieve.subjects.byte_gpt import text
from topsieve.subjects.byte_gpt.model import CHECKPOINT, HEADS, POSITIONS, TRAINING, WEIGHTS, WIDTH, configuration
from topsieve_sim.files import written_whole

SEED = 1
# Phases: steps, rows, bytes a row. Long rows come last; by then only the distances are new.
PHASES = ((600, 16, 256), (60, 8, 512))
MATRIX_RATE, VECTOR_RATE = 0.006, 0.001
ANSWER_WEIGHT = 4.0
# Of the start: size of embeddings, and of the products of queries and keys that match.
EMBEDDING_SCALE, SHARPNESS = 0.08, 4.0
REPORT_EVERY = 50


def batch(draw: random.Random, rows: int, length: int, progress: float) -> tuple[Tensor, Tensor]:
    """int64 [rows, length] and the weight of each byte's loss, float [rows, length].

    Half of the rows are plain text; the others recall sequences, dense at first and mostly text in the end.
    """
    tokens, weights = [], []
    for row in range(rows):
        if row % 2:
            content, answers = text.window(draw, text.reference(held_out=False), length), []
        else:
            filler = (
                draw.choice((0.0, 4.0, 12.0 + 20.0 * progress)) if progress < 0.6 else draw.choice((4.0, 16.0, 48.0))
            )
            content, answers = text.recall_training(draw, length, filler)
        weight = torch.ones(length)
        weight[answers] = ANSWER_WEIGHT
        tokens.append(torch.frombuffer(bytearray(content), dtype=torch.uint8).long())
        weights.append(weight)
    return torch.stack(tokens), torch.stack(weights)


def start(model: Any) -> None:
    """Give the model a first guess at recall: what a transformer finds by itself, but not in ten minutes.

    The residual stream starts in three parts: sinusoidal positions, the previous byte, the byte itself. One head of the
    first layer copies the previous byte; one of the second looks for places whose previous byte is the current one and
    copies what stands there. Everything is trained from there, these heads too.
    """
    width, head = WIDTH, WIDTH // HEADS
    position, before, byte = slice(0, head), slice(head, 2 * head), slice(2 * head, width)
    rate = torch.logspace(0.45, -2, head // 2)
    angle = torch.arange(POSITIONS).unsqueeze(1) * rate
    table, bytes_ = model.transformer.wpe.weight, model.transformer.wte.weight
    table.zero_()
    table[:, position] = EMBEDDING_SCALE * 1.4 * torch.cat([angle.sin(), angle.cos()], dim=1)
    bytes_.zero_()
    bytes_[:, byte] = EMBEDDING_SCALE * torch.randn(256, width - 2 * head)
    narrow = torch.linalg.qr(torch.randn(width - 2 * head, head)).Q

    copying = model.transformer.h[0].attn
    sharp = SHARPNESS**0.5
    shift = torch.zeros(head, head)
    index = torch.arange(head // 2)
    shift[index, index] = rate.cos()
    shift[index + head // 2, index + head // 2] = rate.cos()
    shift[index + head // 2, index] = -rate.sin()
    shift[index, index + head // 2] = rate.sin()
    _head(copying, position, position, byte, (sharp * shift, sharp * torch.eye(head), narrow))
    copying.c_proj.weight[:head] = 0
    copying.c_proj.weight[:head, before] = EMBEDDING_SCALE * 2**0.5 * torch.eye(head)

    matching = model.transformer.h[1].attn
    _head(matching, byte, before, byte, (sharp * narrow, sharp * torch.eye(head), narrow))
    matching.c_proj.weight[:head] = 0
    matching.c_proj.weight[:head, byte] = 6 * EMBEDDING_SCALE * narrow.T


def _head(attention: Any, query: slice, key: slice, value: slice, maps: tuple[Tensor, Tensor, Tensor]) -> None:
    """Let head 0 read its query, key and value from these parts of the residual stream."""
    head = WIDTH // HEADS
    for place, (part, weight) in enumerate(zip((query, key, value), maps, strict=True)):
        columns = slice(place * WIDTH, place * WIDTH + head)
        attention.c_attn.weight[:, columns] = 0
        attention.c_attn.weight[part, columns] = weight


def train() -> tuple[Any, list[dict[str, float]]]:
    """The trained model and what was seen on the way."""
    from transformers import GPT2LMHeadModel

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    draw = random.Random(SEED)
    model = GPT2LMHeadModel(configuration()).train()
    with torch.no_grad():
        start(model)
    matrices = [p for p in model.transformer.h.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if all(p is not m for m in matrices)]
    optimisers = (
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=VECTOR_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    )
    base = (MATRIX_RATE, VECTOR_RATE)
    total = sum(phase[0] for phase in PHASES)
    log: list[dict[str, float]] = []
    step = 0
    for steps, rows, length in PHASES:
        for _ in range(steps):
            progress = step / total
            factor = min(1.0, (step + 1) / 40) * max(0.02, 1 - progress)
            for optimiser, rate in zip(optimisers, base, strict=True):
                optimiser.param_groups[0]["lr"] = rate * factor
            tokens, weight = batch(draw, rows, length, progress)
            # Any part of the positions, so that short rows train all of them.
            place = torch.arange(length) + draw.randrange(POSITIONS - length + 1)
            logits = model(input_ids=tokens, position_ids=place.unsqueeze(0), use_cache=False).logits
            loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
            weight = weight[:, 1:].flatten()
            ((loss * weight).sum() / weight.sum()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            step += 1
            if step % REPORT_EVERY == 0 or step == total:
                log.append(_seen(step, loss.detach(), weight, logits.detach(), tokens))
                print(json.dumps(log[-1]), flush=True)
    return model.eval(), log


def _seen(step: int, loss: Tensor, weight: Tensor, logits: Tensor, tokens: Tensor) -> dict[str, float]:
    rows = loss.reshape(tokens.shape[0], -1)
    right = (logits[:, :-1].argmax(-1) == tokens[:, 1:]).flatten()[weight > 1]
    return {
        "step": step,
        "text_loss_nats": round(float(rows[1::2].mean()), 4),
        "answers_right": round(float(right.double().mean()), 4),
        "cpu_seconds": round(time.process_time(), 1),
    }


def main() -> None:
    """Train and write."""
    from safetensors.torch import save

    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKPOINT
    folder.mkdir(parents=True, exist_ok=True)
    model, log = train()
    weights = {
        name: p.to(torch.float16).contiguous() for name, p in model.state_dict().items() if name != "lm_head.weight"
    }
    with written_whole(folder / WEIGHTS, "wb") as stream:
        stream.write(save(weights, {"format": "pt"}))
    facts = {
        "command": "python -m topsieve.subjects.byte_gpt.train",
        "seed": SEED,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "text_sha256": text.digest(),
        "training_bytes": len(text.reference(held_out=False)),
        "parameters": sum(p.numel() for p in model.parameters()),
        "cpu_seconds": round(time.process_time(), 1),
        "log": log,
    }
    with written_whole(folder / TRAINING) as stream:
        stream.write(json_text(facts))


if __name__ == "__main__":
    main()
