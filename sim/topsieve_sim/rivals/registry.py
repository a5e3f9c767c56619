"""The rivals by name, and from text: `a3`, `a3:search=0.125,margin_percent=10`, `roofline:platform=h100-sxm`."""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from topsieve_sim.errors import InputError
from topsieve_sim.fields import validated
from topsieve_sim.rivals.a3 import A3
from topsieve_sim.rivals.elsa import Elsa
from topsieve_sim.rivals.machine import Rival
from topsieve_sim.rivals.mnnfast import MNNFast
from topsieve_sim.rivals.roofline import Roofline, load_platform
from topsieve_sim.rivals.sanger import Sanger
from topsieve_sim.rivals.systolic import Systolic
from topsieve_sim.rivals.token_picker import TokenPicker

Entrant = Rival | Roofline

RIVALS: dict[str, type[Entrant]] = {
    entrant.name: entrant for entrant in (A3, MNNFast, Elsa, Sanger, TokenPicker, Systolic, Roofline)
}

# The base A3 first: what the others do without approximating.
DEFAULT = (
    "systolic",
    "a3:search=0,margin_percent=0",
    "a3",
    "mnnfast",
    "elsa",
    "sanger",
    "token_picker",
    "roofline:platform=titan-xp",
)


def build(text: str) -> Entrant:
    """The rival that `text` names, `NAME` or `NAME:KNOB=VALUE,KNOB=VALUE`.

    Raises
    ------
    InputError
        unknown rival or knob, or a value that is not allowed.
    """
    name, _, settings = text.partition(":")
    name = name.strip()
    if name not in RIVALS:
        raise InputError("unknown rival", value=name, allowed=", ".join(RIVALS))
    values: dict[str, object] = {}
    for setting in filter(None, (part.strip() for part in settings.split(","))):
        knob, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            raise InputError("wrong setting", source=f"rival {name}", value=setting, allowed="knob=value")
        if knob in values:
            raise InputError("knob given twice", source=f"rival {name}", field=knob)
        try:
            values[knob] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError("not a value", source=f"rival {name}", field=knob, value=value) from error
    entrant = validated(RIVALS[name], values, f"rival {name}")
    if isinstance(entrant, Roofline):
        load_platform(entrant.platform)
    return entrant


def build_all(texts: Iterable[str]) -> tuple[Entrant, ...]:
    """Several rivals, in order.

    Raises
    ------
    InputError
        as `build`, or one is named twice.
    """
    entrants = tuple(build(text) for text in texts)
    if not entrants:
        raise InputError("no rival given", allowed=", ".join(RIVALS))
    labels = [entrant.label for entrant in entrants]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError("rival given twice", value=label)
    return entrants
