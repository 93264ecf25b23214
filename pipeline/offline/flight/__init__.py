"""The door for bulk rows: an Arrow Flight exchange into the engines of a live worker, in the lane that goes last.

Rows come past the `gate`, which lets nothing large in, and through `server`, whose threads never touch an engine: an `exchange` hands
them to the worker's loop, where the `desk` feeds them to the engines and gives the answers back. `client` is the way there from a job,
`mapping` from a cluster of somebody else's.
"""
