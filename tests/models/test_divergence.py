"""Distance of a policy from its reference: what plain transformers says of the same tokens, and 0 before training."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from tests.learning import small_ppo
from tunewright.errors import StoppedError
from tunewright.models import divergence
from tunewright.models.divergence import divergences
from tunewright.models.forward import Forward
from tunewright.models.starting import Reference

PROMPTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15]]
COMPLETIONS = [[21, 22, 2], [30, 31, 32, 33], [2]]


def plain(policy, reference, temperature):
    """KL and reference nats, text by text, by torch's own KL on whole logits."""
    found = []
    for prompt, said in zip(PROMPTS, COMPLETIONS, strict=True):
        ids = torch.tensor([prompt + said])
        places = slice(len(prompt) - 1, len(prompt) + len(said) - 1)
        with torch.no_grad():
            own, ref = (model(input_ids=ids).logits[0, places].double() for model in (policy, reference))
        distributions = [torch.distributions.Categorical(logits=logits / temperature) for logits in (own, ref)]
        nats = -ref.log_softmax(-1)[torch.arange(len(said)), torch.tensor(said)].sum()
        found.append((float(torch.distributions.kl_divergence(*distributions).sum()), float(nats)))
    return np.array(found).T


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_it_is_the_sum_over_the_whole_vocabulary(method, temperature):
    policy = small_ppo.model(method=method).eval()
    start = copy.deepcopy(policy)
    forward = Forward.checked(policy)
    reference = Reference.of(forward)
    small_ppo.moved(policy)
    if method == "full":
        for parameter in policy.parameters():
            parameter.data *= 1.1
    found = divergences(forward, reference, PROMPTS, COMPLETIONS, temperature=temperature)
    kl, nats = plain(policy, start, temperature)
    assert found.kl == pytest.approx(kl, rel=1e-4, abs=1e-6) and found.ref_nats == pytest.approx(nats, rel=1e-5)
    assert (found.kl > 1e-4).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_before_training_there_is_none(precision):
    forward = Forward.checked(small_ppo.model())
    forward.compute_in(precision)
    assert divergences(forward, Reference.of(forward), PROMPTS, COMPLETIONS).kl.tolist() == [0, 0, 0]


def test_batches_and_chunks_change_nothing(monkeypatch):
    forward = Forward.checked(small_ppo.moved(small_ppo.model()))
    reference, seen = Reference.of(forward), []
    whole = divergences(forward, reference, PROMPTS, COMPLETIONS)
    monkeypatch.setattr(divergence, "CHUNK_BYTES", 1)
    parts = divergences(forward, reference, PROMPTS, COMPLETIONS, max_tokens=5, before_batch=lambda: seen.append(1))
    assert parts.kl == pytest.approx(whole.kl, rel=1e-5) and parts.ref_nats == pytest.approx(whole.ref_nats, rel=1e-5)
    assert len(seen) >= 2


def test_dropout_is_off_and_the_mode_is_kept():
    policy = small_ppo.moved(small_ppo.model(dropout=0.5)).train()
    forward = Forward.checked(policy)
    first, again = (divergences(forward, Reference.of(forward), PROMPTS, COMPLETIONS) for _ in range(2))
    assert first.kl.tolist() == again.kl.tolist() and policy.training
    assert {name for name, p in policy.named_parameters() if p.requires_grad}, "what learns still learns"


def test_nothing_written_is_no_distance():
    forward = Forward.checked(small_ppo.moved(small_ppo.model()))
    found = divergences(forward, Reference.of(forward), [[5, 6], [7]], [[], [2]])
    assert found.kl[0] == 0 and found.ref_nats[0] == 0 and found.kl[1] > 0


def test_a_stop_is_passed_on():
    def stop():
        raise StoppedError("stopped", signal_number=15)

    forward = Forward.checked(small_ppo.model())
    with pytest.raises(StoppedError):
        divergences(forward, Reference.of(forward), PROMPTS, COMPLETIONS, before_batch=stop)


def test_the_mean_is_that_of_sampled_log_ratios():
    """What rollouts measure with one word each comes to the same, with more noise."""
    forward = Forward.checked(small_ppo.moved(small_ppo.model()).eval())
    reference = Reference.of(forward)
    exact = divergences(forward, reference, [[5, 6, 7]], [[2]]).kl[0]
    texts = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        own = forward.model(input_ids=texts).logits[0, -1].double().log_softmax(-1)
        with forward.model.disable_adapter():
            ref = forward.model(input_ids=texts).logits[0, -1].double().log_softmax(-1)
    drawn = np.random.default_rng(0).choice(len(own), 20_000, p=(own.exp() / own.exp().sum()).numpy())
    assert float((own - ref)[drawn].mean()) == pytest.approx(exact, abs=4 * float((own - ref)[drawn].std()) / 141)
