"""Finds methods by name and builds them from text.

Other packages add methods through the entry-point group `topsieve.methods`, whose values are `module:Class`. Nothing
here loads torch before a method is built.
"""

from __future__ import annotations

import dataclasses
import importlib
import typing
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from topsieve.methods.parameters import MethodInfo, built, read_info, spell_value
from topsieve_sim.errors import InputError

if TYPE_CHECKING:
    from topsieve.reduction.roles import Method

ENTRY_POINT_GROUP = "topsieve.methods"

BUILT_IN = {
    "dense": "topsieve.methods.dense:Dense",
    "random": "topsieve.methods.random:Random",
    "uniform": "topsieve.methods.uniform:Uniform",
    "pooling": "topsieve.methods.pooling:Pooling",
    "spatten": "topsieve.methods.spatten:SpAtten",
    "powerbert": "topsieve.methods.powerbert:PowerBert",
    "ltp": "topsieve.methods.ltp:Ltp",
    "evit": "topsieve.methods.evit:EViT",
    "tome": "topsieve.methods.tome:ToMe",
    "ats": "topsieve.methods.ats:Ats",
    "a-vit": "topsieve.methods.avit:AViT",
    "fastv": "topsieve.methods.fastv:FastV",
    "visionzip": "topsieve.methods.visionzip:VisionZip",
    "divprune": "topsieve.methods.divprune:DivPrune",
    "fastervlm": "topsieve.methods.fastervlm:FasterVlm",
    "dynamicvit": "topsieve.methods.dynamicvit:DynamicViT",
    "prumerge": "topsieve.methods.prumerge:PruMerge",
    "pyramiddrop": "topsieve.methods.pyramiddrop:PyramidDrop",
    "dart": "topsieve.methods.dart:Dart",
    "sparsevlm": "topsieve.methods.sparsevlm:SparseVlm",
    "pact": "topsieve.methods.pact:Pact",
    "dycoke": "topsieve.methods.dycoke:DyCoke",
    "hiprune": "topsieve.methods.hiprune:HiPrune",
    "flowcut": "topsieve.methods.flowcut:FlowCut",
    "todre": "topsieve.methods.todre:ToDre",
    "globalcom2": "topsieve.methods.globalcom2:GlobalCom2",
    "zoo-prune": "topsieve.methods.zooprune:ZooPrune",
    "turbo": "topsieve.methods.turbo:Turbo",
    "folder": "topsieve.methods.folder:Folder",
    "tokencorr": "topsieve.methods.tokencorr:TokenCorr",
    "mrt5": "topsieve.methods.mrt5:MrT5",
    "code-merging": "topsieve.methods.code_merging:CodeMerging",
    "h2o": "topsieve.methods.h2o:H2O",
    "streaming-llm": "topsieve.methods.streaming_llm:StreamingLlm",
    "tova": "topsieve.methods.tova:Tova",
    "snapkv": "topsieve.methods.snapkv:SnapKv",
    "knorm": "topsieve.methods.knorm:Knorm",
    "scissorhands": "topsieve.methods.scissorhands:Scissorhands",
    "pyramidkv": "topsieve.methods.pyramidkv:PyramidKv",
    "adakv": "topsieve.methods.adakv:AdaKv",
    "quest": "topsieve.methods.quest:Quest",
    "keydiff": "topsieve.methods.keydiff:KeyDiff",
    "expected-attention": "topsieve.methods.expected_attention:ExpectedAttention",
    "think": "topsieve.methods.think:ThinK",
    "kvmerger": "topsieve.methods.kvmerger:KvMerger",
    "d2o": "topsieve.methods.d2o:D2O",
    "cam": "topsieve.methods.cam:CaM",
    "ems": "topsieve.methods.ems:Ems",
    "llmlingua-2": "topsieve.methods.llmlingua2:LlmLingua2",
    "frugalprompt": "topsieve.methods.frugalprompt:FrugalPrompt",
    "exit": "topsieve.methods.exit:Exit",
    "selective-context": "topsieve.methods.selective_context:SelectiveContext",
    "skipdecode": "topsieve.methods.skipdecode:SkipDecode",
    "lemo": "topsieve.methods.lemo:LeMo",
    "cache-craft": "topsieve.methods.cachecraft:CacheCraft",
}


def targets() -> dict[str, str]:
    """Name to `module:Class`: the built-in methods in order, then those of other packages, sorted.

    Raises
    ------
    InputError
        two packages give a method the same name.
    """
    found = dict(BUILT_IN)
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: (point.name, point.value)):
        if found.get(point.name, point.value) != point.value:
            raise InputError(
                "two methods have this name", source=ENTRY_POINT_GROUP, field=point.name, value=point.value
            )
        found[point.name] = point.value
    return found


def method_names() -> tuple[str, ...]:
    """Names of all methods."""
    return tuple(targets())


def describe(name: str) -> MethodInfo:
    """Summary and parameters of the method `name`, without loading it."""
    return read_info(name, _target(name))


def method_class(name: str) -> type[Any]:
    """The class of the method `name`; loads torch.

    Raises
    ------
    InputError
        there is no such method, or its module cannot be loaded.
    """
    # No other package can take a built-in name; to look through all that is installed takes milliseconds.
    target = BUILT_IN.get(name) or _target(name)
    module, _, class_name = target.partition(":")
    try:
        found: type[Any] = getattr(importlib.import_module(module), class_name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"cannot be loaded: {error}", source=f"method {name}", value=target) from error
    return found


def build(text: str, *, keep: float | None = None) -> Method:
    """The method that `text` names.

    Parameters
    ----------
    text : `name` or `name:parameter=value,parameter=value`; lists are written 30/20/10.
    keep : share of the tokens to keep, where `text` does not say.

    Raises
    ------
    InputError
        unknown method or parameter, or a value that is not allowed.
    """
    name, _, settings = text.partition(":")
    name = name.strip()
    defaults = {} if keep is None else {"keep": keep}
    method: Method = built(method_class(name), settings, source=f"method {name}", defaults=defaults)
    return method


def spell(method: Method) -> str:
    """`method` as the text that `build` turns back into it: its name and what differs from the defaults."""
    settings = [
        f"{field.name}={spell_value(getattr(method, field.name))}"
        for field in dataclasses.fields(typing.cast(Any, method))
        if getattr(method, field.name) != field.default
    ]
    return method.name + (":" + ",".join(settings) if settings else "")


def _target(name: str) -> str:
    found = targets()
    if name not in found:
        raise InputError("unknown method", field="method", value=name, allowed=", ".join(found))
    return found[name]
