"""`python -m snapkeep`."""

from snapkeep.cli.main import main

main()
