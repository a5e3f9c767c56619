"""Token pruning and merging methods, what they cost on hardware, and the command line over all of it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from topsieve_sim import __version__

if TYPE_CHECKING:
    from topsieve.lowering import lower
    from topsieve.models import mean_pool, reduce
    from topsieve.record import Record

__all__ = ["Record", "__version__", "lower", "mean_pool", "reduce"]

# Names that need torch, by the module that holds them; loaded on first use, so that importing the package stays fast.
_LAZY = {
    "Record": "topsieve.record",
    "lower": "topsieve.lowering",
    "mean_pool": "topsieve.models",
    "reduce": "topsieve.models",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
