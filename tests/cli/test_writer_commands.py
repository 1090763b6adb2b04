"""chat, predict and evaluate with a model that writes: pipes, terminals, files, Ctrl-C."""

from __future__ import annotations

import builtins
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from tests.serving.small_writer import QUESTIONS, TALKS, TEMPLATE, base, run
from tests.whole import child_environment
from tunewright.cli import chat
from tunewright.library import load
from tunewright.serving.writer import Writer


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    run(folder / "questions", template=TEMPLATE)
    run(folder / "talks", TALKS, max_length=160, positions=640)
    run(folder / "whole", lora=False, template=TEMPLATE)
    several = [{**row, "context": "a film"} for row in QUESTIONS]
    run(folder / "several", several, max_length=200, positions=256, template="{context} {question} {answer}")
    return folder


def piped(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def typed(monkeypatch, *lines):
    """A terminal in which somebody types these lines; an exception stands for a key."""
    left, asked = list(lines), list[str]()

    def read(prompt: str = "") -> str:
        asked.append(prompt)
        line = left.pop(0) if left else EOFError()
        if isinstance(line, BaseException):
            raise line
        return line

    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", stream)
    monkeypatch.setattr(builtins, "input", read)
    return asked


# ---- chat ----


def test_one_line_in_one_answer_out(runs, monkeypatch, tunewright):
    piped(monkeypatch, "what is tea?\n\nwhat is rain?\n")
    code, out, err = tunewright("chat", "questions", "--runs", str(runs))
    wanted = [answer.prediction for answer in load("questions", runs).predict(["what is tea?", "what is rain?"])]
    assert (code, err) == (0, "") and out == "".join(chat.printable(f"{text}\n") for text in wanted)


@pytest.mark.parametrize("name", ["questions", "whole"])
def test_side_by_side(name, runs, monkeypatch, tunewright):
    piped(monkeypatch, "what is tea?\n")
    code, out, err = tunewright("chat", name, "--side-by-side", "--runs", str(runs), "--max-new-tokens", "12")
    tuned, before = load(name, runs), Writer.untrained(runs / name)
    wanted = [writer.predict(["what is tea?"], writer.sampling(max_new_tokens=12))[0] for writer in (before, tuned)]
    shown = [chat.printable(answer.prediction) for answer in wanted]
    assert (code, err) == (0, "") and out == f"before: {shown[0]}\nafter: {shown[1]}\n" and shown[0] != shown[1]


def test_columns_through_a_pipe_are_json(runs, monkeypatch, tunewright):
    row = {"context": "a film", "question": "what?"}
    piped(monkeypatch, json.dumps(row) + "\nwhat is tea?\n")
    code, out, err = tunewright("chat", "several", "--runs", str(runs))
    assert code == 3 and out == chat.printable(f"{load('several', runs).predict([row])[0].prediction}\n")
    assert err == ("error[data] stdin:2: the template reads context, question; expected a JSON object with these\n")


def test_a_terminal_asks_each_column_and_ends_at_ctrl_d(runs, monkeypatch, tunewright):
    asked = typed(monkeypatch, "a film", "what?")
    code, out, err = tunewright("chat", "several", "--runs", str(runs))
    row = {"context": "a film", "question": "what?"}
    assert code == 0 and chat.printable(load("several", runs).predict([row])[0].prediction) in out
    assert err.startswith(" chat with several: /retry, /clear, /help, /exit; Ctrl-C stops an answer\n")
    assert len(asked) == 3


def test_commands_of_a_terminal(runs, monkeypatch, tunewright):
    typed(
        monkeypatch, "/retry", "Hi a", "/retry", "/clear", "/help", "/nonsense", KeyboardInterrupt(), "", "/exit", "no"
    )
    code, out, err = tunewright("chat", "talks", "--runs", str(runs))
    first = load("talks", runs).predict(["Hi a"])[0].prediction
    assert code == 0 and out.startswith(chat.printable(first)) and len(out) > len(first) + 2
    for words in ("nothing was asked yet", " forgotten\n", "/clear  forget what was said", "no command /nonsense",
                  "(Ctrl-D or /exit ends the chat)"):  # fmt: skip
        assert words in err, words


def test_a_question_that_can_not_be_read_ends_no_chat(runs, monkeypatch, tunewright):
    typed(monkeypatch, " ", "what is tea?")
    monkeypatch.setattr(Writer, "prompt", failing_once(Writer.prompt))
    code, out, err = tunewright("chat", "questions", "--runs", str(runs))
    assert code == 0 and out == "" and "error[data] no" in err


def failing_once(own):
    from tunewright.errors import DataError

    left = [DataError("no")]

    def prompt(*arguments, **settings):
        if left:
            raise left.pop()
        return own(*arguments, **settings)

    return prompt


def test_what_can_not_be_chatted_with(runs, monkeypatch, tunewright, tmp_path):
    from tests.serving.test_predict import saved

    piped(monkeypatch, "")
    code, _, err = tunewright("chat", "questions", "--runs", str(runs), "--system", "Be brief")
    assert code == 2 and "this model reads no conversation" in err
    code, _, err = tunewright("chat", "questions", "--runs", str(runs), "--temperature", "-1")
    assert code == 2 and "temperature is -1.0; expected 0" in err
    saved("bert", tmp_path)
    code, _, err = tunewright("chat", str(tmp_path / "model"))
    assert (code, err) == (2, "error[usage] chat is for models that write, and this is a classifier\n")
    code, _, err = tunewright("chat", str(base(tmp_path / "plain")), "--side-by-side")
    assert code == 2 and "no other side" in err


def test_a_model_can_not_steer_the_terminal():
    assert chat.printable("a\x1b[31m\nb\tc\x07\u009bd é 🙂") == "a?[31m\nb\tc??d é 🙂"


def read_until(descriptor, words, seconds=60.0):
    """What a terminal shows, until these words."""
    seen, end = b"", time.monotonic() + seconds
    while words not in seen and time.monotonic() < end:
        if select.select([descriptor], [], [], 0.2)[0]:
            try:
                seen += os.read(descriptor, 4096)
            except OSError:
                break
    assert words in seen, seen
    return seen


def test_ctrl_c_in_a_real_terminal_stops_the_answer_and_not_the_chat(runs):
    """Answers so long that they can't end by themselves in time."""
    mine, theirs = pty.openpty()
    command = [sys.executable, "-m", "tunewright", "chat", "talks", "--runs", str(runs), "--max-new-tokens", "500",
               "--temperature", "1"]  # fmt: skip
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=child_environment() | {"TERM": "dumb"},
        start_new_session=True,
    ) as process:  # fmt: skip
        read_until(mine, b"> ")
        os.write(mine, b"Hi a\n")
        read_until(mine, b"Hi a\r\n")
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        read_until(mine, b"\r\n> ")
        assert process.poll() is None
        os.write(mine, b"/exit\n")
        assert process.wait(30) == 0
    os.close(mine)
    os.close(theirs)


