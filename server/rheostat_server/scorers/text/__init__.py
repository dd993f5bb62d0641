"""Scorers of real text, made by `rheostat train scorer`: `text_scorer.py` loads them and judges; read it first."""
