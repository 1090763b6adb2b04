"""Scores on other data, with a tiny real model: equal to plain transformers and scikit-learn."""

from __future__ import annotations

import json

import pytest

from tunewright.data.labels import LabelSpec
from tunewright.errors import DataError
from tunewright.models.loading import Loaded
from tunewright.serving.predict import Predictor
from tunewright.serving.scoring import score

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "very", "plot", "dull"]


@pytest.fixture
def loaded():
    """A BERT of 16 numbers per token in the place of a saved model."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, num_labels=2, id2label={0: "negative", 1: "positive"}, initializer_range=0.5,
    )  # fmt: skip
    found = Loaded(
        model=BertForSequenceClassification(config).eval(),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
        ),
        labels=LabelSpec("single", ("negative", "positive"), ("negative", "positive")),
        max_length=8,
        truncate="right",
    )
    return Predictor._of(found)


@pytest.fixture
def rows(tmp_path):
    texts = [" ".join(WORDS[4 + (i * j) % 6] for j in range(1, 3 + i % 9)) for i in range(24)]
    made = [{"text": text, "label": ["negative", "positive"][i % 3 == 0]} for i, text in enumerate(texts)]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made) + '{"text": "", "label": "positive"}\n')
    return path, made


def test_scores_equal_transformers_and_scikit_learn(loaded, rows, tmp_path):
    import torch
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    path, made = rows
    count, judgement = score(loaded, path)
    inputs = [
        loaded.tokenizer(row["text"], truncation=True, max_length=8, return_tensors="pt", return_token_type_ids=False)
        for row in made
    ]
    with torch.no_grad():
        shares = torch.cat([loaded.model(**each).logits for each in inputs]).softmax(-1).numpy()
    truth = [int(row["label"] == "positive") for row in made]
    assert count == 24  # the empty text doesn't count
    assert judgement.metrics["accuracy"] == pytest.approx(accuracy_score(truth, shares.argmax(1)))
    assert judgement.metrics["macro_f1"] == pytest.approx(f1_score(truth, shares.argmax(1), average="macro"))
    assert judgement.metrics["loss"] == pytest.approx(log_loss(truth, shares), abs=1e-5)
    low, high = judgement.intervals["accuracy"].low, judgement.intervals["accuracy"].high
    assert low <= judgement.metrics["accuracy"] <= high


def test_a_label_the_model_does_not_know(loaded, tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text('{"text": "good film", "label": "positive"}\n{"text": "bad film", "label": "negativ"}\n')
    with pytest.raises(DataError, match=r'test\.jsonl:2: .*Did you mean "negative"'):
        score(loaded, path)


def test_data_with_nothing_to_read(loaded, tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text('{"text": "", "label": "positive"}\n')
    with pytest.raises(DataError):
        score(loaded, path, text="text", label="label")
