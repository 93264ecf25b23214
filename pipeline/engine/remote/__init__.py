"""A model behind an HTTP server that speaks OpenAI's API: vLLM, SGLang, TGI, TensorRT-LLM, or OpenAI itself.

One background thread runs the connections; the worker's thread owns the requests and never waits for the network longer than a
few milliseconds. Their only meeting points are `asyncio`'s thread-safe calls and one bounded queue of outputs.
"""
