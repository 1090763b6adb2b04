"""Rollouts: what is measured equals what the plain model says, at the places and only the places that count."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.learning import small_ppo
from tests.models import configs
from tunewright.errors import ModelError, StoppedError
from tunewright.learning.iterations import prompt_numbers, update_steps
from tunewright.learning.rollouts import Ending, Rollouts, collect
from tunewright.models.forward import Forward
from tunewright.models.language_head import LanguageHead

NUMBERS = np.array([3, 0, 7, 7, 1, 9])
STEPS = [np.array([0, 2, 4]), np.array([5, 3, 1])]


def made(built=None, plan=small_ppo.PPO, **changes):
    forward = Forward((built or small_ppo.moved(small_ppo.model())).eval())
    practice = small_ppo.practice(forward, plan)
    settings = {"seed": 3, "max_tokens": 30, "stop_if_asked": lambda: None} | changes
    return practice, collect(practice, NUMBERS, STEPS, **settings)


def plain(practice, rollouts: Rollouts, temperature: float, disabled: bool = False):
    """One text at a time, the whole logits, transformers' own forward: log probabilities and hidden states."""
    model = practice.policy.model
    logprobs, states = [], []
    for i in range(len(rollouts)):
        ids = torch.from_numpy(rollouts.tokens(i))
        prompt = int(rollouts.prompt_lengths[i])
        with torch.no_grad():
            if disabled:
                with model.disable_adapter():
                    out = model(input_ids=ids[None], output_hidden_states=True)
            else:
                out = model(input_ids=ids[None], output_hidden_states=True)
        scores = (out.logits[0] / temperature).log_softmax(-1)
        logprobs.append(scores[prompt - 1 : -1].gather(1, ids[prompt:, None])[:, 0])
        states.append(out.hidden_states[-1][0, prompt - 1 : -1])
    return torch.cat(logprobs), torch.cat(states)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3"])
def test_logprobs_reference_and_values_are_the_plain_models(kind):
    built = configs.build_writer(kind)
    if kind == "llama":
        built = small_ppo.moved(small_ppo.model())
    practice, rollouts = made(built)
    mask, temperature = rollouts.completion_mask, practice.temperature
    assert temperature == 0.8  # the reference's logits are divided by it as the policy's are
    logprobs, states = plain(practice, rollouts, temperature)
    torch.testing.assert_close(rollouts.logprobs[mask], logprobs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rollouts.values[mask], practice.value_head(states).detach(), atol=1e-5, rtol=1e-5)
    if kind == "llama":
        reference, _ = plain(practice, rollouts, temperature, disabled=True)
        assert (reference - logprobs).abs().max() > 0.1
        torch.testing.assert_close(rollouts.ref_logprobs[mask], reference, atol=1e-5, rtol=1e-5)
    else:
        assert torch.equal(rollouts.ref_logprobs, rollouts.logprobs)  # a copy that hasn't moved
    for table in (rollouts.logprobs, rollouts.ref_logprobs, rollouts.values):
        assert not table[~mask].any()


def test_an_untrained_adapter_is_its_reference():
    _, rollouts = made(small_ppo.model())
    assert torch.equal(rollouts.logprobs, rollouts.ref_logprobs) and rollouts.kl == 0.0


def test_kl_is_a_sum_per_completion():
    _, rollouts = made()
    sums = [
        (rollouts.logprobs[i] - rollouts.ref_logprobs[i])[rollouts.completion_mask[i]].sum().item() for i in range(6)
    ]
    assert rollouts.kl == pytest.approx(np.mean(sums), abs=1e-5)


def test_completions_end_with_their_end():
    _, rollouts = made()
    lengths = rollouts.completion_lengths
    assert (lengths < 7).any() or rollouts.ended.any() or (lengths == 7).all()
    for i in range(len(rollouts)):
        ids = rollouts.completions[i][rollouts.completion_mask[i]].tolist()
        assert ids.count(small_ppo.EOS) == int(rollouts.ended[i]) and (ids[-1] == small_ppo.EOS) == rollouts.ended[i]
        assert rollouts.ended[i] or len(ids) == 7
        assert not rollouts.completions[i][~rollouts.completion_mask[i]].any()


def test_text_that_ends_a_completion():
    """A stop text counts as an end too."""

    class Words:
        def decode(self, ids, **_):
            return " ".join(str(int(i)) for i in ids)

    forward = Forward(small_ppo.model().eval())
    practice = small_ppo.practice(forward)
    text = small_ppo.text
    ending = Ending(frozenset(), text, stop=tuple(f" {i}" for i in range(10, 50)), tokenizer=Words())
    practice = type(practice)(**{**vars(practice), "ending": ending})
    rollouts = collect(practice, NUMBERS, STEPS, seed=3, max_tokens=30, stop_if_asked=lambda: None)
    assert rollouts.ended.any() and (rollouts.completion_lengths[rollouts.ended.numpy()] < 7).any()


def test_as_a_dataset():
    practice, rollouts = made()
    for i, number in enumerate(NUMBERS):
        prompt = practice.prompts.ids(int(number))
        ids, targets = rollouts.tokens(i), rollouts.is_target(i)
        assert ids[: len(prompt)].tolist() == prompt and len(ids) == len(targets) == rollouts.lengths[i]
        assert not targets[: len(prompt)].any() and targets[len(prompt) :].all()
        assert targets.sum() == rollouts.completion_lengths[i]
    assert rollouts.rows.tolist() == NUMBERS.tolist()


def test_the_head_runs_at_completion_tokens_alone(monkeypatch):
    sizes = []
    whole = LanguageHead.logits
    monkeypatch.setattr(LanguageHead, "logits", lambda self, part: sizes.append(len(part)) or whole(self, part))
    _, rollouts = made()
    assert sum(sizes) == 2 * int(rollouts.completion_lengths.sum())  # policy and reference
    assert len(sizes) > 2  # by micro-batches


