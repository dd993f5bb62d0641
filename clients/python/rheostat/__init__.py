"""Rheostat's client side: the `rheostat` command."""
