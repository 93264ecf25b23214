"""One runnable module per question: `python -m benchmarks.NAME`. Results go to LOG.md with date and machine, the bad ones too."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as a worker has it; read when the tensor library loads