@pytest.mark.parametrize("tokens", [1, 45, 10**6])
def test_cutting_changes_nothing(tokens):
    _, whole = made(max_tokens=30)
    _, cut = made(max_tokens=tokens)
    assert torch.equal(cut.completions, whole.completions) and torch.equal(cut.scores, whole.scores)
    for name in ("logprobs", "ref_logprobs", "values"):
        torch.testing.assert_close(getattr(cut, name), getattr(whole, name), atol=1e-5, rtol=1e-5)


def test_seeds():
    _, one = made()
    _, same = made()
    _, other = made(seed=4)
    assert all(torch.equal(a, b) for a, b in zip(one.tensors().values(), same.tensors().values(), strict=True))
    assert not torch.equal(one.completions, other.completions)
    twice = np.flatnonzero(NUMBERS == 7)  # one prompt, twice in one iteration: two completions
    assert not torch.equal(one.completions[twice[0]], one.completions[twice[1]])


def test_the_policys_mode_and_gradients_are_left_alone():
    practice, _ = made()
    assert not practice.policy.model.training
    learns = [n for n, p in practice.policy.model.named_parameters() if p.requires_grad]
    assert learns and all("lora_" in name for name in learns)
    assert all(p.grad is None for p in practice.policy.model.parameters())


def test_scores_come_from_texts_without_their_end():
    seen = []

    def reward(asked, completions):
        seen.extend(zip(asked, completions, strict=True))
        return np.arange(len(completions), dtype=float)

    forward = Forward(small_ppo.model().eval())
    practice = small_ppo.practice(forward, reward=reward)
    rollouts = collect(practice, NUMBERS, STEPS, seed=3, max_tokens=30, stop_if_asked=lambda: None)
    assert rollouts.scores.tolist() == [0, 1, 2, 3, 4, 5]
    assert [asked.values["number"] for asked, _ in seen] == NUMBERS.tolist()
    for i, (_, completion) in enumerate(seen):
        assert completion == small_ppo.text(rollouts.completions[i][rollouts.completion_mask[i]].tolist())
        assert str(small_ppo.EOS) not in completion.split()


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_an_error(score):
    forward = Forward(small_ppo.model().eval())
    practice = small_ppo.practice(forward, reward=lambda asked, completions: np.full(len(completions), score))
    with pytest.raises(ModelError, match=r"score of a completion is not a number \((nan|inf)\)") as caught:
        collect(practice, NUMBERS, STEPS, seed=3, max_tokens=30, stop_if_asked=lambda: None)
    assert caught.value.field == "reward"


@pytest.mark.parametrize("at", [1, 5, 30, 44])
def test_a_stop_while_writing_is_heard_at_the_next_token(at):
    calls = []

    def stop_if_asked():
        calls.append(1)
        if len(calls) == at:
            raise StoppedError("stop")

    with pytest.raises(StoppedError):
        made(stop_if_asked=stop_if_asked)
    assert len(calls) == at


def test_signs_of_a_collapse():
    ids = torch.tensor([[5, 5, 5, 5], [6, 7, 2, 0], [6, 7, 2, 0]])
    mask = torch.tensor([[True] * 4, [True, True, True, False], [True, True, True, False]])
    nothing = torch.zeros(3, 4)
    rollouts = Rollouts(
        torch.arange(3), torch.ones(3).long(), torch.ones(3).long(), ids, mask, torch.tensor([False, True, True]),
        torch.tensor([1.0, 1.0, 1.0 + 1e-9]).double(), nothing, nothing, nothing,
    )  # fmt: skip
    assert rollouts.share_ended == pytest.approx(2 / 3)
    assert rollouts.distinct == pytest.approx((1 + 3 + 3) / 10)
    assert rollouts.different == pytest.approx(2 / 3)
    assert rollouts.are_scores_flat(1) and rollouts.are_scores_flat(3)


# ---- which prompts, which updates ----


def test_every_prompt_once_each_time_round():
    plan = small_ppo.PPO
    places = np.concatenate([prompt_numbers(plan, 10, 7, i) for i in range(5)])  # 30 places for 10 prompts
    for start in (0, 10, 20):
        assert sorted(places[start : start + 10]) == list(range(10))
    assert places[:10].tolist() != places[10:20].tolist()
    assert np.array_equal(places[12:18], prompt_numbers(plan, 10, 7, 2))
    few = prompt_numbers(plan, 2, 7, 0)  # fewer prompts than places
    assert sorted(few) == [0, 0, 0, 1, 1, 1]


def test_groups_stand_together():
    numbers = prompt_numbers(small_ppo.GRPO, 10, 7, 1)
    assert len(numbers) == 6 and len(set(numbers[:3])) == len(set(numbers[3:])) == 1 and numbers[0] != numbers[3]


def test_every_rollout_once_per_ppo_epoch():
    plan = small_ppo.ppo_but(rollouts_per_iteration=7, minibatches=3, ppo_epochs=2)
    steps = update_steps(plan, 7, 4)
    assert len(steps) == plan.updates_per_iteration == 6
    for start in (0, 3):
        assert sorted(np.concatenate(steps[start : start + 3])) == list(range(7))
    assert not np.array_equal(np.concatenate(steps[:3]), np.concatenate(steps[3:]))
    assert all(np.array_equal(a, b) for a, b in zip(steps, update_steps(plan, 7, 4), strict=True))
    for other in (update_steps(plan, 7, 5), update_steps(plan, 8, 4)):
        assert not np.array_equal(np.concatenate(steps), np.concatenate(other))
