"""One runnable module per question: `python -m benchmarks.NAME`. Results go to LOG.md with date and machine, the bad ones too."""

from pipeline.openmp import wait_briefly

wait_briefly()  # as a worker has it
