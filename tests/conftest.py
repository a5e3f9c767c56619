"""What all tests share: how Hypothesis draws its cases.

A deadline would measure the machine's load, not the code. The everyday run draws the same cases each time, so a red run
is a change's fault; `TOPSIEVE_HYPOTHESIS=explore` draws new ones.
"""

import os

from hypothesis import HealthCheck, settings

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "print_blob": True}
settings.register_profile("repeat", derandomize=True, **_COMMON)
settings.register_profile("explore", **_COMMON)
settings.load_profile(os.environ.get("TOPSIEVE_HYPOTHESIS", "repeat"))
