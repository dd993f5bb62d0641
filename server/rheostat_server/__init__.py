"""Rheostat's server: two dials, safety and helpfulness, on any OpenAI-compatible engine. Read `pipeline.py` first."""
