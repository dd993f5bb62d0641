"""The app on a real Ray cluster of two nodes on this machine; skipped where Ray is not installed."""
