"""The pieces that train the shipped model, each on a small scale."""

from itertools import islice, pairwise

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from pipeline.models import TINY
from pipeline.models.corpus import IGNORED_LABEL, packed_rows, render
from pipeline.models.grammar import documents
from pipeline.models.lookback import look_back
from pipeline.models.muon import Muon, orthogonalized
from pipeline.models.train import Recipe

ROW_TOKENS = 256


@pytest.fixture(scope="module")
def tokenizer():
    """The shipped tokenizer."""
    return AutoTokenizer.from_pretrained(TINY, local_files_only=True)


def untrained():
    """Builds a small model from noise."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=192,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def copied_share(model):
    """Says 40 random tokens twice and gives the share of the second time that the model foresees."""
    phrases = torch.randint(0, 512, (8, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        foreseen = model(input_ids=phrases.repeat(1, 2), use_cache=False).logits.argmax(-1)
    return float((foreseen[:, 40:-1] == phrases[:, 1:]).float().mean())


def test_a_model_that_looks_back_copies_before_any_training():
    """The placed heads alone foresee repeated random tokens; noise does not."""
    model = untrained()
    assert copied_share(model) < 0.05
    look_back(model)
    assert copied_share(model) > 0.5


def test_the_placed_blocks_are_reported():
    """What `look_back` returns covers everything in the silent branches that is not zero."""
    model = untrained()
    parts = look_back(model)
    with torch.no_grad():
        for parameter, block in parts:
            assert parameter[block].abs().sum() > 0
            parameter[block] = 0
    assert not any(layer.self_attn.o_proj.weight.any() for layer in model.model.layers)


@pytest.mark.parametrize("shape", [(24, 64), (64, 24), (32, 32)])
def test_orthogonalized_matrices_have_even_singular_values(shape):
    """All singular values of a random matrix come near 1, and its shape stays."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    even = orthogonalized(matrix)
    values = torch.linalg.svdvals(even)
    assert even.shape == matrix.shape
    assert float(values.min()) > 0.3
    assert float(values.max()) < 1.3


def test_muon_descends():
    """Steps along the gradient of a distance bring a matrix to its target."""
    target = torch.randn(16, 32, generator=torch.Generator().manual_seed(3))
    matrix = torch.nn.Parameter(torch.zeros(16, 32))
    muon = Muon([matrix], momentum=0.9)
    first = float((matrix.detach() - target).norm())
    for step in range(200):
        (0.5 * (matrix - target).square().sum()).backward()
        muon.step(0.1 * (1 - step / 200))
    assert float((matrix.detach() - target).norm()) < 0.1 * first


def test_rows_hold_whole_documents(tokenizer):
    """Every document of a row is one of the stream, positions restart with it, and its first token carries no label."""
    texts = {render(document) for document in islice(documents(5, "train"), 3000)}
    found = 0
    for batch in islice(packed_rows(tokenizer, documents(5, "train"), ROW_TOKENS, rows=4), 4):
        for token_ids, positions, labels in zip(batch.token_ids, batch.positions, batch.labels, strict=True):
            starts = [*(positions == 0).nonzero().flatten().tolist(), ROW_TOKENS]
            for start, end in pairwise(starts):
                if bool((labels[start:end] == IGNORED_LABEL).all()):
                    continue  # the padding at the end of the row
                assert labels[start] == IGNORED_LABEL
                assert torch.equal(labels[start + 1 : end], token_ids[start + 1 : end])
                assert tokenizer.decode(token_ids[start:end]) in texts
                found += 1
    assert found > 20


def test_the_rate_warms_up_and_falls_to_zero():
    """The schedule starts low, peaks at 1 and ends near 0."""
    recipe = Recipe(round_steps=200)
    shares = [recipe.rate_share(step) for step in range(recipe.round_steps)]
    peak = max(range(recipe.round_steps), key=shares.__getitem__)
    assert shares[0] < 0.1
    assert shares[peak] == pytest.approx(1.0, abs=0.01)
    assert peak <= recipe.warmup_steps
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert shares[-1] < 0.01