# ---- predict ----


def test_predict_applies_the_template(runs, tunewright, tmp_path):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({**row, "id": i}) + "\n" for i, row in enumerate(QUESTIONS)))
    out = tmp_path / "out.jsonl"
    code, shown, _ = tunewright("predict", "questions", "--runs", str(runs), "-i", str(tmp_path / "in.jsonl"), "-o",
                                str(out), "--json", "--max-new-tokens", "4")  # fmt: skip
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    writer = load("questions", runs)
    wanted = writer.predict(QUESTIONS, writer.sampling(max_new_tokens=4))
    assert code == 0 and [row["prediction"] for row in rows] == [answer.prediction for answer in wanted]
    assert [row["id"] for row in rows] == list(range(5))
    body = json.loads(shown)
    assert (body["rows"], body["cut_rows"], body["state"]) == (5, 0, "succeeded")


def test_predict_says_what_was_cut_and_draws_with_a_seed(runs, tunewright, tmp_path, monkeypatch):
    (tmp_path / "in.jsonl").write_text(json.dumps({"question": "very " * 100}) + "\n" + json.dumps(QUESTIONS[0]) + "\n")
    settings = ["--runs", str(runs), "-i", str(tmp_path / "in.jsonl"), "--temperature", "2", "--top-p", "0.99"]
    code, first, err = tunewright("predict", "questions", *settings, "--seed", "1")
    assert code == 0 and err.startswith(" 1 of 2 prompts were too long: ") and err.endswith(" tokens left out\n")
    assert tunewright("predict", "questions", *settings, "--seed", "1")[1] == first
    assert tunewright("predict", "questions", *settings, "--seed", "2")[1] != first


def test_predict_refuses_other_columns_and_settings(runs, tunewright, tmp_path):
    from tests.serving.test_predict import saved

    (tmp_path / "in.jsonl").write_text('{"q": "what?"}\n')
    out = tmp_path / "out.jsonl"
    code, _, err = tunewright(
        "predict", "questions", "--runs", str(runs), "-i", str(tmp_path / "in.jsonl"), "-o", str(out)
    )
    assert code == 3 and 'in.jsonl:1: no "question" here; the row has q.' in err and not out.exists()
    saved("bert", tmp_path)
    code, _, err = tunewright(
        "predict", str(tmp_path / "model"), "-i", str(tmp_path / "in.jsonl"), "--temperature", "1"
    )
    assert code == 2 and "is for models that write, and this one doesn't" in err


# ---- evaluate ----


def test_evaluate_on_other_rows(runs, tunewright, tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    arguments = ["evaluate", "questions", "--runs", str(runs), "--data", str(path)]
    code, out, _ = tunewright(*arguments, "--json")
    found = json.loads(out)
    assert code == 0 and (found["rows"], found["answered_rows"]) == (5, 5)
    assert {"exact_match", "f1", "rouge_l", "perplexity", "token_accuracy", "loss", "length_ratio", "stopped"} <= (
        found["metrics"].keys()
    )
    assert set(found["intervals"]) == set(found["metrics"])
    code, out, _ = tunewright(*arguments)
    assert code == 0 and "perplexity" in out and "5 rows of" in out
    code, _, err = tunewright(*arguments, "--gate", "validation/f1>=0.99", "--gate", "perplexity<100000")
    assert code == 8 and "f1 is " in err and "perplexity" not in err
    code, _, err = tunewright(*arguments, "--label", "answer")
    assert code == 2 and "this model writes" in err
