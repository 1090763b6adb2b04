"""Segments to tokens: same ids when training and answering, one BOS, an EOS that is learned, nothing cut unseen."""

from __future__ import annotations

import json
import random

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.data import tiny_tokenizers as tiny
from tunewright.data.examples import Row
from tunewright.data.segments import Segment, SegmentEncoder
from tunewright.data.templates import BUILT_IN, Template
from tunewright.errors import DataError, RecipeError


def gemma():
    """Spaces become ▁ and none is put before a text; <bos> first; line breaks and turns are tokens."""
    letters = sorted(set("".join(tiny.TEXTS).replace(" ", "▁")) | set("▁\nABCDEFGHIJKLMNOPQRSTUVWXYZ:#?.[]|<>/_"))
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", *letters, "▁g", "oo", "▁goo", "\n\n"]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    inner = Tokenizer(models.BPE(vocab, [("▁", "g"), ("o", "o"), ("▁g", "oo"), ("\n", "\n")], unk_token="<unk>"))
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    inner.post_processor = tiny.processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 2)])
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    found = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    turns = [AddedToken(f"<{kind}_of_turn>", special=True, normalized=False) for kind in ("start", "end")]
    found.add_tokens(turns, special_tokens=True)
    return found


STYLES = [*tiny.STYLES, gemma]
WITH_EOS = [tiny.roberta, tiny.gpt2, tiny.llama, gemma, tiny.t5_bytes]


def pair(prompt, answer):
    return Segment(prompt, False), Segment(answer, True)


def learned(tokenizer, tokens):
    return tokenizer.decode([i for i, counts in zip(tokens.ids, tokens.is_target, strict=True) if counts])


@pytest.fixture(params=STYLES, ids=lambda style: style.__name__)
def tokenizer(request):
    return request.param()


# ---- the same ids in training and answering ----

COLUMNS = ["context", "question", "answer", "prompt", "completion", "instruction", "input", "output", "document",
           "summary"]  # fmt: skip
TEMPLATES = [*BUILT_IN, "Q: {question}\nA: {answer}", "{question}{answer}", "{context}\t{question} {answer}",
             "<s>[INST] {question} [/INST] {answer}", "<bos><bos>{question}: {answer}", " {answer}"]  # fmt: skip


@pytest.mark.parametrize("text", TEMPLATES)
def test_the_prompt_has_the_same_ids_when_answering(tokenizer, text):
    template = Template.parse(text, COLUMNS)
    for max_length in (None, 24):
        encoder = SegmentEncoder.of(tokenizer, max_length)
        for words in tiny.TEXTS:
            row = Row({**dict.fromkeys(COLUMNS, words), template.completion: "good film"}, "f:1", 0)
            tokens = encoder.encode(template.segments(row), row.where)
            target = sum(tokens.is_target)
            prompt = encoder.prompt_ids(template.prompt_segments(row), room=target)
            assert tokens.ids[: len(prompt)] == prompt == encoder.prompt_ids(template.segments(row), room=target)
            assert tokens.is_target == [False] * len(prompt) + [True] * target


@pytest.mark.parametrize("words", tiny.TEXTS)
def test_the_prompts_ids_are_the_tokenizers_own(tokenizer, words):
    """Somebody who uses the model with plain transformers gives it what it was trained on."""
    encoder = SegmentEncoder.of(tokenizer)
    parts = (Segment("Q: ", False), Segment(words, False), Segment("\n\nA:", False))
    if not tokenizer.is_fast:
        parts = (Segment("Q: " + words + "\n\nA:", False),)
    whole = tokenizer("Q: " + words + "\n\nA:", truncation=False, padding=False)["input_ids"]
    suffix = len(whole) - len(encoder.prompt_ids(parts))
    assert encoder.prompt_ids(parts) == whole[: len(whole) - suffix]
    assert suffix <= 2  # [SEP] or </s>


@pytest.mark.parametrize("style", [tiny.gpt2, tiny.roberta_with_prefix_space, tiny.llama, gemma])
def test_spaces_before_the_answer_belong_to_it(style):
    tokenizer = style()
    encoder = SegmentEncoder.of(tokenizer)
    spaced, plain = encoder.encode(pair("the film: ", "good")), encoder.encode(pair("the film:", " good"))
    assert spaced == plain
    assert encoder.prompt_ids(pair("the film:  ", "x")) == encoder.prompt_ids(pair("the film:", "x"))
    # What the tokenizer makes of the whole text at once, as the base model knows it.
    assert spaced.ids == [*tokenizer("the film: good")["input_ids"][: len(spaced.ids) - 1], tokenizer.eos_token_id]


