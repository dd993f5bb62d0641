"""What training and serving must agree on; standard library and pydantic only. Read `manifest.py` first."""
