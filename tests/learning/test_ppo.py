"""The formulas of PPO and GRPO: hand-worked numbers, and independent ways of computing the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.signal import lfilter
from torch import Tensor

from tunewright.learning import ppo

LENGTHS = (5, 1, 3, 4)
C = 6  # one column more than any completion has
MASK = torch.arange(C) < torch.tensor(LENGTHS)[:, None]


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


# ---- masks ----


def test_mean_over_what_counts():
    values = draw(0, 4, C)
    close(ppo.masked_mean(values, MASK), values[MASK].mean())
    assert ppo.masked_mean(values.masked_fill(~MASK, float("nan")), MASK).isfinite()


def test_whitened_by_hand():
    """1, 3, 5: mean 3, unbiased variance 4; the 100 doesn't count."""
    values, mask = tensor(1, 3, 5, 100), torch.tensor([True, True, True, False])
    close(ppo.whiten(values, mask), tensor(-1, 0, 1, 0))
    close(ppo.whiten(values, mask, keep_mean=True), tensor(2, 3, 4, 0))


def test_whitening_as_numpy():
    values = draw(1, 4, C) * 7 + 3
    white = ppo.whiten(values, MASK)
    real = values[MASK].numpy()
    close(white[MASK], torch.from_numpy((real - real.mean()) / real.std(ddof=1)))
    assert white[MASK].mean().abs() < 1e-6 and white[MASK].std().item() == pytest.approx(1.0, abs=1e-6)
    kept = ppo.whiten(values, MASK, keep_mean=True)
    assert kept[MASK].mean().item() == pytest.approx(real.mean(), abs=1e-6)
    assert not white[~MASK].any() and not kept[~MASK].any()


def test_whitening_equal_or_single_values_gives_numbers():
    close(ppo.whiten(torch.full((2, 3), 4.0), torch.ones(2, 3, dtype=torch.bool)), torch.zeros(2, 3))
    close(ppo.whiten(tensor(4, 9), torch.tensor([True, False])), tensor(0, 0))


# ---- distance ----


def test_token_kl_by_hand():
    """The policy doubles the probability of one token and halves that of another."""
    p, q = tensor(0.4, 0.1).log(), tensor(0.2, 0.2).log()
    close(ppo.token_kl(p, q), tensor(math.log(2), -math.log(2)))
    close(ppo.token_kl_positive(p, q), tensor(0.5 - 1 + math.log(2), 2 - 1 - math.log(2)))


def test_both_estimates_are_the_divergence_on_average():
    policy, reference = (draw(seed, 9).log_softmax(0) for seed in (2, 3))
    exact = (policy.exp() * (policy - reference)).sum()
    for estimate in (ppo.token_kl, ppo.token_kl_positive):
        close((policy.exp() * estimate(policy, reference)).sum(), exact)
    assert (ppo.token_kl_positive(policy, reference) >= 0).all()
    assert (ppo.token_kl(policy, reference) < 0).any()


@pytest.mark.parametrize(
    "kl, expected", [(6.0, 0.1), (6.6, 0.1 * 1.01), (60.0, 0.1 * 1.02), (0.0, 0.1 * 0.98), (5.7, 0.1 * 0.995)]
)
def test_adaptive_price_by_hand(kl, expected):
    """Target 6: ten per cent too far is one per cent dearer; never more than two per cent at once."""
    assert ppo.next_kl_coef(0.1, kl, 6.0) == pytest.approx(expected, rel=1e-12)


def test_adaptive_price_holds_a_target():
    """A policy whose distance falls with the price ends at the target."""
    coefficient = 1.0
    for _ in range(2000):
        coefficient = ppo.next_kl_coef(coefficient, 3.0 / coefficient, 12.0)
    assert 3.0 / coefficient == pytest.approx(12.0, rel=1e-3)


# ---- rewards, advantages ----


