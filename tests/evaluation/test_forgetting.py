"""General text before and after, on real tiny models: who forgot, who didn't move, and which text it was."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tunewright.errors import DataError
from tunewright.evaluation import forgetting as f
from tunewright.models.forward import Forward
from tunewright.models.likelihoods import Likelihoods

TEXTS = [row["text"] for row in tiny.sentences(12)]


def made(kind: str, auto: str = "AutoModelForCausalLM"):
    import transformers as hf

    torch.manual_seed(0)
    return Forward(getattr(hf, auto).from_config(tiny.config(kind)).train()), tiny.tokenizer(kind)


def nudge(forward: Forward, by: float) -> None:
    torch.manual_seed(1)
    for parameter in forward.model.parameters():
        parameter.data += by * torch.randn_like(parameter)


# --- which text -------------------------------------------------------------------------------------------------


def test_the_text_that_comes_with_us():
    found = f.documents()
    assert found == f.documents("general") and 30 <= len(found) <= 60
    assert 2500 < sum(len(text.split()) for text in found) < 4500
    assert all(text.endswith((".", "?")) and not text.startswith("#") and "\n" not in text for text in found)
    assert len({text[:20] for text in found}) == len(found)


def test_own_text_by_paragraph_or_by_column(tmp_path):
    (tmp_path / "own.txt").write_text("One paragraph.\nStill the same.\n\nAnother one.\n\n\nA third.\n")
    assert f.documents(str(tmp_path / "own.txt")) == ["One paragraph.\nStill the same.", "Another one.", "A third."]
    rows = [{"id": i, "text": f"row {i}"} for i in range(1000)] + [{"id": 0, "text": "  "}]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = f.documents(str(tmp_path / "own.jsonl"))
    assert len(found) == f.MOST_DOCUMENTS and (found[0], found[-1]) == ("row 0", "row 999")
    assert len(set(found)) == len(found)


def test_own_text_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt"):
        f.documents(str(tmp_path / "gone.txt"))
    (tmp_path / "blank.jsonl").write_text('{"text": " "}\n{"text": "  "}\n')
    with pytest.raises(DataError):
        f.documents(str(tmp_path / "blank.jsonl"))


# --- models that write ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_perplexity_is_that_of_transformers(kind):
    forward, tokenizer = made(kind)
    found = f.measure(forward, tokenizer, TEXTS)
    expected, counted = [], []
    with torch.no_grad():
        for text in TEXTS:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            loss = forward.model.eval()(input_ids=ids, labels=ids).loss
            counted.append(ids.shape[1] - 1)
            expected.append(loss.item() * counted[-1])
    assert found.kind == "perplexity" and found.tokens.tolist() == counted
    np.testing.assert_allclose(found.values, expected, rtol=1e-4)
    same = f.forgetting(found, f.measure(forward, tokenizer, TEXTS))
    assert (same["verdict"], same["change"]) == ("kept", 0)
    assert same["before"] == pytest.approx(math.exp(sum(expected) / sum(counted)), rel=1e-4)


def test_a_model_that_was_spoilt_forgot():
    """Fitted to the text first: only what was known can be forgotten."""
    forward, tokenizer = made("llama")
    optimizer = torch.optim.Adam(forward.model.parameters(), 3e-3)
    for _ in range(30):
        for text in TEXTS:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            forward.model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    before = f.measure(forward, tokenizer, TEXTS)
    nudge(forward, 0.2)
    found = f.forgetting(before, f.measure(forward, tokenizer, TEXTS))
    assert found["kind"] == "perplexity" and found["verdict"] == "forgot" and found["change"] > 0.05, found
    assert found["interval"][0] > 0 and (found["documents"], found["words"][-6:]) == (12, "forgot")
    assert found["tokens"] == sum(len(tokenizer(text)["input_ids"]) - 1 for text in TEXTS)


def test_long_documents_are_cut_to_what_the_model_reads():
    forward, tokenizer = made("gpt2")
    found = f.measure(forward, tokenizer, ["good " * 500, "bad film"])
    assert found.tokens.tolist() == [63, 1]


def test_masked_words_are_scored_by_whoever_knows_how():
    forward, tokenizer = made("bert", "AutoModelForMaskedLM")

    def masked(given, examples):
        assert given is forward
        # [CLS] and [SEP] are no text.
        assert [int(examples.is_target(i).sum()) for i in range(12)] == [len(ids) - 2 for ids in examples.ids]
        return Likelihoods(np.full(12, 30.0), np.full(12, 10), np.zeros(12, np.int64))

    found = f.measure(forward, tokenizer, TEXTS, masked=masked)
    assert f.forgetting(found, found)["kind"] == "masked perplexity"
    assert f.measure(forward, tokenizer, TEXTS).kind == "drift"  # its head reads what it would predict


# --- models without a head for words ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*tiny.ENCODERS, "llama"])
def test_a_classifier_drifts_as_far_as_its_states_move(kind):
    forward, tokenizer = made(kind, "AutoModelForSequenceClassification")
    forward.model.config.pad_token_id = forward.model.config.pad_token_id or 0
    before = f.measure(forward, tokenizer, TEXTS)
    assert before.kind == "drift" and before.values.dtype == np.float16
    assert before.values.shape == (before.tokens.sum(), 32)
    still = f.forgetting(before, f.measure(forward, tokenizer, TEXTS))
    assert (still["verdict"], still["change"]) == ("did not move", 0)
    nudge(forward, 0.01)
    near = f.forgetting(before, f.measure(forward, tokenizer, TEXTS))
    nudge(forward, 0.5)
    far = f.forgetting(before, f.measure(forward, tokenizer, TEXTS))
    assert 0 < near["change"] < far["change"] and far["verdict"] == "moved far", (near, far)


def test_states_are_those_of_the_text_without_special_tokens():
    forward, tokenizer = made("bert", "AutoModelForSequenceClassification")
    found = f.measure(forward, tokenizer, TEXTS[:3])
    with torch.no_grad():
        parts = [
            forward.model.eval().bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 1:-1]
            for text in TEXTS[:3]
        ]
    expected = torch.nn.functional.normalize(torch.cat(parts), dim=1)
    assert found.tokens.tolist() == [len(part) for part in parts]
    np.testing.assert_allclose(found.values, expected.numpy(), atol=1e-3)


def test_a_long_document_gives_a_sample_of_its_states():
    forward, tokenizer = made("bert", "AutoModelForSequenceClassification")
    assert f.measure(forward, tokenizer, ["good " * 50, "bad"]).tokens.tolist() == [f.STATES_PER_DOCUMENT, 1]


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_encoder_decoder_is_judged_by_its_encoder(kind):
    import transformers as hf

    tokenizer = tiny.tokenizer("bert")
    torch.manual_seed(0)
    shape = {"vocab_size": len(tokenizer), "d_model": 32}
    t5 = hf.T5Config(**shape, d_ff=64, num_layers=2, num_heads=4, d_kv=8)
    sides = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    bart = hf.BartConfig(**shape, **sides, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64)
    forward = Forward(hf.AutoModelForSeq2SeqLM.from_config({"t5": t5, "bart": bart}[kind]))
    before = f.measure(forward, tokenizer, TEXTS)
    assert before.kind == "drift"
    assert f.forgetting(before, f.measure(forward, tokenizer, TEXTS))["verdict"] == "did not move"
    nudge(forward, 0.3)
    assert f.forgetting(before, f.measure(forward, tokenizer, TEXTS))["verdict"] == "moved far"


# --- between the two --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "auto"), [
    ("llama", "AutoModelForCausalLM"), ("bert", "AutoModelForSequenceClassification"),
])  # fmt: skip
def test_a_snapshot_survives_on_disk(kind, auto, tmp_path):
    forward, tokenizer = made(kind, auto)
    found = f.measure(forward, tokenizer, TEXTS)
    save_file(found.tensors(), tmp_path / "general.safetensors")
    stored = f.Snapshot.of_tensors(load_file(tmp_path / "general.safetensors"))
    assert stored.kind == found.kind
    np.testing.assert_array_equal(stored.values, found.values)
    assert f.forgetting(stored, found)["change"] == 0


def test_another_text_than_before_is_an_error():
    forward, tokenizer = made("llama")
    before = f.measure(forward, tokenizer, TEXTS)
    with pytest.raises(DataError, match="isn't the one") as caught:
        f.forgetting(before, f.measure(forward, tokenizer, TEXTS[1:]))
    assert caught.value.field == "evaluation.retain"


def test_no_text_is_an_error():
    forward, tokenizer = made("bert", "AutoModelForSequenceClassification")
    with pytest.raises(DataError, match="no token"):
        found = f.measure(forward, tokenizer, [""])
        f.forgetting(found, found)


def test_a_run_can_be_stopped_while_it_measures():
    def stop():
        raise KeyboardInterrupt

    for kind, auto in (("llama", "AutoModelForCausalLM"), ("bert", "AutoModelForSequenceClassification")):
        forward, tokenizer = made(kind, auto)
        with pytest.raises(KeyboardInterrupt):
            f.measure(forward, tokenizer, TEXTS, before_batch=stop)
        assert forward.model.training
