"""The app on Ray Serve, which starts, watches and replaces its copies on many machines. Read `replica.py` first."""
