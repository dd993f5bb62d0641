"""Scorers of real text, trained on human labels: `train.py` is the recipe; read it first. The server loads them."""
