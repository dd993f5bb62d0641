"""Blends: adapters summed by weights that the dials set. `store.py` has them, `rack.py` has them loaded."""
