"""The command as a whole: help, exit codes, one line per error."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import pytest

from tunewright import errors
from tunewright.cli.app import app, main, with_optional_run

HEAVY = {"torch", "transformers", "peft", "datasets", "pyarrow", "pandas", "numpy", "pydantic", "tokenizers"}
HELP = "from tunewright.cli.app import main; main(['--help'])"
COMMANDS = [
    "init", "schema", "demo", "doctor", "plan", "train", "search", "evaluate", "compare", "calibrate", "report",
    "predict", "chat", "export", "push",
]  # fmt: skip


def in_a_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR", "FORCE_COLOR", "PYTHONWARNINGS")}
    return subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, timeout=60
    )


def test_help_imports_nothing_heavy():
    done = in_a_process(f"import sys; {HELP}; print(*sys.modules, file=sys.stderr)")
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert not loaded & HEAVY
    assert "Usage: tunewright" in done.stdout


def test_help_takes_less_than_half_a_second():
    """Of the processor's time: what a person waits for on a machine that isn't busy with other tests."""

    def seconds() -> float:
        begin = resource.getrusage(resource.RUSAGE_CHILDREN)
        in_a_process(HELP)
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        return end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime

    assert min(seconds() for _ in range(4)) < 0.5


def test_help_panels_follow_the_work(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    panels = [out.index(f"{number}. ") for number in range(1, 6)]
    assert panels == sorted(panels)
    assert out.rstrip().splitlines()[-1].strip() == "tunewright train reviews.jsonl --validation 0.1"


@pytest.mark.parametrize(
    "command",
    [[name] for name in COMMANDS]
    + [["runs", verb] for verb in ("ls", "show", "rm")]
    + [["data", verb] for verb in ("check", "doubtful", "learning-curve")]
    + [["rank", verb] for verb in ("sample", "serve", "export", "import", "status", "backup")]
    + [["models", "try"]],
)
def test_each_help_ends_with_a_line_to_paste(command, capsys):
    assert main([*command, "--help"]) == 0
    last = capsys.readouterr().out.rstrip().splitlines()[-1].strip()
    assert last.startswith(f"tunewright {' '.join(command)}")


def test_help_survives_an_old_code_page():
    done = in_a_process(HELP, PYTHONIOENCODING="cp1252")
    assert done.returncode == 0, done.stderr
    assert "╭" not in done.stdout


def test_no_argument_shows_the_help(tunewright):
    code, out, _ = tunewright()
    assert code == 0
    assert "Usage: tunewright" in out


def test_every_command_is_listed():
    assert [command.callback.__name__ for command in app.registered_commands] == COMMANDS


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "Did you mean 'train', 'rank'? Help: tunewright --help"),
        (["train", "x.jsonl", "--modle", "a"], "No such option: --modle"),
        (["train"], "nothing to train on"),
        (["predict", "latest"], "Missing option '-i'"),
        (["compare", "one"], "two or more"),
        (["push", "latest", "no-slash"], "expected you/name"),
    ],
)
def test_usage_errors_are_one_line(arguments, words, runs, tunewright):
    code, out, err = tunewright(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error[usage] ") and err.count("\n") == 1
    assert words in err


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TunewrightError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_error_has_its_line_and_code(kind, calls, tunewright, monkeypatch):
    def fails(*_, **__):
        raise kind("it is so;\n  do that")

    monkeypatch.setattr(sys.modules["tunewright.pipeline"], "fine_tune", fails)
    code, out, err = tunewright("train", "reviews.jsonl", "--json")
    assert code == kind.exit_code
    assert err == f"error[{kind.code}] it is so; do that\n"
    [line] = out.splitlines()
    assert json.loads(line)["error"]["code"] == kind.code
    assert {"run", "state", "metrics"} <= json.loads(line).keys()


def test_a_bug_is_one_line_and_the_traceback_on_request(calls, tunewright, monkeypatch):
    monkeypatch.setattr(sys.modules["tunewright.pipeline"], "fine_tune", lambda *_, **__: 1 / 0)
    code, _, err = tunewright("train", "reviews.jsonl")
    assert code == 1
    assert err == "error[bug] ZeroDivisionError: division by zero (TUNEWRIGHT_DEBUG=1 shows the traceback)\n"
    monkeypatch.setenv("TUNEWRIGHT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["train", "reviews.jsonl"])


def test_interrupted_from_the_keyboard(calls, tunewright, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["tunewright.pipeline"], "fine_tune", interrupted)
    code, _, err = tunewright("train", "reviews.jsonl")
    assert code == 130
    assert err == "error[stopped] stopped from the keyboard\n"


@pytest.mark.parametrize(
    ("given", "full"),
    [
        (["train", "--resume"], ["train", "--resume", "latest"]),
        (["train", "--resume", "reviews-1"], ["train", "--resume", "reviews-1"]),
        (["train", "--resume", "-q"], ["train", "--resume", "latest", "-q"]),
        (["train", "--resume", "a.yaml"], ["train", "--resume", "latest", "a.yaml"]),
        (["train", "a.yaml", "--resume"], ["train", "a.yaml", "--resume", "latest"]),
        (["train", "--resume=reviews-1"], ["train", "--resume=reviews-1"]),
        (["evaluate", "x"], ["evaluate", "x"]),
    ],
)
def test_resume_takes_a_run_or_nothing(given, full):
    assert with_optional_run(given) == full


def test_a_data_file_after_resume_is_not_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.jsonl").touch()
    assert with_optional_run(["train", "--resume", "reviews.jsonl"])[2] == "latest"


def test_a_reader_that_leaves_early_is_no_error():
    code = "import os, sys; from tunewright.cli.app import main; sys.exit(main(['schema']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
