"""Every saving of the forward equals the plain one: logits and gradients, for each architecture."""

from __future__ import annotations

import peft
import pytest
import torch

from tests.models import configs
from tunewright.data.batching import Texts, lay_end_to_end
from tunewright.models.forward import Boundary, Forward

LENGTHS = (5, 23, 23, 11)


def texts() -> Texts:
    generator = torch.Generator().manual_seed(1)
    return lay_end_to_end([torch.randint(3, 50, (n,), generator=generator).tolist() for n in LENGTHS])


def gradients(model, logits) -> dict[str, torch.Tensor]:
    """Zero where there is none: a key's bias moves no softmax, so the one-token layer never touches it."""
    model.zero_grad()
    (logits**2).sum().backward()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in trainable.items()}


@pytest.mark.parametrize("kind", configs.DESCRIBED)
def test_packed_equals_padded_in_logits_and_gradients(kind):
    model = configs.build(kind)
    forward = Forward.checked(model)
    assert forward.packed and forward.one_token and not forward.notes
    plain, packed = forward._padded(texts()), forward.logits(texts())
    torch.testing.assert_close(packed, plain, atol=1e-5, rtol=1e-5)
    expected, found = gradients(model, plain), gradients(model, packed)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("kind", configs.DESCRIBED)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_boundary_equals_whole_forward_in_logits_and_gradients(kind, k):
    model = configs.build(kind)
    forward = Forward(model)
    with torch.no_grad():
        states = forward.states(texts(), k)
    per_text = k == 3 and not forward.pools_late
    assert states.shape == (len(LENGTHS) if per_text else sum(LENGTHS), 32)
    plain, cached = forward._padded(texts()), forward.logits(texts(), Boundary(k, states))
    torch.testing.assert_close(cached, plain, atol=1e-5, rtol=1e-5)
    expected, found = gradients(model, plain), gradients(model, cached)
    own = [name for name, gradient in found.items() if gradient.abs().sum() > 0]
    assert any("classifier" in name or "score" in name or "out_proj" in name for name in own)
    assert not any("embed" in name or ".0." in name for name in own)  # what lies below is not touched
    for name in own:
        torch.testing.assert_close(found[name], expected[name], atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "llama"])
def test_adapters_run_through_every_saving(kind):
    torch.manual_seed(0)
    targets = {"bert": ["query", "key", "value"], "distilbert": ["q_lin", "v_lin"], "llama": ["q_proj", "v_proj"]}
    model = peft.get_peft_model(
        configs.build(kind), peft.LoraConfig(task_type="SEQ_CLS", r=2, lora_alpha=8, target_modules=targets[kind])
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.5)
    forward = Forward(model.train())
    plain, packed = forward._padded(texts()), forward.logits(texts())
    torch.testing.assert_close(packed, plain, atol=1e-5, rtol=1e-5)
    expected, found = gradients(model, plain), gradients(model, packed)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4, rtol=1e-3, msg=name)
    with model.disable_adapter():
        base = forward.logits(texts())
    assert (base - packed).abs().max() > 1e-3


def test_adapter_dropout_in_training_takes_the_long_way():
    model = peft.get_peft_model(
        configs.build("bert"),
        peft.LoraConfig(task_type="SEQ_CLS", r=2, lora_alpha=64, lora_dropout=0.9, target_modules=["key", "value"]),
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 1)
    forward = Forward(model.train())
    assert (forward.logits(texts()) - forward.logits(texts())).abs().max() > 1e-3  # dropout is drawn
    model.eval()
    torch.testing.assert_close(forward.logits(texts()), forward._padded(texts()), atol=1e-5, rtol=1e-5)


def test_attention_dropout_of_a_full_fine_tune_is_drawn_in_the_one_token_layer():
    model = configs.build("bert")
    for layer in model.bert.encoder.layer:
        layer.attention.self.dropout.p = 0.5
    forward = Forward(model)
    assert (forward.logits(texts()) - forward.logits(texts())).abs().max() > 1e-4


@pytest.mark.parametrize("kind", configs.PLAIN)
def test_undescribed_architecture_runs_padded_and_says_so(kind):
    forward = Forward.checked(configs.build(kind))
    assert not forward.packed
    assert "aren't described" in forward.notes[0]
    alone = forward.logits(lay_end_to_end([[7, 8, 9]]))
    together = forward.logits(lay_end_to_end([[7, 8, 9], list(range(3, 20))]))
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=1e-4)


def test_a_saving_that_does_not_hold_is_switched_off(monkeypatch):
    from tunewright.models import architectures

    wrong = architectures.Architecture("encoder.layer", "last")  # BERT pools its first token
    monkeypatch.setitem(architectures.ARCHITECTURES, "bert", wrong)
    forward = Forward.checked(configs.build("bert"))
    assert not forward.packed and "differs from the plain one" in forward.notes[0]
    torch.testing.assert_close(forward.logits(texts()), forward._padded(texts()))


def test_the_model_is_left_as_it_was():
    model = configs.build("bert")
    before, layers = set(model.state_dict()), model.bert.encoder.layer
    Forward.checked(model).logits(texts())
    assert model.bert.encoder.layer is layers
    assert set(model.state_dict()) == before
    assert model.config._attn_implementation == "sdpa"
