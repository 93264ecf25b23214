"""Jobs over datasets: planned once, computed shard by shard, committed exactly once, whatever dies on the way.

`plan`, `score` and `finalise` work on a job's folder, each as often as one likes: what is done stays done.
"""

import os

# Read when Arrow is first imported. Its own allocators keep what they once had; a page of a dataset may be a hundred MiB.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
