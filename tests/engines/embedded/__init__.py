"""The embedded engine beside transformers itself, and its parts alone."""
