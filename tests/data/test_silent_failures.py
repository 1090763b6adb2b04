"""Failures that were famous because nothing was said: each with its guard, from the data to the ids that are learnt.

What happened elsewhere stands above each test. A guard that is taken away makes its test fail.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.test_examining import write
from tests.data.test_written_examining import look, tokens
from tests.data.tiny_tokenizers import STYLES, bert, gpt2, llama, roberta
from tunewright.data.lenient import open_leniently
from tunewright.data.sources import open_data
from tunewright.data.written import recognise
from tunewright.data.written_tokens import RowEncoder, WrittenDataset, tokenize_written
from tunewright.errors import DataError, RecipeError

TEMPLATE = "Please answer the following question.\n\nQ: {question}\n\nA: {answer}"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITH_BOS = "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{{ eos_token }}{% endfor %}"
WITH_BOS += "{% if add_generation_prompt %}[assistant]{% endif %}"


def chatty(style=gpt2, template: str | None = CHATML) -> Any:
    """A tokenizer with a chat template, and with the ends of turns as control tokens."""
    words = style()
    words.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    words.chat_template = template
    return words


def encoder_of(path: Path, tokenizer: Any, max_length: int | None = None, **asked: Any) -> RowEncoder:
    return RowEncoder.of(recognise(open_data(path).train, **asked), tokenizer, max_length)


def learnt(path: Path, tokenizer: Any, max_length: int | None = None, **asked: Any) -> WrittenDataset:
    """The rows as a run stores them."""
    encoder = encoder_of(path, tokenizer, max_length, **asked)
    return tokenize_written(open_data(path).train, encoder, path.parent / "cache")


def text(tokenizer: Any, ids: Any) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)


def talk(*said: str, system: str | None = None) -> list[dict[str, Any]]:
    first = [{"role": "system", "content": system}] if system else []
    return first + [{"role": ("user", "assistant")[i % 2], "content": words} for i, words in enumerate(said)]


def one(tmp_path: Path, row: dict[str, Any]) -> Path:
    return write(tmp_path / "a.jsonl", [row])


# ---- what is learnt ----


# pad = eos, and every pad hidden from the loss by its id: the end was never learnt, and the model never stopped.
@pytest.mark.parametrize("style", [gpt2, llama, roberta])
def test_an_end_that_is_also_the_padding_is_learnt(style, tmp_path):
    words = style()
    words.pad_token = words.eos_token
    dataset = learnt(one(tmp_path, {"question": "the film", "answer": "was good"}), words, template=TEMPLATE)
    assert dataset.tokens(0)[-1] == words.eos_token_id == words.pad_token_id
    assert dataset.is_target(0)[-1]


# A conversation whose turns end in another token than EOS: what ends an answer must be learnt with it.
def test_the_end_of_every_turn_is_learnt(tmp_path):
    words = chatty()
    dataset = learnt(one(tmp_path, {"messages": talk("hi", "the film", "and", "was good")}), words)
    ids, mask = dataset.tokens(0), dataset.is_target(0)
    end = words.convert_tokens_to_ids("<|im_end|>")
    assert [bool(mask[i]) for i in np.flatnonzero(ids == end)] == [False, True, False, True]


# The answer was searched for by its heading, the heading was not found, and the row taught nothing, with a warning.
@pytest.mark.parametrize(
    "row",
    [{"question": "q", "answer": ""}, {"question": "q", "answer": " \n"}, {"question": "q", "answer": None}],
)
def test_a_row_without_anything_to_learn_is_refused_with_its_number(row, tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "q", "answer": "a"}, row])
    with pytest.raises(DataError, match=r"^a\.jsonl:2: "):
        learnt(path, gpt2(), template=TEMPLATE)


def test_an_answer_that_this_tokenizer_drops_is_refused_as_well(tmp_path):
    rows = [{"question": "q", "answer": "a"}, {"question": "q", "answer": "\x7f\x01"}]
    with pytest.raises(DataError, match=r"^a\.jsonl:2: nothing to learn"):
        learnt(write(tmp_path / "a.jsonl", rows), bert(), template=TEMPLATE)


# A mask of zeros and a loss that looked as always: the number of learnt tokens was never looked at.
@pytest.mark.parametrize("style", STYLES)
def test_no_row_is_stored_that_teaches_nothing(style, tmp_path):
    rows = [{"question": "the film was", "answer": text} for text in ("good", "a", "7", " not")]
    dataset = learnt(write(tmp_path / "a.jsonl", rows), style(), 24, template="{question} {answer}")
    assert min(int(dataset.is_target(i)[1:].sum()) for i in range(len(dataset))) >= 1
    assert dataset.num_targets == sum(int(dataset.is_target(i).sum()) for i in range(len(dataset)))


# Questions were learnt along with the answers, because a mask was dropped on the way.
def test_what_the_user_says_is_never_learnt(tmp_path):
    words = chatty()
    said = talk("xylophone", "good", "zebra", "film", system="kangaroo")
    dataset = learnt(one(tmp_path, {"messages": said}), words)
    read = text(words, dataset.tokens(0)[~dataset.is_target(0)])
    taught = text(words, dataset.tokens(0)[dataset.is_target(0)])
    assert all(word in read and word not in taught for word in ("xylophone", "zebra", "kangaroo"))
    assert "good" in taught and "film" in taught


# A message that its author had switched off was learnt all the same.
def test_a_weight_of_0_is_heard(tmp_path):
    words = chatty()
    said = talk("hi", "wrong", "no", "right")
    said[1]["weight"] = 0
    dataset = learnt(one(tmp_path, {"messages": said}), words)
    taught = text(words, dataset.tokens(0)[dataset.is_target(0)])
    assert "right" in taught and "wrong" not in taught


# ---- what is fed ----


# Two tokens for the beginning, one of the template and one of the tokenizer: worse, and never said.
@pytest.mark.parametrize("template", ["<s>{question} {answer}", "<s><s>{question} {answer}", "{question} {answer}"])
@pytest.mark.parametrize("style", [llama, roberta])
def test_one_beginning(style, template, tmp_path):
    words = style()
    path = one(tmp_path, {"question": "the film", "answer": "was good"})
    encoder = encoder_of(path, words, template=template)
    row = next(open_data(path).train.rows())
    for ids in (learnt(path, words, template=template).tokens(0), encoder.prompt_ids(row)):
        assert list(ids[:2]).count(words.bos_token_id) == 1 and ids[0] == words.bos_token_id


def test_one_beginning_where_the_chat_template_writes_it_too(tmp_path):
    words = chatty(llama, WITH_BOS)
    path = one(tmp_path, {"messages": talk("the film", "was good")})
    encoder = encoder_of(path, words)
    row = next(open_data(path).train.rows())
    for ids in (learnt(path, words).tokens(0), encoder.prompt_ids(row)):
        assert list(ids).count(words.bos_token_id) == 1 and ids[0] == words.bos_token_id


# "A: " was one text in training and another when asked: the model was never asked what it had learnt.
@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("template", [TEMPLATE, "{question} {answer}", "Q: {question}\nA:{answer}", "chatml"])
def test_the_prompt_is_fed_as_it_was_learnt(style, template, tmp_path):
    words = style()
    path = one(tmp_path, {"question": "the film", "answer": "was good"})
    encoder = encoder_of(path, words, template=template)
    dataset = learnt(path, words, template=template)
    prompt = encoder.prompt_ids(next(open_data(path).train.rows()))
    first = int(np.argmax(dataset.is_target(0)))
    assert prompt == dataset.tokens(0)[:first].tolist()


@pytest.mark.parametrize("template", [CHATML, WITH_BOS])
def test_a_conversation_is_fed_as_it_was_learnt(template, tmp_path):
    words = chatty(llama, template)
    path = one(tmp_path, {"messages": talk("hi", "good", "the film", "was long", system="a")})
    dataset = learnt(path, words, learn="completion")
    prompt = encoder_of(path, words, learn="completion").prompt_ids(next(open_data(path).train.rows()))
    assert prompt == dataset.tokens(0)[: int(np.argmax(dataset.is_target(0)))].tolist()


# A space at the end of a prompt made every answer begin with a token that the base model had never seen there.
@pytest.mark.parametrize("style", [gpt2, llama])
def test_a_space_before_the_answer_belongs_to_the_answer(style, tmp_path):
    words, row = style(), {"question": "q", "answer": "good"}
    dataset = learnt(one(tmp_path, row), words, template="A: {question} {answer}")
    spoken = words("A: q good", add_special_tokens=False)["input_ids"]
    ids = [token for token in dataset.tokens(0).tolist() if token not in (words.bos_token_id, words.eos_token_id)]
    assert text(words, ids).strip() == text(words, spoken).strip()
    target = text(words, dataset.tokens(0)[dataset.is_target(0)])
    assert target.startswith(" good") or style is llama  # whose decoder drops the first space


# A row wrote "</s>" or "<|im_end|>" in its text, and the model took it for the end, or for somebody else speaking.
@pytest.mark.parametrize(("style", "name"), [(llama, "</s>"), (gpt2, "<|im_end|>"), (roberta, "<mask>")])
def test_the_name_of_a_control_token_is_text(style, name, tmp_path):
    words = chatty(style)
    token = words.convert_tokens_to_ids(name)
    path = one(tmp_path, {"question": f"ignore {name} that", "answer": f"was {name} good"})
    assert learnt(path, words, template="Q: {question} A: {answer}").tokens(0)[:-1].tolist().count(token) == 0
    clean = write(tmp_path / "b.jsonl", [{"messages": talk("hi", "good")}])
    usual = learnt(clean, words).tokens(0).tolist().count(token)
    path = write(tmp_path / "c.jsonl", [{"messages": talk(f"hi {name}", "good")}])
    assert learnt(path, words).tokens(0).tolist().count(token) == usual


# ---- what is cut ----


# Long rows lost their ends, and with them their answers: fewer rows learnt, none of it said.
@pytest.mark.parametrize("style", [gpt2, llama, bert])
@pytest.mark.parametrize("max_length", [16, 24, 40])
def test_the_prompt_is_cut_and_the_answer_stays(style, max_length, tmp_path):
    words = style()
    path = one(tmp_path, {"question": "the film was long " * 50, "answer": "good"})
    whole, cut = learnt(path, words, template=TEMPLATE), learnt(path, words, max_length, template=TEMPLATE)
    assert len(cut.tokens(0)) == max_length
    assert cut.tokens(0)[cut.is_target(0)].tolist() == whole.tokens(0)[whole.is_target(0)].tolist()
    assert cut.truncated_rows == 1 and cut.truncated_tokens == len(whole.tokens(0)) - max_length


# An answer without its end, followed by the end: the model learnt to stop in the middle of a sentence.
def test_an_answer_that_is_cut_learns_no_end(tmp_path):
    words = gpt2()
    path = one(tmp_path, {"question": "q", "answer": "good " * 50})
    dataset = learnt(path, words, 20, template="{question} {answer}")
    assert words.eos_token_id not in dataset.tokens(0)
    examined = look(path, counted=tokens(words, 20), template="{question} {answer}")
    assert [finding.rows for finding in examined.report.findings if finding.code == "answers_cut"] == [(1,)]


# ---- rows that were dropped, or learnt as something else, with a warning that named none of them ----

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "completion empty": ({"prompt": "q", "completion": ""}, "nothing to learn"),
    "completion missing": ({"prompt": "q"}, "completion"),
    "completion a list of nothing": ({"prompt": "q", "completion": [""]}, "completion"),
    "prompt null": ({"prompt": None, "completion": "a"}, '"prompt" is null'),
    "prompt an object": ({"prompt": {"a": 1}, "completion": "a"}, '"prompt" is an object'),
    "completion not a number": ({"prompt": "q", "completion": float("nan")}, "NaN is not JSON"),
}
BAD_TALKS: dict[str, tuple[Any, str]] = {
    "no message": ([], "expected a list of messages"),
    "not a list": ("hello", "expected a list of messages"),
    "no role": ([{"content": "hi"}], "role"),
    "no content": ([{"role": "user"}, {"role": "assistant", "content": "a"}], "content"),
    "an unknown role": ([{"role": "usr", "content": "hi"}], 'Did you mean "user"'),
    "two users in a row": (talk("a") + talk("b", "c"), "like the one before it"),
    "the assistant first": (talk("a", "b")[1:], "nobody has said anything"),
    "a system message later": ([*talk("a", "b"), {"role": "system", "content": "c"}], "expected it first"),
    "no answer": (talk("a"), "no message of the assistant"),
    "no answer that counts": ([*talk("a"), {"role": "assistant", "content": "b", "weight": 0}], "with weight 1"),
    "a weight of a half": ([*talk("a"), {"role": "assistant", "content": "b", "weight": 0.5}], "weight"),
    "an answer of a tool that nobody called": ([*talk("a"), {"role": "tool", "content": "4"}], "calls no tool"),
    "a call that is not JSON": (
        [*talk("a"), {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}], "not JSON"),
}  # fmt: skip


def refused(path: Path, words: str, tokenizer: Any) -> None:
    """A run stops at row 3, and the check names it beforehand, as unusable."""
    with pytest.raises(DataError) as caught:
        learnt(path, tokenizer)
    assert caught.value.where == "a.jsonl:3" and words in caught.value.message
    for counted in (None, tokens(tokenizer, 999)):
        stops = [finding for finding in look(path, counted=counted).report.findings if finding.level == "unusable"]
        assert [finding.rows for finding in stops] == [(3,)], stops


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_named(name, tmp_path):
    row, words = BAD[name]
    good = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(4)]
    refused(write(tmp_path / "a.jsonl", [*good[:2], row, *good[2:]]), words, gpt2())


@pytest.mark.parametrize("name", BAD_TALKS)
def test_bad_conversations_are_named(name, tmp_path):
    messages, words = BAD_TALKS[name]
    good = [{"messages": talk(f"question {i}", f"answer {i}")} for i in range(4)]
    refused(write(tmp_path / "a.jsonl", [*good[:2], {"messages": messages}, *good[2:]]), words, chatty())


def test_no_row_is_lost(tmp_path):
    rows = [{"question": f"q {i}", "answer": "good " * i} for i in range(1, 40)]
    dataset = learnt(write(tmp_path / "a.jsonl", rows), gpt2(), 32, template=TEMPLATE)
    assert dataset.rows.tolist() == list(range(39))


# ---- what nobody was told ----


# Columns vanished because nothing read them.
def test_columns_that_are_not_used_are_said(tmp_path):
    path = one(tmp_path, {"question": "q", "answer": "a", "hint": "h", "source": "s"})
    assert "not used: hint, source" in recognise(open_data(path).train).said


# A chat was learnt without its model's chat template, or with one that hides where an answer begins.
def test_a_conversation_without_a_chat_template_says_so(tmp_path):
    path = one(tmp_path, {"messages": talk("hi", "good")})
    assert any("has no chat template" in sentence for sentence in encoder_of(path, chatty(template=None)).said)
    assert any("has no chat template" in sentence for sentence in look(path, counted=tokens(gpt2(), 99)).report.said)


def test_a_template_that_hides_where_an_answer_begins_is_refused(tmp_path):
    hiding = (
        "{% for m in messages %}{% if loop.last or m['role'] == 'user' %}{{ m['content'] }}|{% endif %}{% endfor %}"
    )
    path = one(tmp_path, {"messages": talk("hi", "good", "the film", "was long")})
    with pytest.raises(DataError, match=r"differently once another follows|writes nothing for message"):
        learnt(path, chatty(template=hiding))


# A template whose names no column had, or whose answer stood in the middle, gave rows that were all the same.
@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{questoin} {answer}", 'Did you mean "question"'),
        ("no column at all {{}}", "has no {column}"),
        ("{answer} {question}{answer}", "gives the answer away"),
        ("{} {answer}", "an empty placeholder"),
        ("{question} {answer} and more", "what the model must write comes last"),
        ("{question", 'a lone "{"'),
        ("quesion-answer", 'Did you mean "question-answer"'),
    ],
)
def test_a_template_that_cant_teach_is_refused_in_one_line(template, words, tmp_path):
    path = one(tmp_path, {"question": "q", "answer": "a"})
    with pytest.raises(RecipeError) as caught:
        recognise(open_data(path).train, template=template)
    assert words in caught.value.message and caught.value.field == "data.template"


# Rows with the same question on both sides, and questions with two answers: scores that flatter, a model that wavers.
def test_leaks_and_contradictions_are_counted_before_a_run(tmp_path):
    rows = [{"question": f"question number {i} of many", "answer": f"a{i}"} for i in range(20)]
    train = write(tmp_path / "a.jsonl", [*rows, {**rows[3], "answer": "otherwise"}])
    held_out = write(tmp_path / "v.jsonl", [{**rows[5], "answer": "new"}, {"question": "another", "answer": "b"}])
    found = {finding.code: finding.rows for finding in look(train, held_out).report.findings}
    assert found["conflicts"] == (4, 21) and found["leaks"] == (1,)


# A text file was read as one row, or its first line taken for a header.
def test_a_text_file_keeps_its_first_line_and_its_paragraphs(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("text,label\n\nOne, two.\n\nThree.\n")
    assert [row.values["text"] for row in open_leniently(path).rows()] == ["text,label", "One, two.", "Three."]
    assert [row.values["text"] for row in open_data(path).train.rows()] == ["text,label", "One, two.", "Three."]
