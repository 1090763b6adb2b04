"""Push, load by Hub id, predict: the real client against a hub on this machine; and every way it can be refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import tunewright as tw
from tests import tiny
from tests.serving.loopback_hub import model_hub
from tunewright.errors import ModelError, NetworkError, UsageError

TOKEN = "hf_secret_that_must_not_leak"

# The client takes the hub's address at import, so whatever talks to the hub is a process of its own.
SCRIPT = """
import json, sys
from pathlib import Path
import tunewright as tw
from tunewright.errors import TunewrightError
from tunewright.runs import Run
from tunewright.serving.hub import push
what, *rest = sys.argv[1:]
try:
    if what == "push":
        print(push(Path(rest[0]), rest[1]))
    elif what == "predict":
        said = tw.load(rest[0], runs=rest[1]).predict(json.loads(rest[2]))
        print(json.dumps([p.probabilities for p in said]))
    elif what == "train":
        from tests import tiny
        run = tw.train(rest[0], tiny.sentences(24), validation=tiny.sentences(8, 1), lora=2, name="hub", runs=rest[1],
                       prompts=["good film"], settings={"training.max_steps": 6, "training.learning_rate": 0.02})
        print(run.folder)
except TunewrightError as error:
    print(error.line())
    sys.exit(error.exit_code)
"""


def client(address: str, home, *arguments: str, token: str | None = TOKEN) -> tuple[int, str]:
    """Exit code and what was printed last, of a process that knows only this hub."""
    environment = {
        **{k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "HF_TOKEN", "TRANSFORMERS_OFFLINE")},
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "TUNEWRIGHT_CACHE": str(home / "tunewright"),
        **({"HF_TOKEN": token} if token else {}),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, *arguments], capture_output=True, text=True, env=environment, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return done.returncode, done.stdout.strip().split("\n")[-1]


@pytest.fixture(scope="module")
def hub():
    with model_hub() as (address, store):
        yield address, store


@pytest.fixture(scope="module")
def pushed(hub, tmp_path_factory):
    """A base model on the hub, an adapter trained on it by its Hub id, and that adapter pushed."""
    address, store = hub
    work = tmp_path_factory.mktemp("hub")
    base = tiny.save("bert", work / "base")
    store.files["owner/base"] = {p.name: p.read_bytes() for p in base.iterdir()}
    store.private["owner/base"], store.commits["owner/base"] = False, ["b" * 40]
    code, folder = client(address, work / "home", "train", "owner/base", str(work / "runs"))
    assert code == 0, folder
    code, line = client(address, work / "home", "push", folder, "owner/tuned")
    assert code == 0, line
    return address, store, work, folder


def test_push_load_predict(pushed):
    address, store, work, folder = pushed
    texts = json.dumps(["a good film", "the plot was dull", "really"])
    code, local = client(address, work / "home", "predict", folder, str(work), texts)
    assert code == 0
    code, remote = client(address, work / "fresh-home", "predict", "owner/tuned", str(work), texts)
    assert code == 0
    for ours, theirs in zip(json.loads(local), json.loads(remote), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)
    assert store.private["owner/tuned"]
    assert len(store.commits["owner/tuned"]) == 1


def test_what_was_pushed(pushed):
    _, store, work, folder = pushed
    files = store.files["owner/tuned"]
    assert {"adapter_model.safetensors", "adapter_config.json", "config.json", "tokenizer.json", "README.md"} <= set(files)
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl")) or "optimizer" in name]
    adapter = json.loads(files["adapter_config.json"])
    assert adapter["base_model_name_or_path"] == "owner/base"
    assert adapter["revision"] == "b" * 40
    everything = b"".join(files.values())
    assert TOKEN.encode() not in everything
    assert str(work).encode() not in everything.replace(str(work / "runs").encode(), b"")
    assert b"base_model: owner/base" in files["README.md"]
    summary = json.loads((work / "runs" / folder.rpartition("/")[2] / "run.json").read_text())
    assert summary["model"]["revision"] == "b" * 40


@pytest.mark.parametrize(
    ("repo", "code", "words"),
    [("owner/gated", 6, "(403); set HF_TOKEN"), ("owner/nobody", 6, "(401); set HF_TOKEN")],
)
def test_refused_pushes(pushed, repo, code, words):
    address, _, work, folder = pushed
    found, line = client(address, work / "home", "push", folder, repo)
    assert found == code and line.startswith("error[network]") and words in line


def test_push_without_a_token(pushed):
    address, _, work, folder = pushed
    found, line = client(address, work / "no-token", "push", folder, "owner/other", token=None)
    assert found == 6 and "HF_TOKEN" in line


def test_a_hub_that_is_not_there(pushed):
    _, _, work, folder = pushed
    code, line = client("http://127.0.0.1:9", work / "home", "push", folder, "owner/x")
    assert code == 6 and line.startswith("error[network]")
    code, line = client("http://127.0.0.1:9", work / "empty-home", "predict", "owner/never-seen", str(work), "[]")
    assert code == 6 and "can't be reached" in line


def test_a_model_the_hub_does_not_have(pushed):
    address, _, work, _ = pushed
    code, line = client(address, work / "home", "predict", "owner/nothing", str(work), "[]")
    assert code == 4 and 'no model "owner/nothing"' in line


def test_an_adapter_on_a_local_base_is_not_pushed(tmp_path):
    from tunewright.serving.hub import push

    base = tiny.save("bert", tmp_path / "base")
    run = tw.train(
        str(base), tiny.sentences(16), validation=tiny.sentences(8, 1), lora=2, runs=tmp_path / "runs",
        settings={"training.max_steps": 1},
    )  # fmt: skip
    with pytest.raises(ModelError, match="folder of this machine.*--to merged"):
        push(run.folder, "owner/x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no model to push"):
        push(tmp_path / "empty", "owner/x")


def test_errors_are_the_tree():
    assert issubclass(NetworkError, tw.TunewrightError) and issubclass(UsageError, ValueError)
