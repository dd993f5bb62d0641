"""AMA: which tokens of an answer a loss learns from, by their rewards."""
