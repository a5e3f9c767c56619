"""Closed forms of the machine's times, for many configurations at once; `docs/exploration.md` states their error."""

from topsieve_sim.closed_form.estimate import ClosedForm, Estimates, estimate

__all__ = ["ClosedForm", "Estimates", "estimate"]
