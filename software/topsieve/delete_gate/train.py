"""Train a gate for MiniLM: which tokens may go before its fourth layer without moving the embedding?

    python -m topsieve.delete_gate.train [FOLDER]

MiniLM stays as it is; the gate learns by soft deletion (`topsieve.delete_gate.soft`), with the embedding's cosine to the
full model's in the place of the paper's spans of bytes, which took 5,000 steps of a million bytes. The text is the prose
of the Python reference without the paragraphs of `topsieve.corpus.python_reference()`, on which methods are compared. One
thread, fixed seed, under a minute. Writes `minilm.safetensors` and `training.json` into FOLDER, the package's own by
default.
"""

from __future__ import annotations

import copy
import dataclasses
import platform
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from topsieve.corpus import python_reference
from topsieve.delete_gate import CHECKPOINT
from topsieve.delete_gate.soft import ShareController, deleted_share, deletion_loss, soft_mask
from topsieve.methods.mrt5 import MrT5
from topsieve.pretrained import MINILM_SHA256, Pretrained, load_pretrained
from topsieve.reduction.scorers.delete_gate import GateUnit, gate_unit
from topsieve.results import json_text
from topsieve_sim.files import written_whole

SEED = 1
PARAGRAPHS, ROWS, STEPS = 240, 8, 150
RATE = 0.02
# So few steps leave the integral no time at the paper's 1e-5.
CONTROLLER = ShareController(target=0.5, k_i=2e-3)
METHOD = MrT5()


@dataclasses.dataclass(frozen=True)
class Example:
    """A paragraph: hidden states before the gate's layer, float [n, C], and the full model's embedding, float [C]."""

    hidden: Tensor
    embedding: Tensor


def examples(pretrained: Pretrained, texts: list[str]) -> list[Example]:
    """What the gate learns from."""
    found = []
    with torch.no_grad():
        for row in pretrained.tokens(texts):
            out = pretrained.model(input_ids=torch.tensor([row]), output_hidden_states=True)
            embedding = nn.functional.normalize(out.last_hidden_state[0].mean(0), dim=0)
            found.append(Example(out.hidden_states[METHOD.layer][0], embedding))
    return found


def loss_of(pretrained: Pretrained, gate: GateUnit, batch: list[Example]) -> tuple[Tensor, Tensor, Tensor]:
    """1 - cosine of the softly reduced embeddings (mean), the gates and the live tokens."""
    hidden = nn.utils.rnn.pad_sequence([example.hidden for example in batch], batch_first=True)
    lengths = torch.tensor([len(example.hidden) for example in batch])
    valid = torch.arange(hidden.shape[1]) < lengths.unsqueeze(1)
    gates = gate(hidden, METHOD.scale)
    mask = soft_mask(gates, valid, float("-inf"))
    for layer in pretrained.model.encoder.layer[METHOD.layer :]:
        hidden = layer(hidden, mask.expand(-1, 1, hidden.shape[1], -1))
    # Pooling is attention of equal scores: deleted tokens leave it by the same mask.
    share = mask[:, 0, 0].softmax(-1)
    pooled = nn.functional.normalize((hidden * share.unsqueeze(-1)).sum(1), dim=-1)
    wanted = torch.stack([example.embedding for example in batch])
    return 1 - (pooled * wanted).sum(-1).mean(), gates, valid


def train() -> tuple[GateUnit, dict[str, Any]]:
    """The gate and what was seen in the last steps."""
    torch.set_num_threads(1)
    draw = random.Random(SEED)
    pretrained = load_pretrained()
    pretrained.model.requires_grad_(False)
    compared = set(python_reference().paragraphs)
    texts = [text for text in python_reference(PARAGRAPHS + len(compared)).paragraphs if text not in compared]
    known = examples(pretrained, texts[:PARAGRAPHS])
    # The untrained gate is shared by all who ask for it.
    gate = copy.deepcopy(gate_unit("", pretrained.model.config.hidden_size, SEED)).train().requires_grad_(True)
    optimiser = torch.optim.Adam(gate.parameters(), lr=RATE)
    controller = CONTROLLER
    threshold = METHOD.scale / 2
    seen: list[tuple[float, float]] = []
    for _ in range(STEPS):
        distance, gates, valid = loss_of(pretrained, gate, draw.sample(known, ROWS))
        (distance + controller.weight * deletion_loss(gates, valid)).backward()
        optimiser.step()
        optimiser.zero_grad()
        share = deleted_share(gates.detach(), valid, threshold)
        controller = controller.after(share)
        seen.append((distance.item(), share))
    last = seen[-STEPS // 5 :]
    return gate.eval(), {
        "paragraphs": len(known),
        "steps": STEPS,
        "deleted_share": round(sum(share for _, share in last) / len(last), 4),
        "one_minus_cosine": round(sum(distance for distance, _ in last) / len(last), 4),
        "controller_weight": round(controller.weight, 5),
    }


def main() -> None:
    """Train and write."""
    from safetensors.torch import save

    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKPOINT
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.process_time()
    gate, seen = train()
    with written_whole(folder / "minilm.safetensors", "wb") as stream:
        stream.write(save({name: x.contiguous() for name, x in gate.state_dict().items()}, {"format": "pt"}))
    facts = {
        "command": "python -m topsieve.delete_gate.train",
        "seed": SEED,
        "model_sha256": MINILM_SHA256,
        "controller": dataclasses.asdict(CONTROLLER),
        "last_fifth_of_the_steps": seen,
        "cpu_seconds": round(time.process_time() - begun, 1),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    with written_whole(folder / "training.json") as stream:
        stream.write(json_text(facts))
    print(json_text(facts))


if __name__ == "__main__":
    main()