def test_no_space_is_put_before_a_continuation():
    """SentencePiece's habit: "▁" before every text, so that [INST]a[/INST]b would become … ▁b."""
    tokenizer = tiny.llama()
    encoder = SegmentEncoder.of(tokenizer)
    tokens = encoder.encode(pair("a[INST]", "good"))
    assert learned(tokenizer, tokens) == "good</s>"
    assert tokens.ids[:-1] == tokenizer("a[INST]good")["input_ids"]


# ---- BOS and EOS ----


@pytest.mark.parametrize("style", [tiny.llama, gemma, tiny.roberta, tiny.bert])
@pytest.mark.parametrize("given", [0, 1, 2, 3])
def test_one_bos_whatever_the_template_holds(style, given):
    tokenizer = style()
    bos = tokenizer.bos_token or tokenizer.cls_token
    encoder = SegmentEncoder.of(tokenizer)
    for segments in (pair(bos * given + "good", "film"), (Segment(bos * given, False), *pair("good", "film"))):
        tokens = encoder.encode(segments)
        # The text behind a written BOS has no space before it in SentencePiece: as transformers has it too.
        assert tokens == encoder.encode(pair(bos + "good" if given else "good", "film"))
        assert tokens.ids.count(tokenizer.convert_tokens_to_ids(bos)) == 1


def test_a_tokenizer_without_bos_gets_none_but_the_templates():
    encoder = SegmentEncoder.of(tiny.gpt2())
    assert encoder.encode(pair("good", "film")).ids[0] != encoder.eos
    twice = encoder.encode(pair("<|endoftext|><|endoftext|>good", "film"))
    assert twice.ids[:2] == [encoder.eos, encoder.encode(pair("good", "film")).ids[0]] and not twice.is_target[0]


@pytest.mark.parametrize("style", WITH_EOS)
def test_the_end_is_learned_once(style):
    tokenizer = style()
    encoder = SegmentEncoder.of(tokenizer)
    tokens = encoder.encode(pair("good", "film"))
    assert tokens.ids[-1] == tokenizer.eos_token_id and tokens.is_target[-1]
    by_hand = encoder.encode(pair("good", "film" + tokenizer.eos_token))
    assert by_hand == tokens


def test_a_pad_that_is_the_eos_hides_nothing():
    tokenizer = tiny.gpt2()
    tokenizer.pad_token = tokenizer.eos_token
    tokens = SegmentEncoder.of(tokenizer).encode(pair("good", "film"))
    assert tokens.ids[-1] == tokenizer.pad_token_id and tokens.is_target[-1]


def test_an_end_of_turn_needs_no_eos_and_an_unknown_character_does():
    tokenizer = gemma()
    encoder = SegmentEncoder.of(tokenizer)
    assert encoder.encode(pair("good", "film<end_of_turn>")).ids[-1] == tokenizer.convert_tokens_to_ids("<end_of_turn>")
    unknown = encoder.encode(pair("good", "☃"))
    assert unknown.ids[-2:] == [tokenizer.unk_token_id, tokenizer.eos_token_id]


def test_a_tokenizer_without_eos():
    encoder = SegmentEncoder.of(tiny.bert())
    assert encoder.eos is None
    tokens = encoder.encode(pair("the film", "good"))
    assert sum(tokens.is_target) == 1 and tokens.is_target[-1]


# ---- control tokens in data ----


@pytest.mark.parametrize("style", [tiny.llama, tiny.gpt2, gemma, tiny.roberta, tiny.t5_bytes])
def test_control_tokens_in_a_value_are_text(style):
    tokenizer = style()
    encoder = SegmentEncoder.of(tokenizer)
    value = f"good {tokenizer.eos_token} film"
    segments = (Segment("Q: ", False), Segment(value, False, is_value=True), Segment("\nA: ", False),
                Segment(value, True, is_value=True))  # fmt: skip
    tokens = encoder.encode(segments)
    assert tokens.ids.count(tokenizer.eos_token_id) == 1 and tokens.ids[-1] == tokenizer.eos_token_id
    assert "film" in learned(tokenizer, tokens).replace(" ", "")
    as_control = encoder.encode(tuple(Segment(s.text, s.is_target) for s in segments))
    assert as_control.ids.count(tokenizer.eos_token_id) == 3


