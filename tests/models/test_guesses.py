"""Guesses at a few places equal what the whole model says there, for every kind of head; logits never exist in full."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from tests.models import configs
from tunewright.data.batching import Batch, lay_end_to_end
from tunewright.errors import ModelError
from tunewright.models.forward import Forward
from tunewright.models.guesses import check_guesses, guess_likelihoods, masked_guesses, pair_guesses

MASKED = ("bert", "electra", "roberta", "distilbert", "modernbert-cls", "albert", "deberta")
PAIRS = {
    "t5": lambda: hf.T5Config(
        vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
    ),
    "t5-scaled": lambda: hf.T5Config(
        vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0,
        tie_word_embeddings=False, feed_forward_proj="gated-gelu",
    ),
    "bart": lambda: hf.BartConfig(
        vocab_size=50, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=2,
    ),
}  # fmt: skip


def stirred(model: Any) -> Any:
    """Every weight off its initial value, dropout off, the bias outside BART's head not zero."""
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * 0.1
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias += torch.randn_like(model.final_logits_bias)
    configs.without_dropout(model)
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model.train()


def masked_model(kind: str) -> Any:
    torch.manual_seed(0)
    return stirred(hf.AutoModelForMaskedLM.from_config((configs.DESCRIBED | configs.PLAIN)[kind]()))


def pair_model(kind: str) -> Any:
    torch.manual_seed(0)
    return stirred(hf.AutoModelForSeq2SeqLM.from_config(PAIRS[kind]()))


def rows(*lengths: int) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(3, 50, n) for n in lengths]


def padded(parts: list[Any], value: int) -> torch.Tensor:
    tensors = [torch.as_tensor(np.asarray(part), dtype=torch.long) for part in parts]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)


def masks(size: int, places: dict[int, int]) -> torch.Tensor:
    targets = torch.full((size,), -100)
    for place, token in places.items():
        targets[place] = token
    return targets


def by_transformers(model: Any, ids: list[np.ndarray], targets: torch.Tensor) -> torch.Tensor:
    """Padded, labels −100 where nothing is guessed, the model's own loss (a mean) times the targets."""
    labels = padded(list(targets.split([len(row) for row in ids])), -100)
    mask = padded([np.ones(len(row)) for row in ids], 0)
    inputs = padded(ids, model.config.pad_token_id or 0)
    return model(input_ids=inputs, attention_mask=mask, labels=labels).loss * (labels != -100).sum()


def same_loss_and_gradients(model: Any, found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    names, parameters = zip(*model.named_parameters(), strict=True)
    wanted = torch.autograd.grad(expected, parameters, allow_unused=True)
    grads = torch.autograd.grad(found, parameters, allow_unused=True)
    for name, one, other in zip(names, grads, wanted, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3, msg=name)


@pytest.mark.parametrize("kind", MASKED)
def test_masked_words_as_transformers_has_them(kind):
    model, ids = masked_model(kind), rows(5, 9, 7)
    targets = masks(21, {1: 4, 3: 5, 6: 6, 9: 7, 15: 8, 20: 9})
    forward = Forward.checked(model)
    assert forward.packed == (kind in configs.DESCRIBED)
    guesses = masked_guesses(forward, lay_end_to_end(ids), targets)
    assert guesses.targets.tolist() == [4, 5, 6, 7, 8, 9] and guesses.owner.tolist() == [0, 0, 1, 1, 2, 2]
    same_loss_and_gradients(model, guesses.loss_sum(), by_transformers(model, ids, targets))


@pytest.mark.parametrize("kind", ["bert", "albert", "modernbert-cls"])
def test_only_what_is_guessed_reaches_the_words(kind):
    """The head's own layers see the chosen tokens alone, and the last projection isn't run at all."""
    model, ids = masked_model(kind), rows(5, 9)
    seen = []
    head = {"bert": "cls.predictions.transform", "albert": "predictions.dense", "modernbert-cls": "head"}[kind]
    model.get_submodule(head).register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape[:-1].numel()))
    model.get_output_embeddings().register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape[:2])))
    masked_guesses(Forward(model), lay_end_to_end(ids), masks(14, {1: 4, 3: 5, 6: 6}))
    assert seen == [3, (1, 1)]


