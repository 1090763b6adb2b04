"""The objective of an update: loss and gradient against the plain formulas on whole logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.learning import small_ppo
from tests.learning.test_rollouts import NUMBERS, STEPS
from tunewright.learning.gradients import Budget, Training, step_gradient
from tunewright.learning.policy import MEASURES, Lessons, PolicyObjective, penalised
from tunewright.learning.rollouts import collect
from tunewright.models.forward import Forward

PART = np.array([4, 0, 3, 1])
KL_COEF = 0.05


@pytest.fixture(params=["ppo", "grpo"])
def plan(request):
    return small_ppo.PPO if request.param == "ppo" else replace(small_ppo.GRPO, temperature=0.8)


def made(plan):
    """Rollouts of a policy, which then moves on: the ratio isn't 1 when it is asked again."""
    forward = Forward(small_ppo.moved(small_ppo.model(dropout=0.0)).eval())
    practice = small_ppo.practice(forward, plan)
    rollouts = collect(practice, NUMBERS, STEPS, seed=3, max_tokens=30, stop_if_asked=lambda: None)
    generator = torch.Generator().manual_seed(9)
    for parameter in [p for p in forward.model.parameters() if p.requires_grad]:
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    return practice, rollouts


def by_hand(practice, rollouts, plan):
    """The whole of it told anew, one completion after the other in double precision lists, gradients by autograd."""
    model, head = practice.policy.model, practice.value_head
    total, count = 0.0, 0
    lessons = lessons_by_hand(rollouts, plan)
    for i in PART:
        ids, prompt = torch.from_numpy(rollouts.tokens(i)), int(rollouts.prompt_lengths[i])
        out = model(input_ids=ids[None], output_hidden_states=True)
        logits = out.logits[0, prompt - 1 : -1] / plan.temperature
        new = torch.log(torch.softmax(logits, -1)).gather(1, ids[prompt:, None])[:, 0]
        advantages, returns = lessons[i]
        for t in range(len(new)):
            ratio = torch.exp(new[t] - rollouts.logprobs[i, t])
            a = advantages[t]
            total = total - torch.min(ratio * a, torch.clamp(ratio, 0.8, 1.2) * a)
            if head is not None:
                state = out.hidden_states[-1][0, prompt - 1 + t]
                value = head.weight[0] @ (state / state.pow(2).mean().sqrt()) + head.bias[0]
                old = float(rollouts.values[i, t])
                near = torch.clamp(value, old - 0.2, old + 0.2)
                total = total + 0.1 * 0.5 * torch.max((value - returns[t]) ** 2, (near - returns[t]) ** 2)
            else:
                apart = rollouts.ref_logprobs[i, t] - new[t]
                total = total + KL_COEF * (torch.exp(apart) - apart - 1)
            count += 1
    return total / count


def lessons_by_hand(rollouts, plan):
    scores = [float(s) - (0.0 if e else plan.eos_penalty) for s, e in zip(rollouts.scores, rollouts.ended, strict=True)]
    lengths = rollouts.completion_lengths
    if plan.method == "grpo":
        groups = [scores[:3], scores[3:]]
        flat = [(s - np.mean(group)) / (np.std(group, ddof=1) + 1e-4) for group in groups for s in group]
        return [([a] * int(length), [0.0] * int(length)) for a, length in zip(flat, lengths, strict=True)]
    found = []
    for i, length in enumerate(lengths):
        values = rollouts.values[i].tolist()
        rewards = [-KL_COEF * float(rollouts.logprobs[i, t] - rollouts.ref_logprobs[i, t]) for t in range(length)]
        rewards[-1] += scores[i]
        advantages, following = [0.0] * int(length), 0.0
        for t in reversed(range(length)):
            after = values[t + 1] if t + 1 < length else 0.0
            following = rewards[t] + after - values[t] + 0.95 * following
            advantages[t] = following
        found.append((advantages, [a + v for a, v in zip(advantages, values, strict=False)]))
    every = np.concatenate([a for a, _ in found])
    return [([(a - every.mean()) / every.std(ddof=1) for a in row], returns) for row, returns in found]