def test_a_value_cant_complete_a_control_token():
    tokenizer = tiny.llama()
    encoder = SegmentEncoder.of(tokenizer)
    tokens = encoder.encode((Segment("a<", False), Segment("/s>b", False, is_value=True), Segment("c", True)))
    assert tokens.ids.count(tokenizer.eos_token_id) == 1


# ---- what is learned ----

TALK = (Segment("a", False), Segment("good", True), Segment("b", False), Segment("film", True))


@pytest.mark.parametrize(
    ("learn", "text"),
    [("completion", "film</s>"), ("assistant", "goodfilm</s>"), ("all", "agoodbfilm</s>")],
)
def test_learn(learn, text):
    tokenizer = tiny.roberta()
    tokens = SegmentEncoder.of(tokenizer, learn=learn).encode(TALK)
    assert learned(tokenizer, tokens) == text and not tokens.is_target[0]
    assert tokens.ids == SegmentEncoder.of(tokenizer).encode(TALK).ids


def test_what_follows_the_last_target_is_read_only_where_all_is_learned():
    tokenizer = tiny.roberta()
    trailing = (*TALK, Segment(" it did not end", False))
    assert SegmentEncoder.of(tokenizer).encode(trailing) == SegmentEncoder.of(tokenizer).encode(TALK)
    everything = SegmentEncoder.of(tokenizer, learn="all").encode(trailing)
    assert learned(tokenizer, everything).endswith("it did not end</s>")


@pytest.mark.parametrize("segments", [(), (Segment("good", False),), pair("good", ""), pair("good ", "")])
def test_a_row_without_a_target_is_refused(segments):
    with pytest.raises(DataError, match="nothing to learn") as caught:
        SegmentEncoder.of(tiny.gpt2(), learn="all").encode(segments, "faq.jsonl:9")
    assert caught.value.where == "faq.jsonl:9"


def test_a_target_that_gives_no_token_is_refused():
    tokenizer = tiny.bert()
    with pytest.raises(DataError, match="nothing to learn"):
        SegmentEncoder.of(tokenizer).encode(pair("good", "\n"), "faq.jsonl:9")


# ---- cutting ----


@pytest.mark.parametrize(("side", "kept"), [("left", "uvwxyz"), ("right", "abcdef")])
def test_the_longest_context_is_cut_on_its_side(side, kept):
    tokenizer = tiny.t5_bytes()
    segments = (Segment("Read: ", False), Segment("abcdefghijklmnopqrstuvwxyz", False), Segment(" Answer:", False),
                Segment("yes", True))  # fmt: skip
    encoder = SegmentEncoder.of(tokenizer, 24, side)
    tokens = encoder.encode(segments)
    assert tokenizer.decode(tokens.ids) == f"Read: {kept} Answer:yes</s>"
    assert (len(tokens.ids), tokens.context_cut, tokens.target_cut) == (24, 20, 0)
    assert learned(tokenizer, tokens) == "yes</s>"


@pytest.mark.parametrize("style", [tiny.gpt2, tiny.llama, tiny.roberta_with_prefix_space, gemma])
def test_cutting_takes_tokens_of_one_segment_only(style):
    """The rest keeps the ids that it has in the whole text."""
    tokenizer = style()
    question, document = "Q: did it end\n", "it was long and then longer " * 9
    segments = (Segment(question, False), Segment(document, False), Segment("\nA:", False), Segment(" good", True))
    whole = SegmentEncoder.of(tokenizer).encode(segments)
    lead = len(SegmentEncoder.of(tokenizer).prompt_ids((Segment(question, False),)))
    for size in range(lead + 14, len(whole.ids)):
        tokens = SegmentEncoder.of(tokenizer, size, "left").encode(segments)
        assert len(tokens.ids) == size and tokens.context_cut == len(whole.ids) - size and not tokens.target_cut
        assert tokens.ids[: lead - 1] == whole.ids[: lead - 1]
        behind = size - lead
        assert tokens.ids[-behind:] == whole.ids[-behind:] and sum(tokens.is_target) == sum(whole.is_target)


def test_then_the_next_longest():
    tokenizer = tiny.t5_bytes()
    segments = (Segment("abc", False), Segment("defghi", False), Segment("jk", False), Segment("yes", True))
    tokens = SegmentEncoder.of(tokenizer, 7, "right").encode(segments)
    assert tokenizer.decode(tokens.ids) == "ajkyes</s>" and tokens.context_cut == 8


