"""Which model a job is for, by the content of its files: a job does not go on with another one under the same name."""

import hashlib
from pathlib import Path

from pipeline.engine import checkpoint
from pipeline.settings import DtypeChoice, EngineKind, ModelSettings
from schemas.job import ModelSpec

PATTERNS = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
WHOLE_BYTES = 64 * 1024 * 1024
"""Larger files are told by their size and samples of them: reading all weights would take longer than loading them."""
SAMPLES = 64
SAMPLE_BYTES = 64 * 1024


def describe_model(model: ModelSettings, dtype: DtypeChoice) -> ModelSpec:
    """Describes the model that the settings name; one of the hub is fetched if it is not here.

    Raises:
        LoadError: There is no such model.
    """
    match model.engine:
        case EngineKind.TRANSFORMERS:
            fingerprint = fingerprint_of(checkpoint.find(model.source, model.revision))
        case EngineKind.OPENAI:  # its server does not tell more
            fingerprint = hashlib.blake2b(f"{model.url}/{model.source}".encode(), digest_size=16).hexdigest()
        case EngineKind.FAKE:
            fingerprint = "fake"
    return ModelSpec(name=model.name, source=model.source, revision=model.revision, fingerprint=fingerprint, dtype=dtype.value)


def fingerprint_of(folder: Path) -> str:
    """A hash of a model's configuration, tokenizer and weights."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted({path for pattern in PATTERNS for path in folder.glob(pattern)}):
        size_bytes = path.stat().st_size
        digest.update(f"{path.name}\0{size_bytes}\0".encode())
        with path.open("rb") as file:
            if size_bytes <= WHOLE_BYTES:
                digest.update(file.read())
                continue
            for sample in range(SAMPLES + 1):
                file.seek((size_bytes - SAMPLE_BYTES) * sample // SAMPLES)
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
