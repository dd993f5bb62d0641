"""FDC: prompts sorted by their risk, and the training mixture that is drawn of them."""
