"""`tunewright data check`: what is printed, what is written, which exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests import whole
from tests.data.test_examining import balanced, planted, write
from tests.data.test_written_examining import pairs
from tests.data.test_written_examining import planted as planted_pairs
from tests.models.made_writers import save_writer
from tunewright.cli import data_lines, output
from tunewright.data.findings import DataReport
from tunewright.data.showing import Piece, ShownRow


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TUNEWRIGHT_DEBUG", raising=False)
    return tmp_path


MODEL = ("--model", str(whole.base()))


def test_good_data(here, tunewright):
    write(Path("a.jsonl"), balanced())
    code, out, err = tunewright("data", "check", "a.jsonl", *MODEL)
    assert (code, err) == (0, "")
    assert "✓ none of: unreadable rows" in out
    assert "tokens per text of train: median 14" in out
    assert out.splitlines()[-2:] == [" a.jsonl: usable", " next   tunewright train a.jsonl"]


def test_unusable_data_is_shown_whole_and_exits_with_3(here, tunewright):
    rows = balanced()
    planted(rows)
    write(Path("a.jsonl"), rows)
    code, out, err = tunewright("data", "check", "a.jsonl", *MODEL)
    assert code == 3
    assert err.count("error[data] a.jsonl: 1 row can't be used. a.jsonl:19: ") == 1
    assert '"label" is empty' in err
    for part in ("text seen before", "more than one label", "✗", "⚠", "rows 5, 8", "--fix: left out", "a.fixed.jsonl"):
        assert part in out


def test_json_is_one_object(here, tunewright):
    rows = balanced()
    planted(rows)
    write(Path("a.jsonl"), rows)
    code, out, err = tunewright("data", "check", "a.jsonl", *MODEL, "--show", "1", "--json")
    [line] = out.splitlines()
    found = json.loads(line)
    assert (code, found["state"], found["usable"], found["error"]["code"]) == (3, "unusable", False, "data")
    assert err.count("error[data]") == 1
    assert found["parts"]["train"]["rejected"] == 1
    assert {"duplicates", "conflicts", "empty"} <= {finding["code"] for finding in found["findings"]}
    assert found["tokens"]["train"]["max_length"] >= 8
    assert found["shown"][0]["pieces"][0] == ["[CLS]", "special"]


def test_fix_writes_a_copy_that_a_run_accepts(here, tunewright):
    rows = balanced()
    planted(rows)
    before = write(Path("a.jsonl"), rows).read_bytes()
    code, out, err = tunewright("data", "check", "a.jsonl", *MODEL, "--fix", "-o", "b.jsonl")
    assert (code, err) == (0, "")
    assert re.search(r"wrote b.jsonl: 55 of 60 rows", out)
    assert "1  left out: the text is empty (row 3)" in out
    assert Path("a.jsonl").read_bytes() == before
    assert out.splitlines()[-1] == " next   tunewright train b.jsonl"
    assert tunewright("data", "check", "b.jsonl", *MODEL)[0] == 0


def test_a_copy_that_is_still_unusable_exits_with_3(here, tunewright):
    write(Path("a.jsonl"), [{"text": f"t {i}", "label": "same"} for i in range(9)] + [{"text": "", "label": "same"}])
    code, out, err = tunewright("data", "check", "a.jsonl", *MODEL, "--fix", "-o", "b.jsonl")
    assert code == 3
    assert "wrote b.jsonl: 9 of 10 rows" in out
    assert 'every "label" is "same"' in err


def test_a_recipe_and_its_validation(here, tunewright):
    write(Path("a.jsonl"), balanced())
    write(Path("v.jsonl"), balanced()[:3])
    Path("r.yaml").write_text(f"model: {whole.base()}\ndata: {{train: a.jsonl, validation: v.jsonl, max_length: 9}}\n")
    code, out, _ = tunewright("data", "check", "r.yaml", "-s", "data.truncate=right")
    assert code == 0
    assert "3 rows (100.0 %) with a text that is in train as well" in out
    assert "kept: 9" in out
    assert "cut on the right: 60 of 60 texts" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--fix",), "say where with -o FILE"),
        (("-o", "b.jsonl"), "add --fix"),
        (("--fix", "-o", "a.jsonl"), "never changed"),
        (("--fix", "-o", "v.jsonl", "--validation", "v.jsonl"), "is the validation data"),
        (("--fix", "-o", "b.csv"), "name it like a.fixed.jsonl"),
        (("--text", "txet"), 'Did you mean "text"?'),
        (("--max-length", "70"), "the model reads at most 64"),
    ],
)
def test_what_makes_no_sense(here, tunewright, arguments, message):
    before = write(Path("a.jsonl"), balanced()).read_bytes()
    write(Path("v.jsonl"), balanced()[:3])
    code, _, err = tunewright("data", "check", "a.jsonl", *MODEL, *arguments)
    assert code in (2, 3)
    assert err.count("error[") == 1
    assert message in err
    assert Path("a.jsonl").read_bytes() == before
    assert sorted(p.name for p in here.iterdir()) == ["a.jsonl", "v.jsonl"]


def test_a_model_that_is_not_there_costs_only_the_tokens(here, tunewright, monkeypatch):
    write(Path("a.jsonl"), balanced())
    Path("r.yaml").write_text("model: ./nowhere\ndata: {train: a.jsonl}\n")
    code, out, _ = tunewright("data", "check", "r.yaml")
    assert code == 0
    assert "tokens not counted: " in out
    assert tunewright("data", "check", "a.jsonl", "--model", "./nowhere")[0] == 4


def report(here) -> DataReport:
    from tests.data.test_examining import look

    rows = balanced()
    planted(rows)
    for i in range(14):
        rows += [{"text": f"long {i} " * 30 + f"{i}", "label": f"a class with quite a long name, number {i}"}]
    return look(write(here / "a.jsonl", rows), write(here / "v.jsonl", rows[:9])).report


def test_fits_eighty_columns_and_spells_ascii(here):
    for signs in (output.Marks(), output.ASCII_MARKS):
        lines = data_lines.report_lines(report(here), signs, 80)
        assert max(map(len, lines)) <= 80
        if signs is output.ASCII_MARKS:
            assert not [line for line in lines if not line.isascii() and "Caf" not in line and "for" not in line]


def test_tokens_are_marked_on_a_pipe(capsys):
    import sys

    pieces = (Piece("cu", "cut"), Piece("[CLS]", "special"), Piece("go", "kept"), Piece("od", "kept", glued=True))
    data_lines.show_rows([ShownRow("a:1", "x", (*pieces, Piece("文", "unknown")))], sys.stdout, output.Marks(), 80)
    shown = capsys.readouterr().out.splitlines()
    assert shown[-2:] == [" a:1 [x]: 4 tokens, 1 cut off", "   ~~cu~~ <[CLS]> go·od ?文?"]


def test_long_rows_show_their_ends():
    pieces = [Piece(f"c{i}", "cut") for i in range(50)] + [Piece(f"k{i}", "kept") for i in range(300)]
    few = [piece.text for piece in data_lines._few(pieces, output.Marks())]
    assert few[:2] == ["…", "c42"]
    assert len(few) == 1 + data_lines.CUT_SHOWN + data_lines.PIECES_SHOWN + 1
    assert few[-1] == "k299"


# ---- rows that are to be written ----


WRITER = ("--model", str(save_writer("gpt2", whole.scratch() / "gpt2-writer")))


def test_rows_of_questions_are_recognised_and_said(here, tunewright):
    write(Path("a.jsonl"), pairs())
    code, out, err = tunewright("data", "check", "a.jsonl", *WRITER)
    assert (code, err) == (0, "")
    shown = " ".join(out.split())
    for words in ("task: generate, by the rows' format; for labels give --task classify", "template question-answer",
                  "tokens per row of train: median", "tokens per row median 95 of 100", "✓ none of: unreadable rows",
                  "of train, a run would hold out 6 rows"):  # fmt: skip
        assert words in shown, words
    assert out.splitlines()[-1] == f" next   tunewright train a.jsonl --task generate --model {WRITER[1]}"


def test_without_a_model_that_writes_everything_but_tokens(here, tunewright):
    write(Path("a.jsonl"), pairs())
    code, out, _ = tunewright("data", "check", "a.jsonl")
    assert code == 0 and "tokens not counted: name the base model that is to write" in out
    code, _, err = tunewright("data", "check", "a.jsonl", "--show", "1")
    assert code == 2 and "--model" in err


def test_a_template_of_ones_own_is_shown_and_kept(here, tunewright):
    write(Path("a.jsonl"), pairs())
    template = "Q: {question} A: {answer}"
    code, out, _ = tunewright("data", "check", "a.jsonl", "--template", template, *WRITER, "--max-length", "24",
                              "--show", "1")  # fmt: skip
    assert code == 0
    assert "**" in out and "only read **learnt** ~~cut off~~ <special> ?unknown?" in out
    assert "kept: 24" in out
    assert out.splitlines()[-1].endswith(f"--task generate --model {WRITER[1]} --template '{template}'")


def test_bad_rows_of_questions_exit_with_3_and_fix_mends_them(here, tunewright):
    rows = pairs()
    planted_pairs(rows)
    write(Path("a.jsonl"), rows)
    code, out, err = tunewright("data", "check", "a.jsonl", "--task", "generate")
    assert code == 3
    assert err.count("error[data] a.jsonl: ") == 1 and err.count("error[") == 1
    assert "with nothing to learn" in out and "rows 3, 4, 12" in out
    code, out, err = tunewright("data", "check", "a.jsonl", "--fix", "-o", "b.jsonl")
    assert (code, err) == (0, "")
    assert "wrote b.jsonl: 55 of 60 rows" in out
    assert "3  left out: there is nothing to learn (rows 3, 4, 12)" in out
    assert tunewright("data", "check", "b.jsonl")[0] == 0


def test_json_says_what_is_read_and_what_is_learnt(here, tunewright):
    write(Path("a.jsonl"), pairs())
    code, out, _ = tunewright("data", "check", "a.jsonl", *WRITER, "--show", "1", "--json")
    body = json.loads(out)
    assert (code, body["task"], body["format"], body["learn"]) == (0, "generate", "questions and answers", "completion")
    of = body["written"]["train"]
    assert of["contexts"]["tokens"] + of["targets"]["tokens"] == body["tokens"]["train"]["tokens"]
    assert body["shown"][0]["pieces"][-1][2] is True


def test_a_book_and_what_isnt_for_it(here, tunewright):
    Path("book.txt").write_text("\n\n".join(row["question"] for row in pairs()))
    code, out, _ = tunewright("data", "check", "book.txt", *WRITER, "--max-length", "8")
    assert code == 0
    shown = " ".join(out.split())
    assert "60 documents become" in shown and "nothing is cut" in shown and "read at once: 8" in shown
    assert out.splitlines()[-1] == f" next   tunewright train book.txt --task continue --model {WRITER[1]}"
    assert "--fix" not in out
    for arguments, words in {
        ("--fix", "-o", "b.txt"): "is plain text",
        ("--task", "generate", "--template", "{txet}"): 'Did you mean "text"?',
        ("--task", "continue", "--template", "{text}"): '"data.template" is for task generate',
        ("--learn", "everything"): "data.learn",
    }.items():
        code, _, err = tunewright("data", "check", "book.txt", *arguments)
        assert code in (2, 3) and err.count("error[") == 1 and words in err, err


def test_a_recipe_for_writing(here, tunewright):
    write(Path("a.jsonl"), pairs())
    Path("r.yaml").write_text(f"task: generate\nmodel: {WRITER[1]}\ndata: {{train: a.jsonl, max_length: 40}}\n")
    code, out, _ = tunewright("data", "check", "r.yaml")
    assert code == 0 and "kept: 40" in out
    assert out.splitlines()[-1] == " next   tunewright train r.yaml"


def test_labels_stay_a_matter_of_labels(here, tunewright):
    write(Path("a.jsonl"), [{**row, "answer": ("yes", "no")[i % 2]} for i, row in enumerate(pairs())])
    assert "label column: answer" in tunewright("data", "check", "a.jsonl")[1]
    code, out, _ = tunewright("data", "check", "a.jsonl", "--task", "generate")
    assert code == 0 and "format: questions and answers" in out


def test_eighty_columns_for_writing_too(here):
    from tests.data.test_written_examining import look as look_at
    from tests.data.test_written_examining import tokens

    rows = pairs()
    planted_pairs(rows)
    path, other = write(here / "a.jsonl", rows), write(here / "v.jsonl", rows[:9])
    found = look_at(path, other, tokens(max_length=40)).report
    for signs in (output.Marks(), output.ASCII_MARKS):
        assert max(map(len, data_lines.report_lines(found, signs, 80))) <= 80


def test_learnt_tokens_are_marked_on_a_pipe_and_coloured_on_a_terminal(capsys):
    import sys

    pieces = (
        Piece("<s>", "special"), Piece("Q", "kept"), Piece("↵", "kept", glued=True), Piece("cu", "cut"),
        Piece("A", "kept", learnt=True), Piece("n", "kept", glued=True, learnt=True),
        Piece("</s>", "special", glued=True, learnt=True),
    )  # fmt: skip
    row = ShownRow("a:1", "", pieces, writes=True)
    data_lines.show_rows([row], sys.stdout, output.Marks(), 80)
    shown = capsys.readouterr().out.splitlines()
    assert shown[-2:] == [" a:1: 6 tokens, 3 learnt, 1 cut off", "   <<s>> Q·↵ ~~cu~~ **A·n·<</s>>**"]
    data_lines.show_rows([row], sys.stdout, output.ASCII_MARKS, 80)
    assert "Q|\\n" in capsys.readouterr().out
    styles = {piece.text: data_lines._style(piece, writes=True) for piece in pieces}
    assert styles == {
        "<s>": "reverse", "Q": "dim", "↵": "dim", "cu": "dim strike", "A": "bold green", "n": "bold green",
        "</s>": "bold green reverse",
    }  # fmt: skip
