"""How fast is the engine, beside what else serves the same model on the same machine?

    python -m benchmarks.engine --prepare
    python -m benchmarks.engine [--models smollm2-135m,tiny] [--peers vllm] [--loads 64,8,1] [--rounds 3] [--count 64]

Every contender gets the same requests, greedy and to the last token, in a process of its own that holds the machine alone:
start, warm up, all loads, exit. The order turns from round to round, so that a machine whose speed drifts is fair to all. A peer
that cannot run here is listed with its reason.
"""
