"""Which way of filling batches is best, when live requests and a backlog share one engine?

    python -m benchmarks.batching [--short] [--models tiny,llama-15m] [--parts targets,loads,recovery,simulation,step-model] [--rounds N]
    python -m benchmarks.batching --kafka | --flood
    python -m benchmarks.batching --fleet WORKERS [--learned FILE]

Every contender gets the same arrivals, by the clock: a request that finds the engine busy has waited since it was due. Contenders
take turns on one engine, round by round, so that a machine whose speed drifts is fair to all.
"""