@pytest.mark.parametrize(
    ("size", "text", "target_cut"),
    [(11, "0123456789</s>", 0), (10, "0123456789", 1), (9, "012345678", 2), (2, "01", 9)],
)
def test_a_target_that_is_too_long_alone_loses_its_end_and_learns_none(size, text, target_cut):
    tokenizer = tiny.t5_bytes()
    tokens = SegmentEncoder.of(tokenizer, size, "left").encode(pair("context", "0123456789"))
    assert tokenizer.decode(tokens.ids) == text and all(tokens.is_target)
    assert (tokens.context_cut, tokens.target_cut) == (7, target_cut)


def test_of_a_long_conversation_the_last_turns_go():
    tokenizer = tiny.t5_bytes()
    turns = tuple(Segment(text, is_target) for text, is_target in [("ask1", False), ("one", True)] * 3)
    encoder = SegmentEncoder.of(tokenizer, 16, learn="assistant")
    tokens = encoder.encode(turns)
    assert tokenizer.decode(tokens.ids) == "ask1oneask1one</s>"
    assert (tokens.context_cut, tokens.target_cut) == (4, 3)


def test_in_a_conversation_a_long_document_is_cut_first():
    tokenizer = tiny.t5_bytes()
    turns = (Segment("x" * 40, False), Segment("one", True), Segment("b", False), Segment("two", True))
    tokens = SegmentEncoder.of(tokenizer, 18, learn="assistant").encode(turns)
    assert tokenizer.decode(tokens.ids) == "x" * 10 + "onebtwo</s>" and (tokens.context_cut, tokens.target_cut) == (
        30,
        0,
    )


def test_a_prompt_leaves_room():
    encoder = SegmentEncoder.of(tiny.t5_bytes(), 10)
    assert len(encoder.prompt_ids((Segment("0123456789", False),), room=4)) == 6


@pytest.mark.parametrize("style", STYLES)
def test_any_length_fits(style):
    tokenizer = style()
    generator = random.Random(0)
    for _ in range(60):
        texts = generator.choices(tiny.TEXTS, k=generator.randint(1, 5))
        segments = tuple(Segment(t, generator.random() < 0.4, generator.random() < 0.5) for t in texts)
        size, learn = generator.randint(5, 40), generator.choice(["completion", "assistant", "all"])
        encoder = SegmentEncoder.of(tokenizer, size, generator.choice(["left", "right"]), learn)
        whole = SegmentEncoder.of(tokenizer, None, "left", learn)
        try:
            tokens = encoder.encode(segments)
        except DataError:
            assert not any(s.is_target and s.text.strip() for s in segments)
            continue
        uncut = whole.encode(segments)
        assert len(tokens.ids) == len(tokens.is_target) <= size and any(tokens.is_target)
        assert len(uncut.ids) <= len(tokens.ids) + tokens.context_cut + tokens.target_cut + 1
        assert (tokens.context_cut + tokens.target_cut > 0) == (len(uncut.ids) > size)


@pytest.mark.parametrize("style", STYLES)
def test_many_rows_at_once_are_the_same_as_one_by_one(style):
    encoder = SegmentEncoder.of(style(), 30)
    rows = [(Segment("Q: ", False), Segment(t, False, is_value=True), Segment("good" + t, True, is_value=True))
            for t in tiny.TEXTS]  # fmt: skip
    assert encoder.encode_all(rows, [""] * len(rows)) == [encoder.encode(row) for row in rows]


def test_a_max_length_without_room_is_refused():
    with pytest.raises(RecipeError, match="expected at least 3") as caught:
        SegmentEncoder.of(tiny.llama(), 2)
    assert caught.value.field == "data.max_length"


def test_the_fingerprint_knows_what_decides():
    def print_of(tokenizer, *settings):
        return json.dumps(SegmentEncoder.of(tokenizer, *settings).fingerprint(), sort_keys=True)

    variants = [print_of(tiny.gpt2(), *settings) for settings in
                [(), (9,), (9, "right"), (None, "left", "all"), (None, "left", "assistant")]]  # fmt: skip
    assert len({*variants, print_of(tiny.llama())}) == 6
    assert print_of(tiny.gpt2()) == variants[0]


def test_settings_of_the_tokenizers_own_file_change_nothing():
    """MiniLM's cuts at so many tokens and pads to as many."""
    tokens = SegmentEncoder.of(tiny.packaged()).encode(pair("the film was good " * 9, "good"))
    assert len(tokens.ids) == 1 + 9 * 4 + 1 and 0 not in tokens.ids
