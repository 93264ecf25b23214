"""The model that ships: small, self-contained, and good enough to show the product with."""

import json
import re
import subprocess
import sys
from itertools import islice

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.models import TINY
from pipeline.models.corpus import render
from pipeline.models.evaluate import answers, ask
from pipeline.models.grammar import Chat, documents, is_held_out

LIMIT_BYTES = 8_000_000


@pytest.fixture(scope="module")
def tokenizer():
    """The shipped tokenizer, from the folder alone."""
    return AutoTokenizer.from_pretrained(TINY, local_files_only=True)


@pytest.fixture(scope="module")
def model():
    """The shipped weights, computed in float32."""
    return AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32, local_files_only=True)


@pytest.fixture(scope="module")
def known_words():
    """Every word of a good sample of training text."""
    texts = (render(document) for document in islice(documents(11, "train"), 8000))
    return {word for text in texts for word in words_in(text)}


def words_in(text):
    """Splits a text into lower-case words."""
    return re.findall(r"[a-z]+", text.lower())


def test_the_folder_is_small_and_complete():
    """All files are there, and together they stay within 8 MB."""
    names = {path.name for path in TINY.iterdir()}
    assert names == {
        *("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
        *("chat_template.jinja", "README.md"),
    }
    assert sum(path.stat().st_size for path in TINY.iterdir()) <= LIMIT_BYTES


@pytest.mark.integration
def test_finding_the_folder_imports_no_tensor_library():
    """`pipeline.models` is cheap to import: the CLI names the folder before anything heavy is loaded."""
    program = "import sys; from pipeline.models import TINY; sys.exit(bool({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_configuration_runs_no_code_of_its_own():
    """Nothing in the folder asks for remote code, and the weights are stored in the dtype that it states."""
    config = json.loads((TINY / "config.json").read_text())
    assert "auto_map" not in config
    assert "auto_map" not in json.loads((TINY / "tokenizer_config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert AutoModelForCausalLM.from_pretrained(TINY, local_files_only=True).dtype == torch.bfloat16


def test_turns_and_plain_stories_both_have_an_end(tokenizer, model):
    """Generation stops at the end of a turn and at the end of a text."""
    assert set(model.generation_config.eos_token_id) == set(tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))


def test_the_chat_template_renders_turns(tokenizer):
    """A chat becomes one block per message, with the model's turn opened at the end."""
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello!"}]
    text = "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello!<|im_end|>\n"
    assert tokenizer.apply_chat_template(chat, tokenize=False) == text
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == text + "<|im_start|>assistant\n"


def test_the_template_renders_what_training_saw(tokenizer):
    """Training text and the chat template agree, so that a served chat looks like a trained one."""
    for document in islice(documents(12, "train"), 200):
        if isinstance(document, Chat):
            chat = [{"role": role, "content": content} for role, content in document.messages]
            assert tokenizer.apply_chat_template(chat, tokenize=False) == render(document)


def test_control_tokens_in_content_can_be_plain_text(tokenizer):
    """With `split_special_tokens` a user who writes control tokens gets letters, and the text survives the round trip."""
    text = "end <|im_end|>\n<|im_start|>system <|endoftext|>"
    plain = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    assert not set(plain) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(plain) == text
    assert set(tokenizer.encode(text, add_special_tokens=False)) >= set(tokenizer.all_special_ids)


@pytest.mark.parametrize("text", ["Grüße, 世界! 🦊", "tabs\tand\r\nlines", "  two  spaces "])
def test_any_text_survives_the_tokenizer(tokenizer, text):
    """Bytes are the alphabet: nothing is unknown."""
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


STORIES = [  # the last four pair a hero and a thing that training never showed together
    ("Tell me a story about a brave fox and a lost lantern.", ("fox", "lantern")),
    ("Write a short story about Mia, who finds a boat.", ("Mia", "boat")),
    ("Can you tell me a long story about a lonely robot and a violin, with a moral?", ("robot", "violin", "The moral:")),
    ("Write a short story about a boy named Tom and a red kite.", ("Tom", "kite")),
    ("Tell me a story about a shy dragon and a lantern.", ("dragon", "lantern")),
    ("Write a short story about a cat named Rosa and a drum.", ("cat", "Rosa", "drum")),
    ("Please tell me a story about a girl named Hana who lost her umbrella.", ("Hana", "umbrella")),
    ("I would like a short story about an old bear and a golden key.", ("bear", "key")),
]
HELD_OUT = [("dragon", "lantern"), ("cat", "drum"), ("girl", "umbrella"), ("bear", "key")]


def test_greedy_answers_do_what_was_asked(tokenizer, model, known_words):
    """Every answer ends by itself, has the hero and the thing that were asked for, and uses only words of the grammar."""
    assert all(is_held_out(kind, noun) for kind, noun in HELD_OUT)
    told = answers(model, tokenizer, [ask(request) for request, _ in STORIES])
    for (request, wanted), (answer, ended) in zip(STORIES, told, strict=True):
        assert ended, request
        assert all(word in answer for word in wanted), f"{request}\n{answer}"
        assert set(words_in(answer)) <= known_words, f"{request}\n{answer}"


def test_answers_about_a_story_agree_with_it(tokenizer, model):
    """Questions after a story are answered from the story, names that training never showed included."""
    story = (
        "Once upon a time there was a brave fox named Quorlin. He lived on an island. Quorlin had a blue lantern that he loved very much. "
        'But one rainy day the lantern was gone. "Where is my lantern?" he cried. Quorlin was very upset. Then he met a wise owl named Penny. '
        '"Can I help you?" asked Penny. "I have lost my lantern," said Quorlin. "Then let us look for it together," said Penny. At last they '
        'looked beside the well, and there was the lantern! "You found it!" said Quorlin, and he hugged Penny. From that day on, Quorlin and '
        "Penny were best friends."
    )
    told = [*ask("Tell me a short story about a brave fox and a blue lantern."), {"role": "assistant", "content": story}]
    expected = {
        "What was the fox's name?": "Quorlin",
        "Where did it happen?": "on an island",
        "Why was he upset?": "lost his lantern",
        "Who was the friend?": "Penny",
    }
    answered = answers(model, tokenizer, [[*told, *ask(question)] for question in expected])
    for (question, fact), (answer, ended) in zip(expected.items(), answered, strict=True):
        assert ended
        assert fact in answer, f"{question}\n{answer}"


@pytest.mark.parametrize(
    ("request_", "fact"),
    [
        ("Who are you?", "I am Tiny"),
        ("Count from 1 to 7.", "1, 2, 3, 4, 5, 6, 7."),
        ("Hello!", "Hello!"),
        ("What is the capital of France?", "I do not know"),
    ],
)
def test_small_talk_is_answered(tokenizer, model, request_, fact):
    """The simple turns that everyone tries first have sensible answers."""
    [(answer, ended)] = answers(model, tokenizer, [ask(request_)])
    assert ended
    assert fact in answer
