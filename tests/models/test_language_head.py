"""The chunked loss equals the plain one: value, and every gradient."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from tests.models import configs
from tests.models.test_forward import texts
from tunewright.models import language_head
from tunewright.models.forward import Forward
from tunewright.models.language_head import LanguageHead, target_logprobs, target_loss_sum, target_losses

T, D, V = 37, 16, 101


@pytest.fixture(autouse=True)
def several_chunks(monkeypatch):
    monkeypatch.setattr(language_head, "CHUNK_BYTES", 4 * V * 8)  # eight targets at a time, the last chunk uneven


def made(bias: bool = True, **rest):
    generator = torch.Generator().manual_seed(0)
    hidden, weight, offset = (torch.randn(*shape, generator=generator) for shape in ((T, D), (V, D), (V,)))
    targets = torch.randint(V, (T,), generator=generator)
    hidden, weight, offset = hidden.requires_grad_(), weight.requires_grad_(), offset.requires_grad_()
    return hidden, LanguageHead(weight, offset if bias else None, **rest), targets


def plain(hidden, head, targets, weights=None):
    """As one would write it, all logits at once."""
    logits = (hidden @ head.weight.T + (head.bias if head.bias is not None else 0)) * head.scale
    if head.softcap:
        logits = torch.tanh(logits / head.softcap) * head.softcap
    losses = F.cross_entropy(logits, targets, reduction="none")
    return (losses * weights).sum() if weights is not None else losses.sum()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rest", [{}, {"bias": False}, {"softcap": 3.0}, {"scale": 0.25}, {"softcap": 2.0, "scale": 2}])
def test_loss_and_gradients_equal_the_plain_ones(rest, weighted):
    hidden, head, targets = made(**rest)
    weights = torch.rand(T, generator=torch.Generator().manual_seed(1)) if weighted else None
    wanted = [x for x in (hidden, head.weight, head.bias) if x is not None]
    expected, found = plain(hidden, head, targets, weights), target_loss_sum(hidden, head, targets, weights)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-6)
    expected_grads = torch.autograd.grad(expected * 0.7, wanted)
    found_grads = torch.autograd.grad(found * 0.7, wanted)  # whatever comes from above is passed on
    for one, other in zip(found_grads, expected_grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_torch_agrees():
    """An independent implementation: torch's own chunked loss."""
    hidden, head, targets = made(bias=False)
    expected = F.linear_cross_entropy(
        hidden, head.weight, targets, reduction="sum", options=torch.nn.LinearCrossEntropyOptions()
    )
    torch.testing.assert_close(target_loss_sum(hidden, head, targets), expected)


def test_a_frozen_head_costs_no_gradient_of_its_own():
    hidden, head, targets = made()
    frozen = LanguageHead(head.weight.detach(), head.bias.detach())
    loss = target_loss_sum(hidden, frozen, targets)
    saved = [tensor for tensor in loss.grad_fn.saved_tensors if tensor is not None]
    assert [tensor.shape for tensor in saved] == [(T, D)]
    torch.testing.assert_close(
        torch.autograd.grad(loss, hidden)[0], torch.autograd.grad(plain(hidden, head, targets), hidden)[0],
        atol=1e-5, rtol=1e-5,
    )  # fmt: skip


def test_no_tensor_as_large_as_all_logits(monkeypatch):
    hidden, head, targets = made()
    sizes = []
    whole = LanguageHead.logits
    monkeypatch.setattr(LanguageHead, "logits", lambda self, part: sizes.append(len(part)) or whole(self, part))
    target_loss_sum(hidden, head, targets)
    assert sizes == [8, 8, 8, 8, 5]


def test_bf16_is_near():
    hidden, head, targets = made(bias=False)
    expected = plain(hidden, head, targets)
    rounded = LanguageHead(head.weight.detach().bfloat16())
    low = hidden.detach().bfloat16().requires_grad_()
    found = target_loss_sum(low, rounded, targets)
    assert found.dtype == torch.float32 and abs(found - expected) < 0.02 * expected
    (gradient,) = torch.autograd.grad(found, low)
    (exact,) = torch.autograd.grad(expected, hidden)
    assert gradient.dtype == torch.bfloat16
    assert F.cosine_similarity(gradient.float().flatten(), exact.flatten(), dim=0) > 0.999


def test_losses_and_hits_of_each_target():
    hidden, head, targets = made()
    losses, hits = target_losses(hidden, head, targets)
    logits = hidden @ head.weight.T + head.bias
    torch.testing.assert_close(losses, F.cross_entropy(logits, targets, reduction="none"))
    assert torch.equal(hits, logits.argmax(1) == targets)


def test_known_answers():
    uniform = LanguageHead(torch.zeros(V, D))
    hidden, _, targets = made()
    assert target_loss_sum(hidden, uniform, targets).item() == pytest.approx(T * math.log(V), rel=1e-6)
    none = target_loss_sum(hidden[:0], uniform, targets[:0])
    assert none.item() == 0.0
    none.backward()  # a micro-batch without targets has a gradient: zero


