"""Beat times of the hardware units by max-plus recurrences, in numba."""
