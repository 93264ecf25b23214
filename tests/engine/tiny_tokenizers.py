"""Tokenizers small enough to train in a test, one for each way of spelling text."""

import functools
import json
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import TokenizersBackend

TEXTS = [
    "The water turns the wheel, and the wheel grinds the corn.",
    "Über den Fluss führt eine Brücke; das Wasser fällt.",
    "水は低きに流れる。川の流れは絶えずして、しかももとの水にあらず。",
    "🌊 waves, 🚰 taps and naïve café owners — “quoted”, 100 % true.",
    "One\n\ntwo\n  three\tfour    five",
]
CONTROL = ["<|end|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{% for message in messages %}<|{{ 'assistant' if message.role == 'assistant' else 'user' }}|>\n"
    "{{ message.content | trim }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@functools.cache
def byte_level() -> Any:
    """Spells text as bytes, as GPT-2, Llama 3 and Qwen do; with a chat template that trims."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=360, special_tokens=CONTROL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    return TokenizersBackend(tokenizer_object=tokenizer, eos_token="<|end|>", chat_template=TEMPLATE)


@functools.cache
def sentencepiece_like() -> Any:
    """Spells words with a mark for the space before them and rare characters as byte tokens, as Llama 2 does."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    control = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=[*control, *(f"<0x{byte:02X}>" for byte in range(256))], limit_alphabet=60, show_progress=False
    )
    tokenizer.train_from_iterator([text.replace(" ", "▁") for text in TEXTS], trainer)
    # Byte tokens are part of the vocabulary; only the first three are control tokens.
    plain = Tokenizer(models.BPE(vocab=tokenizer.get_vocab(), merges=_merges(tokenizer), byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    plain.normalizer, plain.decoder = tokenizer.normalizer, tokenizer.decoder
    plain.add_special_tokens(control)
    return TokenizersBackend(tokenizer_object=plain, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _merges(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
