"""Templates: what parses, what is refused in one line, and what a row becomes."""

from __future__ import annotations

import pytest

from tunewright.data.examples import Row
from tunewright.data.segments import Segment
from tunewright.data.templates import BUILT_IN, MAX_FILE_BYTES, Template
from tunewright.errors import DataError, RecipeError

ARTICLE = "Please answer the following question.\n\nQ: {question}\n\nA: {answer}"
COLUMNS = ("question", "answer", "note")


def row(**values):
    return Row(values, "faq.jsonl:7", 6)


def test_the_articles_template():
    template = Template.parse(ARTICLE, COLUMNS, "answer")
    found = template.segments(row(question="Who?", answer="Ada"))
    assert found == (
        Segment("Please answer the following question.\n\nQ: ", False),
        Segment("Who?", False, is_value=True),
        Segment("\n\nA: ", False),
        Segment("Ada", True, is_value=True),
    )
    assert template.prompt(row(question="Who?")) == "Please answer the following question.\n\nQ: Who?\n\nA: "
    assert template.completion == "answer" and template.columns == ("question",) and not template.said
    assert Template.parse(template.written(), COLUMNS) == template


def test_braces_and_numbers():
    template = Template.parse("{{{question}}} = {answer}", COLUMNS)
    found = template.segments(row(question=3, answer=0.5))
    assert "".join(segment.text for segment in found) == "{3} = 0.5"
    assert template.written() == "{{{question}}} = {answer}"


def test_a_braced_value_is_not_a_placeholder():
    template = Template.parse(ARTICLE, COLUMNS)
    assert "{answer}" in template.prompt(row(question="What is {answer}?"))


def test_white_space_after_the_target_is_left_out_and_said():
    template = Template.parse(ARTICLE + " \n", COLUMNS)
    assert template == Template.parse(ARTICLE, COLUMNS)
    assert "white space after {answer}" in template.said[0]


def test_a_column_may_be_shown_twice():
    template = Template.parse("{question} {question} {answer}", COLUMNS)
    assert template.prompt(row(question="x")) == "x x "


@pytest.mark.parametrize(
    ("text", "completion", "fragments"),
    [
        ("Q: {qestion} A: {answer}", None, ["{qestion}", "no column", 'Did you mean "question"?']),
        ("Q: {Question} A: {answer}", None, ['Did you mean "question"?']),
        ("Q: {question} A: {answer}", "anwser", ['"anwser" is no column', 'Did you mean "answer"?']),
        ("Q: {} A: {answer}", None, ['empty placeholder "{}"', "character 4"]),
        ("Q: { } A: {answer}", None, ["empty placeholder"]),
        ("Q: {question A: {answer}", None, ['lone "{"', "character 4", '"{{"']),
        ("Q: {question}} A: {answer}", None, ['lone "}"']),
        ("Q: {question} A: {answer} {answer}", None, ["{answer} stands 2 times"]),
        ("{answer} Q: {question}", "answer", ['"Q: {question}" stands after {answer}', "comes last"]),
        ("Q: {question} A: {answer}.", None, ['"." stands after {answer}']),
        ("Q: {question}\n", "answer", ["no {answer}", "nothing to learn"]),
        ("Q:\nA:", None, ["no {column}"]),
        ("", None, ["empty"]),
        (" \n ", None, ["no {column}"]),
        ("question-answr", None, ["no file", 'Did you mean "question-answer"?']),
        ("x" * 5_000, None, ["holds no {column}"]),
        ("a\0b", None, ["holds no {column}"]),
    ],
)
def test_refused_in_one_line(text, completion, fragments):
    with pytest.raises(RecipeError) as caught:
        Template.parse(text, COLUMNS, completion)
    line = caught.value.line()
    assert "\n" not in line and len(line) < 400 and caught.value.field == "data.template"
    for fragment in fragments:
        assert fragment in line, line


def test_from_a_file(tmp_path):
    path = tmp_path / "faq.txt"
    path.write_text("\ufeff" + ARTICLE + "\n", encoding="utf-8")
    assert Template.parse(str(path), COLUMNS) == Template.parse(ARTICLE, COLUMNS)