def gradient(practice, rollouts, plan, tokens):
    objective = PolicyObjective.of(rollouts, practice.value_head, plan, KL_COEF)
    heads = [] if practice.value_head is None else [practice.value_head]
    parameters = [p for p in nn.ModuleList([practice.policy.model, *heads]).parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.grad = None
    loss, _ = step_gradient(
        practice.policy, objective, Training(rollouts, rollouts.lengths), PART, Budget(tokens), small_ppo.RUNTIME, 0,
        print, parameters=parameters,
    )  # fmt: skip
    return loss, [p.grad.clone() for p in parameters], objective, parameters


@pytest.mark.parametrize("tokens", [1, 40, 10**6])
def test_loss_and_gradient_equal_the_plain_ones(plan, tokens):
    practice, rollouts = made(plan)
    loss, grads, objective, parameters = gradient(practice, rollouts, plan, tokens)
    expected = by_hand(practice, rollouts, plan)
    assert loss == pytest.approx(expected.item(), abs=1e-6)
    for found, wanted in zip(grads, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(found, wanted, atol=2e-6, rtol=1e-4)
    sums, count = objective.take_sums(), objective.weight_of(rollouts, PART)
    assert not objective.take_sums().any()
    assert objective.own_loss(sums, count) == pytest.approx(loss, abs=1e-6)
    assert sums[MEASURES.index("clip_fraction")] > 0  # the policy has moved far enough to be clipped


def test_lessons_equal_those_by_hand(plan):
    _, rollouts = made(plan)
    lessons = Lessons.of(rollouts, plan, KL_COEF)
    for i, (advantages, returns) in enumerate(lessons_by_hand(rollouts, plan)):
        inside = rollouts.completion_mask[i]
        torch.testing.assert_close(lessons.advantages[i][inside], torch.tensor(advantages, dtype=torch.float32))
        torch.testing.assert_close(lessons.returns[i][inside], torch.tensor(returns, dtype=torch.float32))
    assert not lessons.advantages[~rollouts.completion_mask].any()


def test_whitened_rewards_keep_their_mean():
    """Without distance and values a completion earns its score: over the spread of all rewards, but for their mean."""
    plan = small_ppo.ppo_but(whiten_rewards=True, eos_penalty=0.0, gae_lambda=1.0)
    _, rollouts = made(plan)
    rollouts = replace(rollouts, values=torch.zeros_like(rollouts.values), ref_logprobs=rollouts.logprobs)
    earned = Lessons.of(rollouts, plan, KL_COEF).returns[:, 0]
    lengths, scores = rollouts.completion_lengths, rollouts.scores.numpy()
    rewards = np.concatenate([[0.0] * (length - 1) + [score] for length, score in zip(lengths, scores, strict=True)])
    expected = (scores - rewards.mean() * lengths) / rewards.std(ddof=1) + rewards.mean() * lengths
    torch.testing.assert_close(earned, torch.from_numpy(expected).float(), atol=1e-5, rtol=1e-5)


def test_penalty_for_what_did_not_end():
    _, rollouts = made(small_ppo.PPO)
    rollouts = replace(rollouts, ended=torch.tensor([True, False, True, False, False, True]))
    taken = (rollouts.scores - penalised(rollouts, small_ppo.ppo_but(eos_penalty=1.5))).tolist()
    assert taken == pytest.approx([0, 1.5, 0, 1.5, 1.5, 0])
    assert torch.equal(penalised(rollouts, small_ppo.ppo_but(eos_penalty=0.0)), rollouts.scores)


def test_a_try_without_memory_is_counted_once(plan):
    practice, rollouts = made(plan)
    *_, whole, _ = gradient(practice, rollouts, plan, 10**6)
    objective = PolicyObjective.of(rollouts, practice.value_head, plan, KL_COEF)
    calls = []

    class Tight:
        caches = False

        def loss_of(self, forward, batch, boundary):
            loss = objective.loss_of(forward, batch, boundary)
            calls.append(1)
            if len(batch.indices) > 2:
                raise torch.OutOfMemoryError("made up")
            return loss

        def weight_of(self, dataset, indices):
            return objective.weight_of(dataset, indices)

    training = Training(rollouts, rollouts.lengths)
    step_gradient(practice.policy, Tight(), training, PART, Budget(10**6), small_ppo.RUNTIME, 0, lambda s: None)
    assert len(calls) > 2
    torch.testing.assert_close(objective.take_sums(), whole.take_sums(), atol=1e-4, rtol=1e-4)
