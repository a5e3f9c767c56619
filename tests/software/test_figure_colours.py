"""The figures as colour-blind readers see them: what no marker or hatch tells apart, a colour they can see does.

Dichromatic vision is simulated with the matrices of Machado, Oliveira and Fernandes, "A Physiologically-based Model for
Simulation of Color Vision Deficiency" (2009), table for severity 1.0, on linear RGB.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from topsieve.explain import ACTIVITIES, BUSY_SHADES
from topsieve.plots import PALETTE, SURVIVAL

VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
# Of sRGB's primaries with white D65 (IEC 61966-2-1).
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
# The least difference that is seen between large fields side by side (Mahy, Van Eycken and Oosterlinck, 1994).
JUST_NOTICEABLE = 2.3
# Marks are small and lie apart; categorical colours are commonly kept at least this many just noticeable steps apart.
STEPS = 4


def lab(colour: str, vision: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a colour as that vision has it."""
    coded = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    seen = XYZ @ np.clip(vision @ linear, 0, 1) / XYZ.sum(axis=1)
    root = np.where(seen > (6 / 29) ** 3, np.cbrt(seen), seen / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


def difference(first: str, second: str, vision: str) -> float:
    """Delta E (1976)."""
    return float(np.linalg.norm(lab(first, VISIONS[vision]) - lab(second, VISIONS[vision])))


def test_the_measure_knows_what_the_colour_blind_confuse() -> None:
    """White is L* = 100; red and green of one lightness are far apart for normal vision and near for deuteranopes."""
    assert lab("#FFFFFF", VISIONS["normal"])[0] == pytest.approx(100, abs=0.1)
    red, green = "#C0504D", "#7F7F2A"
    assert difference(red, green, "deuteranopia") < difference(red, green, "normal") / 2


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_that_stand_alone_are_told_apart(vision) -> None:
    alone = {
        "palette": list(PALETTE),
        "activities without a hatch": [colour for colour, hatch, _ in ACTIVITIES.values() if not hatch],
        "survival": [colour for colour, _ in SURVIVAL.values()],
        "designs and front": [PALETTE[4], PALETTE[5]],
        "shades of busy": list(BUSY_SHADES),
    }
    for name, colours in alone.items():
        for first, second in itertools.combinations(colours, 2):
            assert difference(first, second, vision) >= STEPS * JUST_NOTICEABLE, (name, first, second)


def test_shades_of_busy_darken_for_every_reader() -> None:
    for vision in VISIONS.values():
        lightness = [lab(colour, vision)[0] for colour in BUSY_SHADES]
        assert lightness == sorted(lightness, reverse=True)
