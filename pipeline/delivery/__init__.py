"""Requests at least once, accepted tokens exactly once: the commit ledger, the reader's rule, the way of every record that must land."""
