"""GPU kernels for the baseline comparison, each beside its plain torch reference."""
