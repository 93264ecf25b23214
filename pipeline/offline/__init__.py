"""Jobs over datasets: planned once, computed shard by shard, committed exactly once, whatever dies on the way.

`plan`, `score` and `finalise` work on a job's folder, each as often as one likes: what is done stays done.
"""
