"""The `penstock` command: data on stdout, messages on stderr, an exit code that says what happened."""

from pipeline.cli.entry import main

__all__ = ["main"]
