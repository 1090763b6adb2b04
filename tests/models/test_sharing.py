"""A scorer on the policy's body scores as it did on its own, and the policy doesn't notice."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models.made_writers import make_writer
from tests.models.starts import PROBE, Started, hidden, nudge, save_start, start_policy
from tunewright.data.labels import LabelSpec
from tunewright.models.finding import resolve_base
from tunewright.models.forward import Forward
from tunewright.models.generation import generate
from tunewright.models.heads import head_modules
from tunewright.models.inference import predict_logits
from tunewright.models.loading import load_base
from tunewright.models.sampling import Sampling
from tunewright.models.saving import save_model, verify_saved
from tunewright.models.sharing import share_body
from tunewright.models.starting import reference_of
from tunewright.models.trainable import TrainableSpec, choose

KINDS = ("llama", "gpt2", "gemma3")
NUMBER = LabelSpec("number", ("score",), ("score",))


def scorer_on(base, method="lora", **spec):
    """A reward model on this base, moved as training would, in evaluation."""
    loaded = load_base(base, NUMBER, seed=5, dropout=0.0)
    head = head_modules(loaded.model, loaded.new_parameters)
    model = choose(loaded.model, TrainableSpec(method, **({"rank": 3, "alpha": 5.0} | spec)), head).model
    nudge(model)
    return model.eval()


@pytest.fixture
def policy(request, tmp_path) -> Started:
    made = start_policy(getattr(request, "param", "llama"), tmp_path, last_layers=1)
    nudge(made.model)
    return made


@pytest.mark.parametrize("spec", [{}, {"last_layers": 1, "rank": 1}], ids=["all", "last"])
@pytest.mark.parametrize("policy", KINDS, indirect=True)
def test_scores_are_those_of_its_own_body(policy, spec):
    scorer = scorer_on(policy.start.base, **spec)
    wanted = predict_logits(Forward.checked(scorer), PROBE)
    forward, before = policy.forward, hidden(policy.forward)
    shared = share_body(forward, scorer)
    assert shared is not None
    for _ in range(2):
        with shared.answering():
            np.testing.assert_array_equal(predict_logits(shared.forward, PROBE), wanted)
        assert torch.equal(hidden(forward), before)
    assert len(set(wanted[:, 0])) == len(PROBE)


def test_two_scorers(policy):
    scorers = [scorer_on(policy.start.base, rank=rank) for rank in (2, 4)]
    nudge(scorers[1], 0.3)
    wanted = [predict_logits(Forward.checked(scorer), PROBE) for scorer in scorers]
    forward = policy.forward
    shared = [share_body(forward, scorer) for scorer in scorers]
    for one, logits in zip(shared, wanted, strict=True):
        assert one is not None
        with one.answering():
            np.testing.assert_array_equal(predict_logits(one.forward, PROBE), logits)
    assert not np.allclose(wanted[0], wanted[1])


def test_the_policy_doesn_t_notice(policy, tmp_path):
    """What it says, what learns, its reference, its words and its files; no parameter twice."""
    forward = policy.forward
    before = hidden(forward)
    written = generate(policy.model, PROBE, Sampling(max_new_tokens=3))
    with reference_of(policy.model):
        start = hidden(forward)
    scorer = scorer_on(policy.start.base)
    count = sum(p.numel() for p in policy.model.parameters())
    shared = share_body(forward, scorer)
    assert shared is not None
    policy.model.train()
    with shared.answering():
        predict_logits(shared.forward, PROBE)
    assert policy.model.training and forward.base.training
    policy.model.eval()
    with policy.model.disable_adapter():
        pass
    assert torch.equal(hidden(forward), before)
    assert generate(policy.model, PROBE, Sampling(max_new_tokens=3)) == written
    with reference_of(policy.model):
        assert torch.equal(hidden(forward), start)
    assert {n for n, p in policy.model.named_parameters() if p.requires_grad} == set(policy.report.names)
    added = sum(p.numel() for n, p in policy.model.named_parameters() if ".scorer_0." in n)
    assert sum(p.numel() for p in policy.model.parameters()) == count + added
    base = policy.start.loaded.model.get_input_embeddings().weight.numel()
    own = {id(p) for p in scorer.parameters()} - {id(p) for p in policy.model.parameters()}
    assert sum(p.numel() for p in scorer.parameters() if id(p) in own) < base
    save_model(policy.model, policy.loaded.tokenizer, tmp_path / "model", base=policy.source, labels=None,
               max_length=32, truncate="left")  # fmt: skip
    verify_saved(forward, tmp_path / "model", PROBE)
    assert not [p for p in (tmp_path / "model").iterdir() if p.is_dir()]


def test_a_policy_without_a_start(tmp_path):
    made = make_writer("llama", tmp_path)
    scorer = scorer_on(made.base)
    wanted = predict_logits(Forward.checked(scorer), PROBE)
    forward = Forward.checked(made.model)
    shared = share_body(forward, scorer)
    assert shared is not None
    with shared.answering():
        np.testing.assert_array_equal(predict_logits(shared.forward, PROBE), wanted)
    source = save_start(made, tmp_path / "model")
    verify_saved(forward, tmp_path / "model", PROBE)
    assert not [p for p in (tmp_path / "model").iterdir() if p.is_dir()] and source.kind == "run"


def test_in_bf16(policy):
    scorer = scorer_on(policy.start.base)
    forward = policy.forward
    forward.compute_in("bf16")
    own = scorer_on(policy.start.base)
    alone = Forward.checked(own)
    alone.compute_in("bf16")
    shared = share_body(forward, scorer)
    assert shared is not None and shared.forward.precision == "bf16"
    with shared.answering():
        np.testing.assert_array_equal(predict_logits(shared.forward, PROBE), predict_logits(alone, PROBE))


def test_what_goes_wrong_inside_is_put_right(policy):
    shared = share_body(policy.forward, scorer_on(policy.start.base))
    before = hidden(policy.forward)
    assert shared is not None
    with pytest.raises(KeyError), shared.answering():
        raise KeyError
    assert torch.equal(hidden(policy.forward), before)


def test_what_can_t_share_is_left_as_it_is(policy, tmp_path):
    forward, base = policy.forward, policy.start.base
    other = make_writer("gemma3", tmp_path / "other").base
    changed = scorer_on(base)
    changed.get_base_model().get_input_embeddings().weight.data[3, 0] += 1e-3
    changed.peft_config["default"].base_model_name_or_path = "elsewhere"
    merged = scorer_on(base)
    merged.get_base_model().model.layers[1].mlp.up_proj.base_layer.weight.data += 1e-3
    whole = Forward.checked(make_writer("llama", tmp_path / "whole", "full").model)
    for given, scorer in (
        (forward, scorer_on(base, "full")),
        (forward, scorer_on(base, "head")),
        (forward, scorer_on(other)),
        (forward, changed),
        (forward, merged),
        (whole, scorer_on(resolve_base(base.path))),
    ):
        wanted = predict_logits(Forward(scorer), PROBE)
        assert share_body(given, scorer) is None
        np.testing.assert_array_equal(predict_logits(Forward(scorer), PROBE), wanted)
