"""`python -m rheostat` is the `rheostat` command."""

from rheostat.cli import main

main()
