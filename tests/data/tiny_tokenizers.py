"""Tiny tokenizers of each style that real models have, and a source that is a list. Built in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    BertTokenizer,
    ByT5Tokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
)

from tunewright.data.examples import Row

TEXTS = [
    "The film was good.",
    "Not a fan, don't recommed it at all, it was long and then longer, and it did not end.",
    "  spaces \n and\tlines  ",
    "a",
    "Ünïcödé 🙂 текст 文字",
    "[SEP] </s> <|endoftext|> in the text",
    "good " * 40,
]
WORDS = ("the film was good not a fan do n t recommend it at all long and then longer did end in text " * 3).split()


def bert() -> Any:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz.,'", *dict.fromkeys(WORDS)]
    pieces += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    return BertTokenizer(vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))})


def byte_pairs(*special: str) -> dict[str, Any]:
    """Vocabulary and merges of a small byte-level BPE."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    model = json.loads(trained.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


def roberta() -> Any:
    return RobertaTokenizer(**byte_pairs("<s>", "<pad>", "</s>", "<unk>", "<mask>"))


def roberta_with_prefix_space() -> Any:
    return RobertaTokenizer(**byte_pairs("<s>", "<pad>", "</s>", "<unk>", "<mask>"), add_prefix_space=True)


def gpt2() -> Any:
    return GPT2Tokenizer(**byte_pairs("<|endoftext|>"))


def llama() -> Any:
    letters = sorted(set("".join(TEXTS).replace(" ", "▁")) | set("▁"))
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, "▁g", "oo", "▁goo"]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    return LlamaTokenizer(vocab=vocab, merges=[("▁", "g"), ("o", "o"), ("▁g", "oo")], add_bos_token=True)


def packaged() -> Any:
    """Like MiniLM's file: it cuts at 12 tokens and pads to 12, unless told otherwise."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys(WORDS)]
    inner = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    inner.enable_truncation(12)
    inner.enable_padding(length=12)
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16)


def two_on_each_side() -> Any:
    words = packaged()
    around = [("[CLS]", 2), ("[SEP]", 3)]
    template = processors.TemplateProcessing("[CLS] [SEP] $A [SEP] [CLS]", special_tokens=around)
    words.backend_tokenizer.post_processor = template
    return words


def t5_bytes() -> Any:
    return ByT5Tokenizer()  # pure Python, only a suffix


STYLES: list[Callable[[], Any]] = [
    bert,
    roberta,
    roberta_with_prefix_space,
    gpt2,
    llama,
    packaged,
    two_on_each_side,
    t5_bytes,
]


class ListSource:
    name = "reviews.jsonl"

    def __init__(self, texts: Sequence[Any], labels: Sequence[Any] | None = None):
        self.texts, self.labels = texts, labels or ["good"] * len(texts)

    def rows(self) -> Iterator[Row]:
        for number, (text, label) in enumerate(zip(self.texts, self.labels, strict=True)):
            yield Row({"text": text, "label": label}, f"{self.name}:{number + 1}", number)

    def fingerprint(self) -> str:
        return str(hash((tuple(self.texts), str(self.labels))))
