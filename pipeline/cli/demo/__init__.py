"""`penstock demo`: a worker, its small model, and several prompts that stream side by side."""

from pipeline.cli.demo.verb import demo

__all__ = ["demo"]
