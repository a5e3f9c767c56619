"""The whole machine and its control; `docs/accelerator.md` is the contract."""
