"""How compute threads wait for one another. Read by OpenMP libraries as they are loaded: set it before anything imports torch.

Threads that spin for milliseconds take the cores that the log's threads, a broker or a neighbour need: on two shared cores they
made a tenth of the tokens. Threads that sleep at once must be woken for each of the hundreds of operations in a step. So they
spin about as long as the next operation takes to arrive, and then sleep.
"""

import os

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
SPINS = "10000"
"""Of GNU's library, which torch brings along: some tens of microseconds. Others only know to wait passively."""


def wait_briefly() -> None:
    """Sets it for this process and its children, where nobody has chosen anything else."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
