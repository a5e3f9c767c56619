"""The machine as one frozen, validated object: `AcceleratorConfig`, its number formats and its presets."""

from topsieve_sim.arch.config import (
    AcceleratorConfig,
    ArrayConfig,
    AxiConfig,
    DramPortConfig,
    ImportanceConfig,
    Layout,
    MemoryConfig,
    MemoryModel,
    ProgressiveConfig,
    SelectorKind,
    SoftmaxConfig,
    SuccessorConfig,
    TopKConfig,
)
from topsieve_sim.arch.formats import NumberFormats
from topsieve_sim.arch.load import dump_config, json_schema, load_config, preset_names

__all__ = [
    "AcceleratorConfig",
    "ArrayConfig",
    "AxiConfig",
    "DramPortConfig",
    "ImportanceConfig",
    "Layout",
    "MemoryConfig",
    "MemoryModel",
    "NumberFormats",
    "ProgressiveConfig",
    "SelectorKind",
    "SoftmaxConfig",
    "SuccessorConfig",
    "TopKConfig",
    "dump_config",
    "json_schema",
    "load_config",
    "preset_names",
]
