"""Safe rather than overly safe: Equilibrate RLHF (arXiv 2502.11555), and the methods beside it."""
