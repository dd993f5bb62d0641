"""The study: many cells that differ in one thing, and their tables and pictures."""