def test_rewards_by_hand():
    """β = 0.5; scores stand on the last token of each completion, not in the last column."""
    kl = torch.tensor([[0.2, -0.4, 1.0], [2.0, 9.0, 9.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    found = ppo.token_rewards(tensor(3.0, -1.0), kl, mask, 0.5)
    close(found, torch.tensor([[-0.1, 0.2, 2.5], [-2.0, 0.0, 0.0]], dtype=torch.float64))


def test_rewards_sum_to_score_less_distance():
    kl, scores = draw(4, 4, C), draw(5, 4)
    found = ppo.token_rewards(scores, kl, MASK, 0.3)
    close(found.sum(1), scores - 0.3 * kl.masked_fill(~MASK, 0).sum(1))


def test_advantages_by_hand():
    """γ = 0.5, λ = 0.5, three tokens: δ = (1.5, 0.5, 3) and A = (1.8125, 1.25, 3)."""
    rewards, values = tensor(2, 1, 4)[None], tensor(1, 1, 1)[None]
    mask = torch.ones(1, 3, dtype=torch.bool)
    advantages, returns = ppo.advantages_and_returns(rewards, values, mask, gamma=0.5, gae_lambda=0.5)
    close(advantages, tensor(1.8125, 1.25, 3)[None])
    close(returns, tensor(2.8125, 2.25, 4)[None])


@pytest.mark.parametrize("gamma, gae_lambda", [(1.0, 0.95), (0.9, 0.8), (0.97, 1.0), (0.5, 0.0)])
def test_advantages_as_scipys_filter(gamma, gae_lambda):
    """A is a discounted sum of δ: a recursive filter run backwards, one completion at a time, without any mask."""
    rewards, values = draw(6, 4, C), draw(7, 4, C)
    advantages, returns = ppo.advantages_and_returns(rewards, values, MASK, gamma=gamma, gae_lambda=gae_lambda)
    for row, length in enumerate(LENGTHS):
        r, v = rewards[row, :length].numpy(), values[row, :length].numpy()
        delta = r + gamma * np.append(v[1:], 0.0) - v
        expected = lfilter([1.0], [1.0, -gamma * gae_lambda], delta[::-1])[::-1].copy()
        close(advantages[row, :length], torch.from_numpy(expected))
        close(returns[row, :length], torch.from_numpy(expected + v))
    assert not advantages[~MASK].any() and not returns[~MASK].any()


def test_with_lambda_one_returns_are_what_was_earned():
    """Whatever the values say: Σ γ^k r_{t+k}."""
    rewards = draw(8, 4, C)
    for seed in (9, 10):
        _, returns = ppo.advantages_and_returns(rewards, draw(seed, 4, C), MASK, gamma=0.9, gae_lambda=1.0)
        for row, length in enumerate(LENGTHS):
            earned = lfilter([1.0], [1.0, -0.9], rewards[row, :length].numpy()[::-1])[::-1].copy()
            close(returns[row, :length], torch.from_numpy(earned))


@pytest.mark.parametrize("garbage", [float("nan"), 1e30, -7.0])
def test_what_is_behind_the_end_changes_nothing(garbage):
    """Padding and values share one mask: neither a value nor a reward there reaches an advantage."""
    rewards, values = draw(11, 4, C), draw(12, 4, C)
    clean = ppo.advantages_and_returns(rewards, values, MASK, gamma=1.0, gae_lambda=0.95)
    dirty = ppo.advantages_and_returns(
        rewards.masked_fill(~MASK, garbage), values.masked_fill(~MASK, garbage), MASK, gamma=1.0, gae_lambda=0.95
    )
    for one, other in zip(clean, dirty, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(
        ppo.token_rewards(draw(13, 4), rewards, MASK, 0.1),
        ppo.token_rewards(draw(13, 4), rewards.masked_fill(~MASK, garbage), MASK, 0.1),
    )


def test_perfect_values_leave_no_advantage():
    """If values already say what will be earned, nothing is better than expected."""
    rewards = draw(14, 4, C)
    _, earned = ppo.advantages_and_returns(rewards, torch.zeros(4, C).double(), MASK, gamma=1.0, gae_lambda=1.0)
    advantages, returns = ppo.advantages_and_returns(rewards, earned, MASK, gamma=1.0, gae_lambda=0.95)
    close(advantages, torch.zeros(4, C).double())
    close(returns, earned)


def test_group_advantages_by_hand():
    """1, 2, 3: mean 2, std 1; equal scores teach nothing."""
    found = ppo.group_advantages(tensor(1, 2, 3, 5, 5, 5), 3)
    close(found, tensor(-1, 0, 1, 0, 0, 0) / 1.0001)


def test_group_advantages_see_neither_a_shift_nor_a_scale():
    scores = draw(15, 8)
    groups = torch.tensor([100.0, -3.0]).repeat_interleave(4)
    torch.testing.assert_close(
        ppo.group_advantages(scores * 50 + groups, 4), ppo.group_advantages(scores, 4), atol=1e-3, rtol=1e-3
    )


# ---- losses ----


def policy_loss_by_cases(logprob: float, old: float, advantage: float, clip: float) -> float:
    """Told as cases: a good token is not pushed beyond 1 + ε, a bad one not below 1 − ε; the other way is free."""
    ratio = math.exp(logprob - old)
    held = min(ratio, 1 + clip) if advantage >= 0 else max(ratio, 1 - clip)
    return -advantage * held


def test_policy_losses_by_hand():
    """Ratio 1.5 with ε = 0.2: a gain of 2 counts 1.2 of it, a loss of 2 all of it; and the other way round at 0.5."""
    old = torch.zeros(4, dtype=torch.float64)
    new, advantages = tensor(1.5, 1.5, 0.5, 0.5).log(), tensor(2, -2, 2, -2)
    close(ppo.policy_losses(new, old, advantages, 0.2), tensor(-2.4, 3.0, -1.0, 1.6))


def test_policy_losses_by_cases():
    new, old, advantages = draw(16, 4, C), draw(17, 4, C), draw(18, 4, C)
    expected = [
        policy_loss_by_cases(*row, 0.2)
        for row in zip(new.flatten().tolist(), old.flatten().tolist(), advantages.flatten().tolist(), strict=True)
    ]
    close(ppo.policy_losses(new, old, advantages, 0.2).flatten(), tensor(*expected))


def test_at_ratio_one_the_gradient_is_that_of_the_policy_gradient():
    """−A ∇log π, clipped nowhere."""
    new, advantages = draw(19, 9).requires_grad_(), draw(20, 9)
    (grad,) = torch.autograd.grad(ppo.policy_losses(new, new.detach(), advantages, 0.2).sum(), new)
    close(grad, -advantages)


def test_clipped_tokens_have_no_gradient():
    new = tensor(1.5, 0.5).log().requires_grad_()
    (grad,) = torch.autograd.grad(ppo.policy_losses(new, torch.zeros(2), tensor(1, -1), 0.2).sum(), new)
    assert not grad.any()


def test_value_losses_by_hand():
    """Old 1, return 2, ε = 0.2. Value 1.1: ½·0.9². 1.5 counts as 1.2: ½·0.8². 0: farther than 0.8 allows: ½·2²."""
    values, old, returns = tensor(1.1, 1.5, 0.0), tensor(1, 1, 1), tensor(2, 2, 2)
    close(ppo.value_losses(values, old, returns, 0.2), tensor(0.405, 0.32, 2.0))


def test_value_losses_by_cases():
    values, old, returns = draw(21, 30), draw(22, 30), draw(23, 30)
    expected = []
    for v, o, r in zip(values.tolist(), old.tolist(), returns.tolist(), strict=True):
        near = min(max(v, o - 0.2), o + 0.2)
        expected.append(max(abs(v - r), abs(near - r)) ** 2 / 2)
    close(ppo.value_losses(values, old, returns, 0.2), tensor(*expected))


# ---- measures ----


def test_clipped_share_by_hand():
    new = tensor(1.0, 1.19, 1.21, 0.81, 0.79).log()
    assert ppo.is_clipped(new, torch.zeros(5), 0.2).tolist() == [False, False, True, False, True]


def test_approximate_kl_by_hand():
    """Ratio 2: 1 − log 2; never negative, 0 where nothing moved."""
    close(ppo.approximate_kl(tensor(2, 1).log(), tensor(1, 1).log()), tensor(1 - math.log(2), 0))
    old, new = (draw(seed, 9).log_softmax(0) for seed in (24, 25))
    close((old.exp() * ppo.approximate_kl(new, old)).sum(), (old.exp() * (old - new)).sum())


def test_explained_variance_as_scikit_learn():
    from sklearn.metrics import explained_variance_score

    values, returns = draw(26, 4, C), draw(27, 4, C)
    values = (values + returns).masked_fill(~MASK, 1e9)
    expected = explained_variance_score(returns[MASK].numpy(), values[MASK].numpy())
    assert ppo.explained_variance(values, returns, MASK) == pytest.approx(expected, abs=1e-6)
    assert ppo.explained_variance(returns, returns, MASK) == 1.0
    assert ppo.explained_variance(torch.ones(4, C).double(), returns, MASK) == pytest.approx(0.0, abs=1e-9)
    assert math.isnan(ppo.explained_variance(returns, torch.ones(4, C), MASK))