@pytest.mark.parametrize("kind", configs.WRITERS)
def test_logits_are_the_models_own(kind):
    """With its caps and scales: what transformers computes from the same hidden states."""
    model = configs.build_writer(kind).eval()
    forward = Forward(model)
    with torch.no_grad():
        found = LanguageHead.of(model).logits(forward.hidden(texts()))
        ids, mask = forward._padded_batch(texts())
        expected = model(input_ids=ids, attention_mask=mask.long()).logits[mask]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


# ---- log p and entropy of each target ----


def plain_logprobs(hidden, head, targets, temperature):
    logits = (hidden @ head.weight.T + (head.bias if head.bias is not None else 0)) * head.scale
    if head.softcap:
        logits = torch.tanh(logits / head.softcap) * head.softcap
    distribution = torch.distributions.Categorical(logits=logits / temperature)
    return distribution.log_prob(targets), distribution.entropy()


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
@pytest.mark.parametrize("rest", [{}, {"bias": False}, {"softcap": 3.0}, {"scale": 0.25}, {"softcap": 2.0, "scale": 2}])
def test_logprobs_entropies_and_gradients_equal_the_plain_ones(rest, temperature):
    hidden, head, targets = made(**rest)
    wanted = [x for x in (hidden, head.weight, head.bias) if x is not None]
    expected, entropies = plain_logprobs(hidden, head, targets, temperature)
    found, found_entropies = target_logprobs(hidden, head, targets, temperature)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(found_entropies, entropies, atol=1e-5, rtol=1e-6)
    assert not found_entropies.requires_grad
    # Each target with a share of its own, of either sign, as advantages are.
    shares = torch.randn(T, generator=torch.Generator().manual_seed(2))
    expected_grads = torch.autograd.grad((expected * shares).sum(), wanted)
    found_grads = torch.autograd.grad((found * shares).sum(), wanted)
    for one, other in zip(found_grads, expected_grads, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_logprobs_through_a_frozen_head_keep_no_logits(monkeypatch):
    hidden, head, targets = made()
    frozen = LanguageHead(head.weight.detach(), head.bias.detach())
    sizes = []
    whole = LanguageHead.logits
    monkeypatch.setattr(LanguageHead, "logits", lambda self, part: sizes.append(len(part)) or whole(self, part))
    logprobs, _ = target_logprobs(hidden, frozen, targets)
    saved = [tensor for tensor in logprobs.grad_fn.saved_tensors if tensor is not None]
    assert [tensor.shape for tensor in saved] == [(T, D)]
    logprobs.sum().backward()
    assert sizes == [8, 8, 8, 8, 5]  # none was made again
    torch.testing.assert_close(
        hidden.grad, torch.autograd.grad(-plain(hidden, frozen, targets), hidden)[0], atol=1e-5, rtol=1e-5
    )


def test_logprobs_without_gradients_and_without_targets():
    hidden, head, targets = made()
    with torch.no_grad():
        logprobs, entropies = target_logprobs(hidden, head, targets)
    losses, _ = target_losses(hidden, head, targets)
    torch.testing.assert_close(logprobs, -losses)
    assert not logprobs.requires_grad and (entropies > 0).all()
    none, nothing = target_logprobs(hidden[:0], head, targets[:0])
    assert none.shape == nothing.shape == (0,)
    none.sum().backward()
    assert not head.weight.grad.any()


def test_known_entropies():
    """A uniform distribution has log V nats; a certain one has none."""
    hidden, _, targets = made()
    logprobs, entropies = target_logprobs(hidden, LanguageHead(torch.zeros(V, D)), targets)
    torch.testing.assert_close(entropies, torch.full((T,), math.log(V)))
    torch.testing.assert_close(logprobs, torch.full((T,), -math.log(V)))
    bias = torch.zeros(V)
    bias[7] = 200.0
    logprobs, entropies = target_logprobs(hidden, LanguageHead(torch.zeros(V, D), bias), torch.full_like(targets, 7))
    torch.testing.assert_close(entropies, torch.zeros(T))
    torch.testing.assert_close(logprobs, torch.zeros(T))


def test_logprobs_in_bf16_are_near():
    hidden, head, targets = made(bias=False)
    expected, entropies = plain_logprobs(hidden, head, targets, 1.0)
    low = hidden.detach().bfloat16().requires_grad_()
    found, found_entropies = target_logprobs(low, LanguageHead(head.weight.detach().bfloat16()), targets)
    assert found.dtype == found_entropies.dtype == torch.float32
    assert (found - expected).abs().mean() < 0.05 and (found_entropies - entropies).abs().max() < 0.1
    (gradient,) = torch.autograd.grad(found.sum(), low)
    (exact,) = torch.autograd.grad(expected.sum(), hidden)
    assert gradient.dtype == torch.bfloat16
    assert F.cosine_similarity(gradient.float().flatten(), exact.flatten(), dim=0) > 0.999
