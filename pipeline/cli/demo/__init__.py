"""`penstock demo`: a worker, its small model, several prompts that stream side by side, and a small dataset that is scored."""

from pipeline.cli.demo.verb import demo

__all__ = ["demo"]
