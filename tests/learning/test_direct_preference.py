"""DPO's loss: that of TRL, of a hand's arithmetic, of plain autograd; and cutting a step changes nothing."""

from __future__ import annotations

import math

import numpy as np
import peft
import pytest
import torch
import transformers as hf

from tests.learning.comparing import Compared, dataset, made
from tests.models import configs
from tunewright.data.batching import collate
from tunewright.learning.direct_preference import DirectPreference, completion_logprobs, implicit_rewards
from tunewright.learning.gradients import Budget, Training, step_gradient
from tunewright.learning.preference import preference_losses
from tunewright.models import boundary
from tunewright.models.forward import Forward
from tunewright.models.starting import reference_of
from tunewright.runtime import Runtime

# ---- what TRL says ----

# Prompt, chosen, rejected.
ROWS = [
    ([1, 5, 9, 13], [7, 8, 2], [11, 3, 4, 6, 2]),
    ([1, 20, 21], [30, 31, 32, 33, 34, 2], [35, 2]),
    ([1, 6, 7, 8, 9, 10], [39, 2], [38, 37, 36, 2]),
]
# TRL 1.16.0, torch 2.13.0, transformers 5.23.0: DPOTrainer(model=formula(0.1), ref_model=formula(0.0), beta=…), fp32;
# its own collator on ROWS, its `_compute_loss` in training mode, `backward`; `compute_ref_log_probs` of both models.
TRL_CHOSEN = [-11.585257530212402, -21.892436981201172, -7.8770551681518555]
TRL_REJECTED = [-21.77863121032715, -7.046090126037598, -15.178255081176758]
TRL_REF_CHOSEN = [-12.429439544677734, -21.92011260986328, -8.323058128356934]
TRL_REF_REJECTED = [-22.100242614746094, -7.2833709716796875, -15.71351432800293]
TRL = {
    0.1: {
        "loss": 0.6895540356636047,
        "grad_norm": 0.553238034248352,
        "head": [-0.018699582666158676, -0.003560557495802641, 0.01939397305250168, 0.03825550526380539],
        "query": [-0.00793472584336996, -0.007721115835011005, -0.007316894829273224, -0.006293734535574913],
    },
    0.5: {
        "loss": 0.6778817176818848,
        "grad_norm": 2.6666879653930664,
        "head": [-0.08343702554702759, -0.015829425305128098, 0.0866510421037674, 0.17083308100700378],
        "query": [-0.03734355419874191, -0.035226210951805115, -0.032734595239162445, -0.02722315862774849],
    },
}


