"""The commands that talk to a server: `rheostat chat`, `rheostat sweep` and `rheostat score`."""
