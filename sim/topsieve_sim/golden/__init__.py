"""Bit-true integer models of the hardware units, in numpy and numba."""
