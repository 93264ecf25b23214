"""Faster modules in place of a model's own, each held against what it replaces.

No architecture is known here: every module is offered what fits its form, and keeps what computes the same on random
input. What fits nothing stays as it is.
"""
