"""Handwritten digits that come with the package: 1797 images of 8 x 8 pixels with their labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

IMAGES = Path(__file__).parent / "digits.npz"
SIDE = 8
BRIGHTEST = 16
TRAINING_IMAGES = 1437  # four fifths; the others are for tests only
SPLIT_SEED = 0


@dataclass(frozen=True)
class Digits:
    """`images` float32 [n, 8, 8] in [0, 1], `labels` int64 [n]."""

    images: Tensor
    labels: Tensor


@cache
def load_digits(part: str = "test") -> Digits:
    """The images to train on ("training") or to test with ("test"), shuffled once with a fixed seed and cut in two.

    Source: UCI "Optical Recognition of Handwritten Digits" as scikit-learn ships it; see `README.md` beside this file.

    Raises
    ------
    ValueError
        there is no such part.
    """
    if part not in ("training", "test"):
        raise ValueError(f"part must be training or test, got {part!r}")
    with np.load(IMAGES) as stored:
        images, labels = stored["images"], stored["labels"]
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    chosen = order[:TRAINING_IMAGES] if part == "training" else order[TRAINING_IMAGES:]
    return Digits(
        torch.from_numpy(images[chosen].astype(np.float32) / BRIGHTEST),
        torch.from_numpy(labels[chosen].astype(np.int64)),
    )
