"""Train `digits-vit`: a ViT of six layers on handwritten digits of 8 x 8 pixels, one patch a pixel.

`python -m topsieve.subjects.digits_vit.train [FOLDER]`: about three minutes on one core. The seed is fixed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import ViTConfig, ViTForImageClassification

from topsieve.subjects.digits_vit.digits import SIDE, load_digits

CHECKPOINT = Path(__file__).parent / "checkpoint"

SEED = 0
EPOCHS = 60
BATCH = 64
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.05


def config() -> ViTConfig:
    """64 patches and CLS; six layers of three heads of 16."""
    return ViTConfig(
        image_size=SIDE,
        patch_size=1,
        num_channels=1,
        hidden_size=48,
        num_hidden_layers=6,
        num_attention_heads=3,
        intermediate_size=96,
        initializer_range=0.1,
        num_labels=10,
    )


def shifted(images: Tensor, random: torch.Generator) -> Tensor:
    """Each image [B, 8, 8] moved by at most one pixel each way."""
    padded = functional.pad(images, (1, 1, 1, 1))
    down, right = torch.randint(0, 3, (2, len(images)), generator=random)
    return torch.stack(
        [image[y : y + SIDE, x : x + SIDE] for image, y, x in zip(padded, down.tolist(), right.tolist(), strict=True)]
    )


def accuracy(model: ViTForImageClassification) -> float:
    """Share of the test images that are recognised."""
    test = load_digits("test")
    with torch.no_grad():
        guesses = model.eval()(pixel_values=test.images.unsqueeze(1)).logits.argmax(-1)
    return float((guesses == test.labels).double().mean())


def train() -> ViTForImageClassification:
    """The trained model, ready to run."""
    torch.manual_seed(SEED)
    random = torch.Generator().manual_seed(SEED)
    model = ViTForImageClassification(config())
    training = load_digits("training")
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    batches = -(-len(training.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, EPOCHS * batches)
    for epoch in range(EPOCHS):
        model.train()
        for chosen in torch.randperm(len(training.labels), generator=random).split(BATCH):
            pixels = shifted(training.images[chosen], random).unsqueeze(1)
            loss = functional.cross_entropy(model(pixel_values=pixels).logits, training.labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, test accuracy {accuracy(model):.3f}", flush=True)
    return model.eval()


def main(folder: str | Path = CHECKPOINT) -> None:
    """Train and store."""
    torch.set_num_threads(1)
    train().half().save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:2])
