"""The engine: token ids in, token ids and text out, continuously batched. Only this package touches torch and transformers."""