@pytest.mark.parametrize(
    ("content", "fragment"),
    [(b"", "is empty"), (b"\xff\xfe\x00", "not UTF-8"), (b"{a}" * MAX_FILE_BYTES, "larger"), (b"hello", "no {column}")],
)
def test_files_that_are_no_template(tmp_path, content, fragment):
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(RecipeError, match=fragment):
        Template.parse(str(tmp_path / "t.txt"), COLUMNS)
    with pytest.raises(RecipeError, match="folder"):
        Template.parse(str(tmp_path), COLUMNS)


@pytest.mark.parametrize(
    ("values", "field", "fragment"),
    [
        ({"question": "x", "answer": ""}, "answer", "nothing to learn"),
        ({"question": "x", "answer": " \n"}, "answer", "nothing to learn"),
        ({"question": "x", "answer": None}, "answer", "is null; expected a text or a number"),
        ({"question": "x", "answer": float("nan")}, "answer", "is null"),
        ({"question": "x", "answer": ["a", "b"]}, "answer", "a list of 2"),
        ({"question": {"text": "x"}, "answer": "a"}, "question", "an object"),
        ({"question": True, "answer": "a"}, "question", "bool True"),
        ({"question": float("inf"), "answer": "a"}, "question", "float inf"),
        ({"qestion": "x", "answer": "a"}, "question", 'Did you mean "qestion"?'),
    ],
)
def test_rows_that_cant_be_used(values, field, fragment):
    with pytest.raises(DataError) as caught:
        Template.parse(ARTICLE, COLUMNS).segments(row(**values))
    assert caught.value.where == "faq.jsonl:7" and caught.value.field == field and fragment in str(caught.value)


def text(template, **values):
    return "".join(segment.text for segment in template.segments(row(**values)))


def test_built_in_question_answer():
    template = Template.parse("question-answer", ["question", "answer"])
    assert text(template, question="Who?", answer="Ada") == ARTICLE.format(question="Who?", answer="Ada")
    template = Template.parse("question-answer", ["context", "query", "answers", "gold"], "gold")
    assert template.completion == "gold"
    with_context = text(template, context="Ada wrote.", query="Who?", gold="Ada")
    assert with_context == "Please answer the following question.\n\nAda wrote.\n\nQ: Who?\n\nA: Ada"
    assert text(template, context="", query="Who?", gold="Ada") == ARTICLE.format(question="Who?", answer="Ada")


@pytest.mark.parametrize("given", ["", " ", None, float("nan")])
def test_built_in_alpaca_without_input(given):
    template = Template.parse("alpaca", ["instruction", "input", "output"])
    assert "### Input:" not in text(template, instruction="Name one.", input=given, output="Ada")
    assert "### Input:\nx\n\n### Response:\nAda" in text(template, instruction="Name one.", input="x", output="Ada")
    assert "### Input:" not in text(template, instruction="Name one.", output="Ada")


def test_built_in_summary_and_chatml():
    template = Template.parse("summary", ["article", "highlights"])
    assert (
        text(template, article="Long.", highlights="Short")
        == "Summarize the following text.\n\nLong.\n\nSummary: Short"
    )
    template = Template.parse("chatml", ["prompt", "completion"])
    found = template.segments(row(prompt="Hi", completion="Yo"))
    assert found[-2:] == (Segment("Yo", True, is_value=True), Segment("<|im_end|>", True))
    assert "".join(s.text for s in found[:-2]) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_ins_name_the_column_they_miss(name):
    with pytest.raises(RecipeError, match="needs a column"):
        Template.parse(name, ["x"])


def test_the_signature_tells_templates_apart():
    texts = ["{question} {answer}", "{question}  {answer}", "{note} {answer}", "{answer}"]
    signatures = {Template.parse(text, COLUMNS).signature() for text in texts}
    assert len(signatures) == 4
    assert Template.parse(texts[0] + "\n", COLUMNS).signature() == Template.parse(texts[0], COLUMNS).signature()
    built_in = Template.parse("question-answer", COLUMNS).signature()
    assert built_in == Template.parse(ARTICLE, COLUMNS).signature()
    assert built_in != Template.parse("question-answer", [*COLUMNS, "context"]).signature()
