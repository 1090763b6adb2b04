"""Masked words: cutting a step changes nothing, a resumed run masks alike, evaluation masks the same every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers as hf

from tests import tiny
from tests.data import tiny_tokenizers
from tests.learning.test_language_modeling import Written
from tests.models import configs
from tunewright.data.batching import Texts, collate, lay_end_to_end
from tunewright.errors import ModelError
from tunewright.learning.gradients import Budget, Training, step_gradient
from tunewright.learning.masked_language_modeling import MaskedLanguageModeling, Masking, masked_likelihoods
from tunewright.models.forward import Forward
from tunewright.runtime import Runtime

TOKENIZER = tiny.tokenizer("bert")
CLS, SEP, MASK = TOKENIZER.cls_token_id, TOKENIZER.sep_token_id, TOKENIZER.mask_token_id
FIRST_WORD = max(TOKENIZER.all_special_ids) + 1
MASKING = Masking.of(TOKENIZER, len(TOKENIZER))


def model():
    torch.manual_seed(0)
    built = hf.BertForMaskedLM(tiny.config("bert"))
    for parameter in built.parameters():
        parameter.data += torch.randn_like(parameter) * 0.1
    configs.without_dropout(built)
    return built.train()


def made(lengths=(9, 30, 17, 12, 5)):
    generator = np.random.default_rng(0)
    ids = [[CLS, *generator.integers(FIRST_WORD, len(TOKENIZER), n - 2), SEP] for n in lengths]
    return Written([np.array(x, np.int32) for x in ids], [np.array([False, *[True] * (n - 2), False]) for n in lengths])


def gradient(budget, objective, world=1):
    """Loss and gradients of one step, summed over ranks."""
    data, sums = made(), None
    for rank in range(world):
        torch.manual_seed(5)
        built = model()
        torch.manual_seed(5)
        runtime = replace(Runtime("cpu", "fp32", 1), rank=rank)
        training = Training(data, data.lengths)
        step = np.arange(len(data.ids))
        if world == 1:
            loss, _ = step_gradient(Forward(built), objective, training, step, Budget(budget), runtime, 0, print)
        else:  # what each rank computes before the sum
            weight = objective.weight_of(data, step)
            loss = objective.loss_of(Forward(built), collate(data, step[rank::world]), None) / weight
            loss.backward()
            loss = loss.item()
        found = [torch.tensor(loss), *(p.grad.clone() for p in built.parameters())]
        sums = found if sums is None else [one + other for one, other in zip(sums, found, strict=True)]
    return sums


@pytest.mark.parametrize("cut", [{"budget": 12}, {"budget": 40}, {"budget": 0, "world": 2}])
def test_cutting_a_step_changes_nothing(cut):
    whole = gradient(10_000, MaskedLanguageModeling(MASKING))
    for one, other in zip(gradient(objective=MaskedLanguageModeling(MASKING), **cut), whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_the_loss_is_the_mean_over_the_masked_tokens_of_transformers():
    data, built = made(), model()
    objective = MaskedLanguageModeling(MASKING)
    torch.manual_seed(5)
    weight = objective.weight_of(data, np.arange(5))
    read, targets = zip(*(objective.drawn[i] for i in range(5)), strict=True)
    found = objective.loss_of(Forward(built), collate(data, np.arange(5)), None) / weight
    ids, labels = (torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True) for rows in (read, targets))
    real = torch.arange(ids.shape[1]) < torch.tensor(data.lengths)[:, None]
    expected = built(input_ids=ids, attention_mask=real.long(), labels=labels.masked_fill(~real, -100)).loss
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert weight == sum(int((t >= 0).sum()) for t in targets)


def test_each_step_draws_anew_and_a_resumed_one_alike():
    data, objective = made(), MaskedLanguageModeling(MASKING)
    torch.manual_seed(5)
    state, drawn = torch.get_rng_state(), []
    for _ in range(2):
        objective.weight_of(data, np.arange(5))
        drawn.append(torch.cat([objective.drawn[i][1] for i in range(5)]))
    torch.set_rng_state(state)
    resumed = MaskedLanguageModeling(MASKING)
    resumed.weight_of(data, np.arange(5))
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(torch.cat([resumed.drawn[i][1] for i in range(5)]), drawn[0])


def test_special_tokens_and_what_isnt_learnt_are_never_masked():
    data = made()
    data.masks[1][1:20] = False
    everything = MaskedLanguageModeling(replace(MASKING, probability=1.0))
    assert everything.weight_of(data, np.arange(5)) == sum(int(m.sum()) for m in data.masks)
    for i in range(5):
        read, targets = everything.drawn[i]
        kept = torch.from_numpy(~data.masks[i])
        assert torch.equal(read[kept], torch.from_numpy(data.ids[i]).long()[kept])
        assert torch.equal(targets >= 0, ~kept)


def test_random_words_are_words():
    assert MASKING.words.tolist() == list(range(FIRST_WORD, len(TOKENIZER)))
    # An embedding padded to a round number has rows that no token means.
    assert Masking.of(TOKENIZER, 64).words.tolist() == MASKING.words.tolist()


def test_whole_words_are_masked_whole_and_end_with_their_text():
    tokenizer = tiny_tokenizers.bert()
    masking = replace(Masking.of(tokenizer, len(tokenizer), whole_word=True), probability=0.5)
    ids = tokenizer("films x goods the fans", add_special_tokens=False)["input_ids"]
    names = tokenizer.convert_ids_to_tokens(ids)
    words = np.cumsum([not name.startswith("##") for name in names])
    texts = lay_end_to_end([ids, ids[1:], ids])  # the second begins inside a word: that word ends with the first text
    owner = np.concatenate([words, words[1:] + 100, words + 200])
    apart = False
    for seed in range(50):
        chosen = masking.of_texts(texts, torch.ones(len(owner)).bool(), torch.Generator().manual_seed(seed))[1] >= 0
        for word in np.unique(owner):
            assert chosen[torch.from_numpy(owner == word)].unique().numel() == 1
        apart |= bool(chosen[len(ids) - 1] != chosen[len(ids)])
    assert apart


def test_outside_of_a_step_masks_are_drawn_for_the_batch():
    """What planning looks at: a batch that no step was drawn for, or a cut of an example that one was."""
    data, objective, built = made(), MaskedLanguageModeling(MASKING), model()
    batch = collate(data, np.array([1]))
    objective.weight_of(data, np.arange(5))
    short = replace(batch, texts=Texts(batch.texts.input_ids[:9], (9,)), is_target=batch.is_target[:9])
    assert objective.loss_of(Forward(built), short, None) > 0
    assert objective.loss_of(Forward(built), batch, None) > 0


def test_evaluation_masks_the_same_tokens_every_time_and_in_any_batch():
    data, forward = made(), Forward(model())
    first = masked_likelihoods(forward, data, MASKING, seed=3, max_tokens=20)
    torch.rand(7)
    again = masked_likelihoods(forward, data, MASKING, seed=3, max_tokens=1000)
    other = masked_likelihoods(forward, data, MASKING, seed=4)
    np.testing.assert_allclose(first.nats, again.nats, rtol=1e-4)
    assert first.tokens.tolist() == again.tokens.tolist() and (first.tokens > 0).all()
    assert not np.allclose(first.nats, other.nats)
    assert (first.hits <= first.tokens).all()


def test_it_learns_what_can_be_guessed():
    """Every text repeats one word: after a few steps masked words are guessed."""
    words = range(FIRST_WORD, FIRST_WORD + 6)
    ids = [np.array([CLS, *[word] * 12, SEP], np.int32) for word in words]
    data = Written(ids, [np.array([False, *[True] * 12, False]) for _ in words])
    built, objective = model(), MaskedLanguageModeling(MASKING)
    forward, optimizer = Forward(built), torch.optim.Adam(built.parameters(), 3e-3)
    before = masked_likelihoods(forward, data, MASKING, seed=0)
    for _ in range(60):
        weight = objective.weight_of(data, np.arange(6))
        (objective.loss_of(forward, collate(data, np.arange(6)), None) / weight).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = masked_likelihoods(forward, data, MASKING, seed=0)
    assert after.nats.sum() < before.nats.sum() / 3 and after.hits.sum() > 0.8 * after.tokens.sum()


def test_without_a_mask_token_nothing_can_be_masked():
    with pytest.raises(ModelError, match="no mask token"):
        Masking.of(tiny.tokenizer("llama"), 30)
