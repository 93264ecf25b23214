"""`python -m pipeline.cli`: the command where the console script may not be on the path."""

from pipeline.cli import main

main()