def test_the_model_is_whole_again_afterwards():
    model, ids = masked_model("bert"), rows(5)
    inputs = torch.from_numpy(ids[0])[None]
    before = model(input_ids=inputs).logits
    masked_guesses(Forward(model), lay_end_to_end(ids), masks(5, {1: 4}))
    assert torch.equal(model(input_ids=inputs).logits, before)
    assert "forward" not in vars(model.bert) and "forward" not in vars(model.get_output_embeddings())


def test_nothing_to_guess_costs_nothing():
    model = masked_model("bert")
    loss = masked_guesses(Forward(model), lay_end_to_end(rows(5, 3)), masks(8, {})).loss_sum()
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize(
    "make", [*(lambda k=k: masked_model(k) for k in MASKED), *(lambda k=k: pair_model(k) for k in PAIRS)]
)
def test_models_that_are_known_pass_the_check(make):
    check_guesses(Forward.checked(make()))


def test_a_model_that_makes_its_words_otherwise_is_refused():
    config = hf.DebertaV2Config(**configs._SHAPE, legacy=False)
    with pytest.raises(ModelError, match="deberta-v2 model makes its words in a way that isn't known"):
        check_guesses(Forward(hf.DebertaV2ForMaskedLM(config)))
    scaled = masked_model("bert")
    scaled.cls.register_forward_hook(lambda _m, _i, logits: logits * 2)
    with pytest.raises(ModelError, match="isn't known"):
        check_guesses(Forward(scaled))


# ---- pairs ----


def pairs(sources: list[np.ndarray], written: list[np.ndarray]) -> Batch:
    """Source and targets of each text, end to end."""
    both = [np.concatenate(pair) for pair in zip(sources, written, strict=True)]
    counts = [np.repeat([False, True], [len(s), len(w)]) for s, w in zip(sources, written, strict=True)]
    texts = lay_end_to_end(both)
    return Batch(texts, torch.zeros(len(both), 0), np.arange(len(both)), torch.from_numpy(np.concatenate(counts)))


@pytest.mark.parametrize("kind", PAIRS)
def test_pairs_as_transformers_has_them(kind):
    model, sources, written = pair_model(kind), rows(6, 3, 9), rows(4, 7, 1)
    labels = padded(written, -100)
    mask = padded([np.ones(len(s)) for s in sources], 0)
    expected = model(input_ids=padded(sources, 0), attention_mask=mask, labels=labels).loss * (labels != -100).sum()
    forward = Forward.checked(model)
    guesses = pair_guesses(forward, pairs(sources, written))
    assert (
        guesses.owner.tolist() == [0] * 4 + [1] * 7 + [2]
        and guesses.targets.tolist() == np.concatenate(written).tolist()
    )
    same_loss_and_gradients(model, guesses.loss_sum(), expected)
    assert not forward.packed and "padding" in forward.notes[0]


def test_likelihoods_keep_the_order_however_they_are_batched():
    model, sources, written = pair_model("t5"), rows(6, 3, 9, 2), rows(4, 7, 1, 5)
    forward, lengths = Forward(model), np.array([10, 10, 10, 7])

    def guess(indices):
        return pair_guesses(forward, pairs([sources[i] for i in indices], [written[i] for i in indices]))

    one, other = (guess_likelihoods(forward, lengths, guess, max_tokens=size) for size in (10, 1000))
    assert one.tokens.tolist() == other.tokens.tolist() == [4, 7, 1, 5]
    np.testing.assert_allclose(one.nats, other.nats, rtol=1e-5)
    alone = guess(np.array([2])).loss_sum().item()
    assert one.nats[2] == pytest.approx(alone, rel=1e-5)
    assert one.hits.tolist() == other.hits.tolist()


def test_bf16_is_near_fp32():
    ids, targets = rows(5, 9, 7), masks(21, {1: 4, 9: 7, 20: 9})
    forward = Forward(masked_model("bert"))
    exact = masked_guesses(forward, lay_end_to_end(ids), targets).loss_sum().item()
    forward.compute_in("bf16")
    assert masked_guesses(forward, lay_end_to_end(ids), targets).loss_sum().item() == pytest.approx(exact, rel=0.02)
