"""Finds transforms by name and builds them from text; nothing here loads torch before a transform is built."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from topsieve.methods.parameters import MethodInfo, built, read_info
from topsieve_sim.errors import InputError

if TYPE_CHECKING:
    from topsieve.transforms.transform import Transform

TRANSFORMS = {
    "token-recycling": "topsieve.transforms.token_recycling:TokenRecycling",
    "copyspec": "topsieve.transforms.copyspec:CopySpec",
    "eqspec": "topsieve.transforms.eqspec:EqSpec",
    "r2r": "topsieve.transforms.r2r:R2R",
    "simpletool": "topsieve.transforms.simpletool:SimpleTool",
    "simultaneous": "topsieve.transforms.simultaneous:Simultaneous",
    "dupmae": "topsieve.transforms.dupmae:DupMae",
    "uscd": "topsieve.transforms.uscd:Uscd",
    "byte-probabilities": "topsieve.transforms.byte_probabilities:ByteProbabilities",
    "consistency": "topsieve.transforms.consistency:Consistency",
    "ner-adapters": "topsieve.transforms.adapters:Adapters",
    "tokenadapt": "topsieve.transforms.tokenadapt:TokenAdapt",
    "rainbow": "topsieve.transforms.rainbow:Rainbow",
}


def transform_names() -> tuple[str, ...]:
    """Names of all transforms."""
    return tuple(TRANSFORMS)


def describe(name: str) -> MethodInfo:
    """Summary and parameters of the transform `name`, without loading it.

    Raises
    ------
    InputError
        there is no such transform.
    """
    return read_info(name, _target(name))


def build(text: str) -> Transform:
    """The transform that `text` names: `name` or `name:parameter=value,parameter=value`; lists are written 30/20/10.

    Raises
    ------
    InputError
        unknown transform or parameter, or a value that is not allowed.
    """
    name, _, settings = text.partition(":")
    name = name.strip()
    module, _, class_name = _target(name).partition(":")
    transform: Transform = built(
        getattr(importlib.import_module(module), class_name), settings, source=f"transform {name}"
    )
    return transform


def _target(name: str) -> str:
    if name not in TRANSFORMS:
        raise InputError("unknown transform", field="transform", value=name, allowed=", ".join(TRANSFORMS))
    return TRANSFORMS[name]
