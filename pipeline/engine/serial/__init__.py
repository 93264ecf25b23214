"""Models that cannot be batched: each sequence runs by itself, with the cache or state that the model keeps of it.

Recurrent and linear attention, ALiBi and masks of a model's own come here. Scheduler, sampler, stop strings and everything around them
are those of the batched engine; only packing and running differ.
"""
