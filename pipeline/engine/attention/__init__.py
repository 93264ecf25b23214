"""Attention over a paged KV cache, hooked into transformers' own model classes.

`hook` is the function that models call in place of their attention, `step` what it must know of the batch, built once per
step, and `paged` the cache and prefill. Decodes go through the kernel in `decode`, or through torch's operations in `plain`.
"""
