"""Rheostat's training package: controllable adapters from what a model says itself. Read `fit.py` first."""
