"""The maths of proximal policy optimisation and of its group-relative sister: tensors in, tensors out.

Used by `rollouts` and `ppo_loop`; knows no model, no batches and no settings. Sources: Schulman et al. 2016 (GAE,
arXiv 1506.02438) and 2017 (PPO, 1707.06347), Ziegler et al. 2019 (1909.08593), Ouyang et al. 2022 (InstructGPT,
2203.02155), Shao et al. 2024 (GRPO, 2402.03300), Huang et al. 2024 (details of RLHF with PPO, 2403.17031).

Shapes: B completions, C tokens of the longest one, on the right filled up; `mask` bool [B, C], True = a token of the
completion. A function that works token by token takes any shape. The state of token t is what stands before it: its
value V_t and its log probability come from the same position, so one mask serves both. Log probabilities and KL are in
nats.
"""

from __future__ import annotations

import torch
from torch import Tensor

# ---- masks ----


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values that count, a scalar: Σ m·x / Σ m."""
    return values.masked_fill(~mask, 0.0).sum() / mask.sum()


def whiten(values: Tensor, mask: Tensor, *, keep_mean: bool = False) -> Tensor:
    """(x − mean) / std over what counts, 0 elsewhere; `keep_mean` adds the mean again, so only the spread changes.

    Unbiased variance, 1e-8 added to it (Huang et al. 2024, detail 13). Ziegler et al. 2019 whiten advantages with the
    mean removed, and rewards with the mean kept, since moving rewards would change what is best.
    """
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    count = mask.sum()
    variance = variance * count / (count - 1).clamp(min=1)
    white = (values - mean) * torch.rsqrt(variance + 1e-8)
    return (white + mean if keep_mean else white).masked_fill(~mask, 0.0)


# ---- distance from the reference ----


def token_kl(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """log π(a) − log π_ref(a), token by token: KL(π ‖ π_ref) on average over what π writes, of either sign (k1).

    The penalty of Ziegler et al. 2019, eq. 2, and Ouyang et al. 2022, eq. 2.
    """
    return logprobs - ref_logprobs


def token_kl_positive(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """exp(d) − d − 1 with d = log π_ref(a) − log π(a): the same on average, never negative (k3).

    Schulman 2020 (joschu.net/blog/kl-approx.html); in the loss of GRPO, Shao et al. 2024, eq. 4.
    """
    d = ref_logprobs - logprobs
    return torch.expm1(d) - d


def next_kl_coef(kl_coef: float, kl: float, target: float, *, gain: float = 0.1, most: float = 0.2) -> float:
    """β · (1 + K·clip(KL/target − 1, ±0.2)), KL in nats per completion: Ziegler et al. 2019, section 2.2, K = 0.1."""
    error = min(max(kl / target - 1.0, -most), most)
    return kl_coef * (1.0 + gain * error)


# ---- rewards, advantages, returns ----


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """r_t = −β·KL_t, and the score on top at a completion's last token: [B], [B, C] -> [B, C].

    Ouyang et al. 2022, eq. 2, dealt out over tokens as in Ziegler et al. 2019.
    """
    rewards = (-kl_coef * kl).masked_fill(~mask, 0.0)
    last = mask.sum(1, keepdim=True) - 1
    return rewards.scatter_add(1, last, scores[:, None].to(rewards.dtype))


def advantages_and_returns(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates A and returns A + V, both [B, C], 0 where the mask is False.

    δ_t = r_t + γ·V_{t+1} − V_t; A_t = δ_t + γλ·A_{t+1}. Nothing follows a completion's last token, cut or ended.
    Schulman et al. 2016, eq. 11 and 16.
    """
    values, rewards = values.masked_fill(~mask, 0.0), rewards.masked_fill(~mask, 0.0)
    advantages = torch.zeros_like(values)
    following, next_value = torch.zeros_like(values[:, 0]), torch.zeros_like(values[:, 0])
    for t in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = torch.where(mask[:, t], delta + gamma * gae_lambda * following, 0.0)
        advantages[:, t], next_value = following, values[:, t]
    return advantages, (advantages + values).masked_fill(~mask, 0.0)


def group_advantages(scores: Tensor, group_size: int) -> Tensor:
    """(score − mean) / (std + 1e-4) among the completions of one prompt, which stand together: [B] -> [B].

    Shao et al. 2024, section 4.1.2. A group with equal scores teaches nothing: 0.
    """
    groups = scores.view(-1, group_size)
    apart = groups - groups.mean(1, keepdim=True)
    return (apart / (groups.std(1, keepdim=True) + 1e-4)).view(-1)


# ---- losses, token by token ----


def policy_losses(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """max(−A·ρ, −A·clip(ρ, 1 ± ε)) with ρ = π/π_old; like its inputs. Schulman et al. 2017, eq. 7."""
    ratio = (logprobs - old_logprobs).exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1.0 - clip_range, 1.0 + clip_range))


def value_losses(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float) -> Tensor:
    """½·max((V − R)², (clip(V, V_old ± ε) − R)²), like its inputs. Huang et al. 2024, detail 11; as OpenAI's code."""
    clipped = torch.clamp(values, old_values - clip_range, old_values + clip_range)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


# ---- measures ----


def is_clipped(logprobs: Tensor, old_logprobs: Tensor, clip_range: float) -> Tensor:
    """Whether a token's ratio is outside 1 ± ε; bool, like its inputs."""
    return ((logprobs - old_logprobs).exp() - 1.0).abs() > clip_range


def approximate_kl(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """(ρ − 1) − log ρ: how far updates have moved from the policy that wrote, on average KL(π_old ‖ π); never < 0."""
    return token_kl_positive(old_logprobs, logprobs)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 − Var(R − V) / Var(R) over what counts: 1 perfect, 0 as good as a constant; NaN where all returns are equal."""
    aim, missed = returns[mask], (returns - values)[mask]
    spread = aim.var(correction=0)
    return float("nan") if spread == 0 else float(1.0 - missed.var(correction=0) / spread)
