"""The reward model's loss: by hand, by plain transformers, the same however a step is cut and whatever is cached."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.learning.comparing import Compared as Asked
from tests.learning.comparing import dataset, made
from tests.models import configs
from tunewright.data.batching import collate
from tunewright.learning.gradients import Budget, Training, step_gradient
from tunewright.learning.preference import Compared, Preference, centring_losses, preference_losses, text_scores
from tunewright.models.boundary import build
from tunewright.models.forward import Forward
from tunewright.models.inference import predict_logits
from tunewright.planning.counting import count
from tunewright.planning.memory import bytes_per_token
from tunewright.planning.probe import choose_steps, probe
from tunewright.runtime import Runtime

RUNTIME = Runtime("cpu", "fp32", 2)
KINDS = ["bert", "roberta", "llama", "gpt2", "modernbert-mean", "gemma"]
DATA = made()


def tensor(*values):
    return torch.tensor(values, dtype=torch.float32)


# ---- the formula ----


def test_hand_worked_losses():
    d, p = tensor(0.0, 2.0, -1.0, 3.0), tensor(1.0, 1.0, 1.0, 0.5)
    expected = [math.log(2), math.log(1 + math.exp(-2)), math.log(1 + math.exp(1)), math.log(1 + math.exp(-3)) + 1.5]
    torch.testing.assert_close(preference_losses(d, p), torch.tensor(expected))
    # A margin moves the difference that costs as much as guessing.
    torch.testing.assert_close(preference_losses(tensor(1.5), tensor(1.0), tensor(1.5)), torch.tensor([math.log(2)]))
    torch.testing.assert_close(centring_losses(tensor(2.0), tensor(-0.5)), torch.tensor([2.25]))


def test_it_is_cross_entropy_and_far_scores_stay_finite():
    generator = torch.Generator().manual_seed(0)
    d, p, m = (torch.randn(50, generator=generator, dtype=torch.float64).float() for _ in range(3))
    p = p.sigmoid()
    expected = F.binary_cross_entropy_with_logits(d - m, p, reduction="none")
    torch.testing.assert_close(preference_losses(d, p, m), expected)
    far = preference_losses(tensor(1e4, -1e4), tensor(1.0, 1.0))
    assert far.tolist() == [0.0, 1e4]


def test_a_tie_pulls_scores_together():
    d = torch.tensor([2.0], requires_grad=True)
    preference_losses(d, torch.tensor([0.5])).sum().backward()
    assert d.grad is not None and d.grad.item() == pytest.approx(1 / (1 + math.exp(-2)) - 0.5)


def test_each_prompt_weighs_one_however_often_it_is_compared():
    data = dataset([
        Asked([5], [[6], [7], [8]], ((0, 1, 1.0), (0, 2, 1.0), (1, 2, 0.5))),
        Asked([9], [[10], [11]], ((1, 0, 1.0),)),
    ])  # fmt: skip
    compared = Compared.of(data, [0, 1], "cpu")
    assert compared.better.tolist() == [0, 0, 1, 4] and compared.worse.tolist() == [1, 2, 2, 3]
    torch.testing.assert_close(compared.shares, torch.tensor([1 / 3, 1 / 3, 1 / 3, 1.0]))
    scores = torch.tensor([1.0, 0.0, -1.0, 0.5, 2.0])
    s = F.logsigmoid
    first = -(s(torch.tensor(1.0)) + s(torch.tensor(2.0)) + 0.5 * s(torch.tensor(1.0)) + 0.5 * s(torch.tensor(-1.0)))
    expected = first / 3 - s(torch.tensor(1.5))
    torch.testing.assert_close((compared.shares * compared.losses(scores)).sum(), expected)
    centred = compared.losses(scores, centring=0.1) - compared.losses(scores)
    torch.testing.assert_close(centred, 0.1 * torch.tensor([1.0, 0.0, 1.0, 2.5]) ** 2)
    swapped = Compared.of(data, [1, 0], "cpu")  # prompts come in the order of the batch
    assert swapped.better.tolist() == [1, 2, 2, 3]


# ---- against plain transformers ----


def plain_loss(model, data, indices, centring=0.0):
    """Every text by itself through the model's own forward; the mean over prompts."""
    total = torch.zeros(())
    for i in indices:
        parts = np.split(data.tokens(i), np.cumsum(data.text_lengths(i))[:-1])
        ids = [torch.from_numpy(part.astype(np.int64))[None] for part in parts]
        scores = torch.cat([model(input_ids=one, attention_mask=torch.ones_like(one)).logits[:, 0] for one in ids])
        better, worse = torch.from_numpy(data.pairs(i).astype(np.int64)).T
        p, d = torch.from_numpy(data.weights(i).copy()), scores[better] - scores[worse]
        losses = -p * torch.log(torch.sigmoid(d)) - (1 - p) * torch.log(1 - torch.sigmoid(d))
        total = total + (losses + centring * (scores[better] + scores[worse]) ** 2).mean()
    return total / len(indices)


