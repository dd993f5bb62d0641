"""The wire: convert, call the pipeline, convert back. Read `chat.py` first."""
