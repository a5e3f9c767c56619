"""Power that a whole board draws while a call repeats, from the driver's energy counter.

The counter (millijoules since the driver was loaded; GPUs since Volta have it) advances in steps of some tens of
milliseconds. A measurement therefore begins and ends at a step, so that the step's length is no error of it.
"""

import ctypes
import time
from collections.abc import Callable

# Hundreds of steps of the counter would be better, dozens are enough: the clock of a step is good to a call's length.
WINDOW_S = 1.0
# A counter that stands still this long is none.
PATIENCE_S = 2.0

Call = Callable[[], object]
ReadJoules = Callable[[], float | None]


def driver_joules(uuid: str, library: str = "libnvidia-ml.so.1") -> ReadJoules | None:
    """Reads the energy counter of the GPU `uuid` ("GPU-..."); None where the driver, the GPU or the counter is missing."""
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return None
    device = ctypes.c_void_p()
    if driver.nvmlInit_v2() or driver.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(device)):
        return None

    def read() -> float | None:
        millijoules = ctypes.c_ulonglong()
        failed = driver.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(millijoules))
        return None if failed else millijoules.value * 1e-3

    return None if read() is None else read


def board_power_w(call: Call, joules: ReadJoules, now: Callable[[], float] = time.perf_counter) -> float | None:
    """Watts while `call`, which returns when the work is done, repeats for at least `WINDOW_S`.

    None where the counter stands still or fails.
    """

    def next_step(since: float) -> tuple[float, float] | None:
        """Time and reading at the first new value of the counter once `since` is over."""
        before = joules()
        while now() < since + PATIENCE_S:
            call()
            reading = joules()
            if reading is None or before is None:
                return None
            if reading != before and now() >= since:
                return now(), reading
            before = reading
        return None

    begin = next_step(now())
    end = begin and next_step(begin[0] + WINDOW_S)
    return None if begin is None or end is None else (end[1] - begin[1]) / (end[0] - begin[0])
