"""The real clients read a dataset from a hub on this machine; each way it can fail is told apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunewright.data.hub_datasets import _explain, is_hub_id
from tunewright.errors import MachineError

COMMIT = "0123456789abcdef0123456789abcdef01234567"

# The clients read their hub's address when they are imported: hence a process of its own.
CLIENT = """
import json, os, pathlib, sys
from loopback_datasets import dataset_hub
files, ask = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
with dataset_hub("owner/films", files, moves="moves" in sys.argv) as address:
    os.environ["HF_ENDPOINT"] = os.environ.get("HF_ENDPOINT", address)
    from tunewright.data.sources import open_data
    from tunewright.errors import TunewrightError
    answers = []
    for data, revision in ask:
        try:
            splits = open_data(data, revision=revision)
            rows = [[row.where, dict(row.values)] for row in splits.train.rows()]
            answers.append([splits.origin, splits.revision, rows, splits.validation and splits.validation.name])
        except TunewrightError as error:
            answers.append([type(error).__name__, str(error)])
print(json.dumps(answers))
"""

Ask = Callable[..., list[list[Any]]]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """Opens (id, revision) pairs on a hub that holds `files` as owner/films."""

    def asked(
        files: dict[str, str], *pairs: tuple[str, str | None], moves: bool = False, **environment: str
    ) -> list[list[Any]]:
        (tmp_path / "files").mkdir()
        for name, content in files.items():
            (tmp_path / "files" / name).write_text(content)
        clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, str(tmp_path / "files"), json.dumps(pairs), *["moves"] * moves],
            env={**clean, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": paths, **environment},
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)  # so nothing else was printed

    return asked


def test_a_hub_dataset_is_read_at_its_exact_commit(ask: Ask):
    files = {
        "train.jsonl": '{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n',
        "validation.jsonl": '{"text": "c"}\n',
    }
    good, pinned, revision, nothing, gated, busy = ask(
        files,
        ("owner/films", None),
        ("owner/films", COMMIT),
        ("owner/films", "v9"),
        ("owner/nothing", None),
        ("owner/gated", None),
        ("owner/busy", None),
    )
    rows = [["train:1", {"text": "a", "label": 1}], ["train:2", {"text": "b", "label": 0}]]
    assert good == pinned == ["owner/films", COMMIT, rows, "validation"]
    assert revision == ["DataError", 'owner/films: the Hub has this dataset, but no revision "v9"']
    assert nothing == ["DataError", "owner/nothing: neither a file here nor a dataset of the Hub that you may see"]
    assert gated[0] == busy[0] == "NetworkError"
    assert "log in" in gated[1]
    assert "the Hub refused" in busy[1]


def test_a_commit_made_meanwhile_does_not_matter(ask: Ask):
    ((_, commit, rows, *_),) = ask({"train.jsonl": '{"text": "a"}\n'}, ("owner/films", None), moves=True)
    assert (commit, rows) == (COMMIT, [["train:1", {"text": "a"}]])


def test_a_dataset_with_several_configurations(ask: Ask):
    configured = "configs:\n- {config_name: new, data_files: new.csv}\n- {config_name: old, data_files: old.csv}\n"
    files = {"README.md": f"---\n{configured}---\n", "new.csv": "text\na\n", "old.csv": "text\nb\n"}
    unnamed, wrong, named = ask(files, ("owner/films", None), ("owner/films:odl", None), ("owner/films:old", None))
    assert unnamed[0] == wrong[0] == "DataError"
    assert "give one as owner/name:configuration" in unnamed[1]
    assert "'old'" in unnamed[1]
    assert named[0] == "owner/films:old"


def test_a_dataset_that_is_no_data(ask: Ask):
    ((kind, message),) = ask({"train.jsonl": '{"text": \n'}, ("owner/films", None))
    assert kind == "DataError"
    assert "this dataset can't be read" in message


@pytest.mark.parametrize("environment", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}])
def test_a_hub_that_is_away(ask: Ask, environment: dict[str, str]):
    ((kind, message),) = ask({}, ("owner/films", None), **environment)
    assert kind == "NetworkError"
    assert "the Hub can't be reached, and there is no such file here" in message


def test_a_full_disk_is_no_network_error():
    assert isinstance(_explain(OSError(28, "No space left on device"), "a/b", None), MachineError)


def test_what_could_be_a_hub_id():
    assert all(is_hub_id(name) for name in ["stanfordnlp/imdb", "nyu-mll/glue:sst2", "a/b.c_d"])
    assert not any(
        is_hub_id(name) for name in ["imdb", "a/b/c", "./a", "/a/b", "../a", "a/..", "a/b:", "~/a", "a b/c", ""]
    )
