"""Push, load by Hub id, predict: the real client against a hub on this machine; and every way it can be refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.evaluation.fake_run import make_run
from tests.models.made import make
from tests.serving.loopback_hub import CONTESTED, Store, model_hub
from tests.serving.test_card import change
from tunewright.errors import ModelError, NetworkError
from tunewright.models.saving import save_model
from tunewright.serving.hub import push

TOKEN = "hf_secret_that_must_not_leak"
TEXTS = ["a good film", "the plot was dull", "really"]
PLANTED = ("optimizer.pt", "training_args.bin", "weights.pkl", ".hidden.json~")


def client(address: str, home: Path, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What came of each job, in a process that knows only this hub and has never downloaded anything."""
    environment = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    environment |= {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.serving.hub_client"],
        input=json.dumps(jobs), capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return json.loads(done.stdout.strip().split("\n")[-1])


class Pushed:
    """A base on a hub, an adapter and a whole model wrapped on it by its Hub id, and all that was then asked."""

    def __init__(self, address: str, store: Store, work: Path):
        self.store, self.work = store, work
        store.create("owner/base", private=False)
        base = tiny.save("bert", work / "base")
        self.base_commit = store.commit("owner/base", "main", {p.name: p.read_bytes() for p in base.iterdir()})
        store.create("owner/open", private=False)
        self.runs = {
            method: make_run(work / method, names=("bad", "good", "so-so"), rows=30) for method in ("lora", "full")
        }
        recipe = f"model: owner/base  # given\ndata:\n  train: {work}/secret/reviews.jsonl  # given\n"
        for folder in self.runs.values():
            (folder / "recipe.resolved.yaml").write_text(recipe)
        self.sent = dict(zip(self._jobs, client(address, work / "home", list(self._jobs.values())), strict=True))
        reading = self._reading()
        self.read = dict(zip(reading, client(address, work / "fresh", list(reading.values())), strict=True))

    @property
    def _jobs(self) -> dict[str, dict[str, Any]]:
        lora, full = str(self.runs["lora"]), str(self.runs["full"])
        refused = {repo: {"do": "push", "folder": lora, "repo": f"owner/{repo}"} for repo in
                   ("gated", "busy", "nobody", "strange", "elsewhere", "contested", "open", "no//id")}  # fmt: skip
        wrapped = {
            f"wrap {method}": {
                "do": "wrap",
                "base": "owner/base",
                "folder": str(folder),
                "method": method,
                "plant": PLANTED,
            }
            for method, folder in self.runs.items()
        }
        return {
            **wrapped,
            "tuned": {"do": "push", "folder": lora, "repo": "owner/tuned"},
            "local": {"do": "predict", "model": f"{lora}/model", "texts": TEXTS},
            "local full": {"do": "predict", "model": f"{full}/model", "texts": TEXTS},
            "swap 1": {"do": "push", "folder": lora, "repo": "owner/swapped", "private": False},
            "swap 2": {"do": "push", "folder": full, "repo": "owner/swapped", "private": False},
            "branch": {"do": "push", "folder": lora, "repo": "owner/tuned", "revision": "second"},
            **refused,
            "unreachable": {"do": "push", "folder": lora, "repo": "owner/x", "endpoint": "http://127.0.0.1:9"},
            "strange token": {"do": "token", "value": "hf_sécret"},
            "with a strange token": {"do": "push", "folder": lora, "repo": "owner/x"},
            "no token": {"do": "token", "value": None},
            "without a token": {"do": "push", "folder": lora, "repo": "owner/x"},
        }

    def _reading(self) -> dict[str, dict[str, Any]]:
        return {
            "tuned": {"do": "predict", "model": "owner/tuned", "texts": TEXTS},
            "swapped": {"do": "predict", "model": "owner/swapped", "texts": TEXTS},
            "tuned code": {"do": "execute", "code": self.code("owner/tuned")},
            "swapped code": {"do": "execute", "code": self.code("owner/swapped")},
            "nothing": {"do": "predict", "model": "owner/nothing", "texts": TEXTS},
        }

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        return self.store.files(repo, revision) or {}

    def code(self, repo: str) -> str:
        """The quick start of a pushed card, on a text of ours."""
        found = re.search(r"```python\n(.*?)\n```", self.files(repo)["README.md"].decode(), re.DOTALL)
        return found[1].replace("It was good.", TEXTS[0]) if found else ""


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    with model_hub() as (address, store):
        yield Pushed(address, store, tmp_path_factory.mktemp("hub"))


@pytest.mark.parametrize(("repo", "local"), [("tuned", "local"), ("swapped", "local full")])
def test_push_load_predict(repo, local, pushed):
    here, there = pushed.sent[local]["value"], pushed.read[repo]["value"]
    for (ours, our_shares), (theirs, their_shares) in zip(here, there, strict=True):
        assert ours == theirs and our_shares == pytest.approx(their_shares, abs=1e-6)
    assert ours and our_shares != here[0][1]
    printed = pushed.read[f"{repo} code"]["value"]
    assert here[0][0] in printed and f"{here[0][1][here[0][0]]:.4f}"[:-1] in printed


def test_private_and_one_commit(pushed):
    assert pushed.sent["tuned"]["value"].endswith("/owner/tuned")
    assert pushed.store.private["owner/tuned"] and not pushed.store.private["owner/swapped"]
    assert len(pushed.store.branches["owner/tuned"]["main"]) == 2  # the Hub's own first one, and ours


def test_what_was_pushed(pushed):
    files = pushed.files("owner/tuned")
    assert set(files) == {
        ".gitattributes", "adapter_model.safetensors", "adapter_config.json", "config.json", "tokenizer.json",
        "tokenizer_config.json", "README.md", "recipe.resolved.yaml",
    }  # fmt: skip
    adapter = json.loads(files["adapter_config.json"])
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("owner/base", pushed.base_commit)
    everything = b"".join(content for name in pushed.store.branches for content in pushed.files(name).values())
    for secret in (TOKEN, str(pushed.work), "secret/"):
        assert secret.encode() not in everything
    assert b"train: reviews.jsonl  # given" in files["recipe.resolved.yaml"]
    assert b"base_model: owner/base" in files["README.md"]
    assert b"local_files_only" not in files["tokenizer_config.json"]
    assert json.loads(files["tokenizer_config.json"])["truncation_side"] == "left"


def test_a_whole_model_takes_the_place_of_an_adapter(pushed):
    files = pushed.files("owner/swapped")
    assert "model.safetensors" in files and not [name for name in files if name.startswith("adapter")]
    assert b"base_model_relation: finetune" in files["README.md"]


def test_a_branch_of_its_own(pushed):
    assert pushed.sent["branch"]["value"].endswith("/owner/tuned/tree/second")
    assert "adapter_model.safetensors" in pushed.files("owner/tuned", "second")


@pytest.mark.parametrize(
    ("job", "code", "words"),
    [
        ("gated", 6, 'refuses to write "owner/gated" (403); set HF_TOKEN'),
        ("nobody", 6, 'refuses to write "owner/nobody" (401); set HF_TOKEN'),
        ("busy", 6, "answers 503; try again later"),
        ("strange", 2, "refuses the name or the files"),
        ("elsewhere", 6, 'knows no "owner/elsewhere"'),
        ("contested", 6, "someone else meanwhile (409); push again"),
        ("open", 2, "already and public"),
        ("no//id", 2, "no Hub id; expected you/name"),
        ("unreachable", 6, "can't be reached (ConnectError); check the connection"),
        ("with a strange token", 6, "HF_TOKEN holds a character that no token has"),
        ("without a token", 6, "set HF_TOKEN"),
    ],
)
def test_refused_pushes(job, code, words, pushed):
    found = pushed.sent[job]
    assert found["code"] == code and words in found["line"] and "\n" not in found["line"]


def test_a_refused_push_leaves_nothing(pushed):
    assert set(pushed.files(CONTESTED)) == set(pushed.files("owner/open")) == {".gitattributes"}
    assert "owner/x" not in pushed.store.branches


def test_a_model_the_hub_does_not_have(pushed):
    assert pushed.read["nothing"]["code"] == 4 and 'no model "owner/nothing"' in pushed.read["nothing"]["line"]


def test_what_is_not_pushed(tmp_path):
    run = make_run(tmp_path / "run", rows=10)
    with pytest.raises(ModelError, match="no model to push"):
        push(run, "owner/x")
    made = make("bert", tmp_path)
    save_model(made.model, made.loaded.tokenizer, run / "model", base=made.base, labels=made.loaded.labels,
               max_length=32, truncate="left")  # fmt: skip
    with pytest.raises(ModelError, match=r"only exists on this machine.*export run --to merged first"):
        push(run, "owner/x")
    change(run, model={"path": made.base.path})
    with pytest.raises(NetworkError, match="HF_HUB_OFFLINE is set"):
        push(run, "owner/x")
    change(run, state="failed")
    with pytest.raises(ModelError, match="its state is failed"):
        push(run, "owner/x")