def gradients(model):
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("centring", [0.0, 0.05])
def test_loss_and_gradient_are_plain_autograds_however_a_step_is_cut(kind, centring):
    model, indices = configs.build(kind), np.array([4, 0, 2, 5])
    forward, objective = Forward.checked(model), Preference(DATA, centring)
    expected = plain_loss(model, DATA, indices, centring)
    expected.backward()
    wanted = gradients(model)
    for tokens in (10_000, 60, 1):
        loss, _ = step_gradient(
            forward, objective, Training(DATA, DATA.lengths), indices, Budget(tokens), RUNTIME, 0, print
        )
        assert loss == pytest.approx(expected.item(), abs=2e-5)
        found = gradients(model)
        for name, gradient in wanted.items():
            own = found.get(name, torch.zeros_like(gradient))  # of a key's bias, which nothing depends on
            torch.testing.assert_close(own, gradient, atol=2e-5, rtol=1e-3, msg=f"{kind} {name} {tokens}")


# ---- the boundary cache ----


@pytest.mark.parametrize("kind", ["bert", "llama", "modernbert-mean"])
@pytest.mark.parametrize("k", [1, 3])
def test_cached_layers_give_the_same_loss_and_scores(kind, k, tmp_path):
    forward = Forward(configs.build(kind).eval())
    cache = build(forward, DATA, DATA.lengths, k, tmp_path / "a.npy")
    chosen = np.array([3, 0, 5])
    objective, batch = Preference(DATA), collate(DATA, chosen)
    with torch.no_grad():
        plain, cached = (objective.loss_of(forward, batch, one) for one in (None, cache.boundary(chosen)))
    torch.testing.assert_close(cached, plain, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(text_scores(forward, DATA, cache=cache), text_scores(forward, DATA), atol=1e-5)


def test_scores_are_those_of_each_text_alone_in_its_order():
    forward, texts = Forward(configs.build("bert").eval()), DATA.each_text()
    alone = predict_logits(forward, [texts.tokens(i) for i in range(len(texts))])[:, 0]
    for tokens in (10_000, 50, 1):
        np.testing.assert_allclose(text_scores(forward, DATA, max_tokens=tokens), alone, atol=1e-5)
    calls: list[int] = []
    text_scores(forward, DATA, max_tokens=1, before_batch=lambda: calls.append(1))
    assert len(calls) == len(DATA)
    part = DATA.subset([4, 1])
    starts = np.cumsum(DATA.num_texts) - DATA.num_texts
    wanted = np.concatenate([alone[starts[i] : starts[i] + DATA.num_texts[i]] for i in (4, 1)])
    np.testing.assert_allclose(text_scores(forward, part), wanted, atol=1e-5)


def test_ranks_share_the_work(monkeypatch):
    forward = Forward(configs.build("bert").eval())
    halves = []
    for rank in range(2):
        runtime = replace(RUNTIME, rank=rank, world_size=2)
        monkeypatch.setattr(Runtime, "sum", lambda self, tensor: tensor)
        halves.append(text_scores(forward, DATA, max_tokens=40, runtime=runtime))
    np.testing.assert_allclose(sum(halves), text_scores(forward, DATA), atol=1e-5)


# ---- planning ----


@pytest.mark.parametrize("k", [0, 1, 3])
def test_planning_counts_and_probes_without_a_text_longer_than_the_model_reads(k, tmp_path):
    """A prompt's texts together may be longer than any text that the model can read."""
    generator = np.random.default_rng(0)
    long = [generator.integers(3, 50, 40).tolist() for _ in range(4)]
    data = dataset([Asked([5, 6], long, ((0, 1, 1.0),)), *[Asked([7], long[:2])] * 5])
    model = configs.build("bert")
    for layer in model.bert.encoder.layer[:k]:
        layer.requires_grad_(False)
    forward, objective = Forward(model), Preference(data)
    assert data.lengths.max() > forward.config.max_position_embeddings
    works = count(forward, objective, data, data.lengths, k)
    assert works.training.flops(data.lengths) > works.scoring.flops(data.lengths) > 0
    assert (works.caching.flops(data.lengths) > 0) == (k > 0)
    assert bytes_per_token(forward, objective, data, data.lengths, k) > 0
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps = choose_steps(data.lengths, data.lengths, 2, 0)
    found = probe(forward, objective, data, data, steps, k, 200, RUNTIME)
    assert found.training and found.scoring and bool(found.caching) == (k > 0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
