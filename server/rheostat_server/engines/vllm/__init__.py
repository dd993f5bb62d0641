"""Rheostat inside vLLM's own server. Read `plugin.py` first: it puts our routes there and closes vLLM's."""
