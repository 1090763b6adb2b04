"""`tunewright doctor`: lines, the JSON object, and the exit code."""

from __future__ import annotations

import json

import pytest

from tunewright.cli.app import main
from tunewright.doctor import examination
from tunewright.doctor.check import Check

WELL = Check("python", "ok", "3.12.3, Linux x86_64")
POOR = Check("hub", "warn", "https://huggingface.co can't be reached (ConnectError)", "check the connection")
ILL = Check("memory", "bad", "0.2 GB free of 4.0 GB", "close other programs", {"free_bytes": 200_000_000})


@pytest.fixture
def finds(monkeypatch):
    return lambda *checks: monkeypatch.setattr(examination, "examine", lambda runs: iter(checks))


def test_all_is_well(finds, capsys):
    finds(WELL)
    assert main(["doctor"]) == 0
    said = capsys.readouterr()
    assert said.out == " ok    python          3.12.3, Linux x86_64\n" and said.err == ""


def test_a_warning_is_no_failure(finds, capsys):
    finds(WELL, POOR)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == " warn  hub             https://huggingface.co can't be reached (ConnectError)"
    assert lines[2].split() == ["→", "check", "the", "connection"]


def test_what_would_stop_a_run_is_exit_5_after_the_whole_list(finds, capsys):
    finds(ILL, WELL)
    assert main(["doctor"]) == 5
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 3
    assert said.err == "error[environment] a run would be stopped by: memory; what to do stands beside each\n"


def test_quiet_shows_only_what_is_not_well(finds, capsys):
    finds(WELL, POOR)
    assert main(["doctor", "-q"]) == 0
    assert "python" not in capsys.readouterr().out


def test_json_is_one_object(finds, capsys):
    finds(WELL, POOR, ILL)
    assert main(["doctor", "--json"]) == 5
    said = json.loads(capsys.readouterr().out)
    assert said["state"] == "bad"
    assert said["error"]["code"] == "environment"
    assert said["checks"][2] == {
        "name": "memory",
        "state": "bad",
        "found": "0.2 GB free of 4.0 GB",
        "advice": "close other programs",
        "values": {"free_bytes": 200_000_000},
    }
    finds(WELL, POOR)
    assert main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["state"], said["error"]) == ("warn", None)


def test_lines_fit_a_terminal_of_80_columns(finds, capsys, monkeypatch):
    finds(Check("hub", "warn", "a long finding " * 12, "a long piece of advice " * 12))
    monkeypatch.setattr("tunewright.cli.output.width", lambda stream=None: 80)
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 6 and max(map(len, lines)) <= 80
