"""Which model for these pictures? Every way is tried on the same held-out ones."""

from vitlab.selection.search import fit

__all__ = ["fit"]