def formula(shift: float):
    """A Llama whose weights are a formula, so that they are the same wherever it is built."""
    model = hf.LlamaForCausalLM(
        hf.LlamaConfig(
            vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, max_position_embeddings=64, tie_word_embeddings=False,
            pad_token_id=0, bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            n = torch.arange(p.numel(), dtype=torch.float64)
            values = 0.4 * torch.sin(0.37 * n + 1.3 * i) + shift * torch.cos(0.11 * n * n + i) + (p.ndim == 1)
            p.copy_(values.reshape(p.shape).float())
    return model


def by_trl(beta: float) -> tuple[Forward, DirectPreference]:
    """The same policy, reference and rows."""
    data = dataset([Compared(prompt, [chosen, rejected]) for prompt, chosen, rejected in ROWS])
    reference = completion_logprobs(Forward(formula(0.0)), data)
    return Forward(formula(0.1)), DirectPreference(data, beta, reference)


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_loss_and_gradients_are_those_of_trl(beta):
    forward, objective = by_trl(beta)
    batch = collate(objective.dataset, np.arange(3))
    loss = objective.loss_of(forward, batch, None) / objective.weight_of(objective.dataset, np.arange(3))
    assert loss.item() == pytest.approx(TRL[beta]["loss"], abs=1e-6)
    loss.backward()
    model = forward.model
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
    assert norm == pytest.approx(TRL[beta]["grad_norm"], rel=1e-5)
    # The query of the first layer sees all that lies above it; its gradient has few places before the point.
    np.testing.assert_allclose(model.lm_head.weight.grad[7, :4], TRL[beta]["head"], atol=1e-6)
    np.testing.assert_allclose(model.model.layers[0].self_attn.q_proj.weight.grad[0, :4], TRL[beta]["query"], atol=1e-6)


def test_logprobs_are_those_of_trl():
    forward, objective = by_trl(0.1)
    pairs = np.stack([objective.ref_logprobs[0::2], objective.ref_logprobs[1::2]])
    np.testing.assert_allclose(pairs, [TRL_REF_CHOSEN, TRL_REF_REJECTED], atol=2e-5)
    policy = completion_logprobs(forward, objective.dataset)
    np.testing.assert_allclose([policy[0::2], policy[1::2]], [TRL_CHOSEN, TRL_REJECTED], atol=2e-5)


def test_pure_functions_give_trl_s_loss_from_trl_s_logprobs():
    chosen, rejected = torch.tensor(TRL_CHOSEN), torch.tensor(TRL_REJECTED)
    ref_chosen, ref_rejected = torch.tensor(TRL_REF_CHOSEN), torch.tensor(TRL_REF_REJECTED)
    for beta, expected in TRL.items():
        difference = implicit_rewards(chosen, ref_chosen, beta) - implicit_rewards(rejected, ref_rejected, beta)
        found = preference_losses(difference, torch.ones(3)).mean().item()
        assert found == pytest.approx(expected["loss"], abs=1e-6)


# ---- by hand ----


def test_loss_by_hand():
    """One prompt, three completions, a sure comparison and a doubtful one; the reference makes the rewards."""
    data = dataset([Compared([5, 6], [[8], [9, 10], [11]], [(0, 1, 1.0), (2, 0, 0.8)])])
    forward = Forward(configs.build_writer("llama"))
    reference = completion_logprobs(forward, data) - [2.0, -3.0, 4.0]  # rewards 1, −1.5 and 2 at β = 0.5
    loss = DirectPreference(data, 0.5, reference).loss_of(forward, collate(data, np.arange(1)), None)
    sure = math.log1p(math.exp(-2.5))
    doubtful = 0.8 * math.log1p(math.exp(-1.0)) + 0.2 * math.log1p(math.exp(1.0))
    assert loss.item() == pytest.approx((sure + doubtful) / 2, abs=1e-5)


# ---- by plain autograd ----


def by_autograd(model, reference, data, beta: float) -> torch.Tensor:
    """Text by text, all logits, nothing of ours: the mean over prompts of the mean over their comparisons."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(data)):
        texts = np.split(data.tokens(i), np.cumsum(data.text_lengths(i))[:-1])
        masks = np.split(data.is_target(i), np.cumsum(data.text_lengths(i))[:-1])
        rewards = []
        for ids, counts in zip(texts, masks, strict=True):
            tokens, wanted = torch.from_numpy(ids).long(), torch.from_numpy(counts[1:])
            said = [one(input_ids=tokens[None]).logits[0, :-1].double().log_softmax(1) for one in (model, reference)]
            policy, ref = (one.gather(1, tokens[1:, None])[:, 0][wanted].sum() for one in said)
            rewards.append(beta * (policy - ref.detach()))
        pairs = zip(data.pairs(i), data.weights(i), strict=True)
        losses = []
        for (a, b), p in ((pair, float(weight)) for pair, weight in pairs):
            prefers = torch.sigmoid(rewards[a] - rewards[b])
            losses.append(-p * torch.log(prefers) - (1 - p) * torch.log(1 - prefers))
        total = total + sum(losses) / len(losses)
    return total / len(data)


@pytest.mark.parametrize("kind", configs.WRITERS)
@pytest.mark.parametrize("packed", [True, False])
def test_loss_and_gradients_are_those_of_plain_autograd(kind, packed):
    model, data, beta = configs.build_writer(kind), made(), 0.3
    torch.manual_seed(1)
    reference = configs.build_writer(kind)
    for parameter in reference.parameters():
        parameter.data += torch.randn_like(parameter) * 0.02
    known = completion_logprobs(Forward(reference, packed=packed), data)
    objective = DirectPreference(data, beta, known)
    found = objective.loss_of(Forward(model, packed=packed), collate(data, np.arange(len(data))), None) / len(data)
    expected = by_autograd(model, reference, data, beta)
    assert found.item() == pytest.approx(expected.item(), abs=2e-5)
    parameters = list(model.parameters())
    wanted = torch.autograd.grad(expected, parameters, allow_unused=True)
    grads = torch.autograd.grad(found, parameters, allow_unused=True)
    for (name, _), one, other in zip(model.named_parameters(), grads, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-3, msg=name)


def test_completions_of_a_prompt_do_not_see_each_other():
    """The texts lie end to end; another completion beside it changes nothing of what one is worth."""
    forward = Forward(configs.build_writer("llama"))
    one = dataset([Compared([5, 6, 7], [[8, 9], [10, 11, 12]])])
    other = dataset([Compared([5, 6, 7], [[40, 41, 42, 43, 44], [10, 11, 12]])])
    assert completion_logprobs(forward, one)[1] == pytest.approx(completion_logprobs(forward, other)[1], abs=1e-5)
    assert completion_logprobs(forward, one)[0] != pytest.approx(completion_logprobs(forward, other)[0], abs=1e-2)


# ---- a step is a step ----


@pytest.mark.parametrize("budget", [1, 60, 100])
def test_cutting_a_step_changes_nothing(budget):
    data, results = made(prompts=9), []
    reference = completion_logprobs(Forward(configs.build_writer("llama")), data) - 0.7 * np.arange(
        data.num_texts.sum()
    )
    for tokens in (budget, 100_000):
        forward = Forward(configs.build_writer("llama"))
        loss, _ = step_gradient(
            forward, DirectPreference(data, 0.2, reference), Training(data, data.lengths), np.array([7, 1, 4, 2, 8]),
            Budget(tokens), Runtime("cpu", "fp32", 1), 0, print,
        )  # fmt: skip
        results.append([torch.tensor(loss), *(p.grad.clone() for p in forward.model.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_a_prompt_counts_once_however_often_it_was_ranked():
    """Four completions in full order are six comparisons; together they weigh as much as one."""
    ranked = Compared([5, 6], [[8], [9, 10], [11], [12, 13]],
                      [(0, 1, 1.0), (0, 2, 1.0), (0, 3, 1.0), (1, 2, 1.0), (1, 3, 1.0), (2, 3, 1.0)])  # fmt: skip
    data = dataset([ranked, Compared([5], [[8, 9], [10]])])
    objective, forward = DirectPreference(data, 0.1), Forward(configs.build_writer("llama"))
    loss = objective.loss_of(forward, collate(data, np.arange(2)), None)
    assert loss.item() == pytest.approx(2 * math.log(2), abs=1e-6)
    assert objective.weight_of(data, np.arange(2)) == 2


def test_before_the_reference_is_measured_the_policy_is_the_reference():
    """What is planned with costs what a step costs, and points where the first step goes."""
    data, gradients = made(), []
    for known in (False, True):
        forward = Forward(configs.build_writer("llama"))
        reference = completion_logprobs(forward, data) if known else None
        objective = DirectPreference(data, 0.1, reference)
        loss = objective.loss_of(forward, collate(data, np.arange(len(data))), None)
        assert loss.item() == pytest.approx(len(data) * math.log(2), abs=1e-4)
        loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in forward.model.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-3)


def test_subsets_keep_their_own_reference():
    """Prompts picked from a larger dataset, in another order: each text still meets its own number."""
    whole, forward = made(prompts=7), Forward(configs.build_writer("llama"))
    known = completion_logprobs(forward, whole) - np.arange(whole.num_texts.sum())
    part = whole.subset(np.array([5, 0, 3]))
    starts = np.cumsum(whole.num_texts) - whole.num_texts
    own = np.concatenate([known[starts[i] : starts[i] + whole.num_texts[i]] for i in (5, 0, 3)])
    np.testing.assert_allclose(completion_logprobs(forward, part), own + np.concatenate(
        [np.arange(starts[i], starts[i] + whole.num_texts[i]) for i in (5, 0, 3)]), atol=1e-4)  # fmt: skip
    for index, place in ((5, 0), (0, 1), (3, 2)):
        one = DirectPreference(whole, 0.1, known).loss_of(forward, collate(whole, np.array([index])), None)
        other = DirectPreference(part, 0.1, own).loss_of(forward, collate(part, np.array([place])), None)
        assert one.item() == pytest.approx(other.item(), abs=1e-5)


# ---- the reference is the start ----


def test_reference_with_adapters_off_is_the_base_and_no_dropout_is_in_it():
    base, data = configs.build_writer("llama"), made()
    expected = completion_logprobs(Forward(base), data)
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, lora_dropout=0.5, target_modules=["q_proj", "v_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.3
    forward = Forward(model.train())
    moved = completion_logprobs(forward, data)
    assert np.abs(moved - expected).max() > 0.1
    np.testing.assert_array_equal(completion_logprobs(forward, data), moved)  # dropout would draw anew
    with reference_of(model):
        np.testing.assert_allclose(completion_logprobs(forward, data), expected, atol=1e-5)
    np.testing.assert_array_equal(completion_logprobs(forward, data), moved)


def test_learning_prefers_what_was_preferred():
    """A few steps on two comparisons: the chosen one gains, the rejected one loses, both against the reference."""
    data = dataset([Compared([5, 6], [[8, 9], [10, 11]]), Compared([7], [[12], [13, 14]])])
    forward = Forward(configs.build_writer("llama"))
    reference = completion_logprobs(forward, data)
    objective = DirectPreference(data, 0.5, reference)
    optimizer = torch.optim.AdamW(forward.model.parameters(), lr=1e-3)
    losses = []
    for _ in range(20):
        loss = objective.loss_of(forward, collate(data, np.arange(2)), None) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    gained = completion_logprobs(forward, data) - reference
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5) and losses[-1] < 0.2
    assert all(gained[better] > gained[better + 1] + 1 for better in (0, 2))


def test_ranks_share_the_reference_pass():
    """What two ranks find adds up to what one finds, and neither computes it all."""
    forward, data, parts = Forward(configs.build_writer("llama")), made(prompts=300), []

    class Rank(Runtime):
        def sum(self, tensor):
            parts.append(tensor[0].clone())
            return tensor

    for rank in (0, 1):
        completion_logprobs(forward, data, runtime=Rank("cpu", "fp32", 1, rank, 2))
    assert all((part == 0).any() for part in parts)
    np.testing.assert_allclose(-sum(parts), completion_logprobs(forward, data), atol=1e-4)


def test_it_stops_when_asked():
    class Stop(Exception):
        pass

    def stop():
        raise Stop

    with pytest.raises(Stop):
        completion_logprobs(Forward(configs.build_writer("llama")), made(), before_batch=stop)


@pytest.mark.parametrize("k", [1, 3])
def test_cached_layers_change_nothing(k, tmp_path):
    forward, data = Forward(configs.build_writer("qwen2")), made()
    cache = boundary.build(forward, data, data.lengths, k, tmp_path / "states.npy")
    plain = completion_logprobs(forward, data)
    np.testing.assert_allclose(completion_logprobs(forward, data, cache=cache), plain, atol=1e-4)
    objective, order = DirectPreference(data, 0.3, plain - np.arange(len(plain))), np.array([4, 0, 3])
    losses = [
        objective.loss_of(forward, collate(data, order), cached and cached.boundary(order)) for cached in (None, cache)
    ]
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-5)
    cache.states[:] = 0
    assert np.abs(completion_logprobs(forward, data, cache=cache) - plain).max() > 0.1  # and it was read
