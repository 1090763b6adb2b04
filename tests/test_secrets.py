"""No secret of the environment in anything that a run, a report, an export, a push or a failure writes or prints."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests import whole
from tunewright.serving.card import model_card

# In the shapes that their services use, with a middle that nothing else in the world has.
PLANTED = {
    "HF_TOKEN": "hf_CanaryCanaryCanaryCanaryCanary01",
    "HUGGING_FACE_HUB_TOKEN": "hf_CanaryCanaryCanaryCanaryCanary02",
    "WANDB_API_KEY": "canary03canary03canary03canary03canary03",
    "OPENAI_API_KEY": "sk-proj-canary04canary04canary04canary04",
    "ANTHROPIC_API_KEY": "sk-ant-canary05canary05canary05canary05",
    "AWS_SECRET_ACCESS_KEY": "Canary06/Canary06/Canary06/Canary06/Can",
    "AWS_ACCESS_KEY_ID": "AKIACANARY07CANARY07",
    "GITHUB_TOKEN": "ghp_canary08canary08canary08canary08cana",
    "DATABASE_URL": "postgres://me:canary09canary09@db.example/x",
    "MY_PASSWORD": "canary10canary10canary10",
    "HTTPS_PROXY": "http://me:canary11canary11@127.0.0.1:9",
    "HF_ENDPOINT": "http://me:canary12canary12@127.0.0.1:9",
}
NEEDLES = [b"canary", b"Canary", b"CANARY"]


def run(folder: Path, *words: str, code: int = 0, **more: str) -> str:
    """The command in a process of its own, all it prints; HOME and temporary files lie in the folder too."""
    places = {"HOME": folder / "home", "TMPDIR": folder / "tmp", "TUNEWRIGHT_CACHE": folder / "cache"}
    for place in places.values():
        place.mkdir(exist_ok=True)
    environment = whole.child_environment() | PLANTED | {k: str(v) for k, v in places.items()} | more
    done = subprocess.run([whole.PYTHON, "-m", "tunewright", *words], cwd=folder, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def leaks(folder: Path) -> list[str]:
    """Every file with a needle in its bytes or its name."""
    found = []
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if any(needle in content or needle in os.fsencode(path.name) for needle in NEEDLES):
            found.append(str(path))
    return found


def test_nothing_of_the_environment_is_written(tmp_path: Path):
    said = run(tmp_path, *whole.train_command(Path("runs"), "--name", "first"))
    said += run(tmp_path, "report", "latest", "-o", "report.html")
    said += run(tmp_path, "export", "latest", "--to", "merged", "-o", "merged")
    said += run(tmp_path, "predict", "latest", "-i", str(whole.data_file()), "-o", "out.jsonl")
    assert not any(needle.decode() in said for needle in NEEDLES)
    assert leaks(tmp_path) == []
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 25 and any(path.name == "log.txt" or path.suffix == ".html" for path in written)
    (folder,) = (tmp_path / "runs").iterdir()
    assert "anary" not in model_card(folder)
    assert "environ" not in json.loads((folder / "environment.json").read_text())


@pytest.mark.parametrize("token", ["hf_Canary01\nX: y", "hf_Canary\u00e902"])
def test_failures_quote_no_token(token: str, tmp_path: Path):
    """Libraries quote headers in what they raise; we pass on none of it. Online, so that the header is made."""
    more = {"HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HTTPS_PROXY": "", "HF_ENDPOINT": "http://127.0.0.1:9"}
    data = str(whole.data_file())
    said = run(tmp_path, "train", data, "--model", "owner/never", code=6, **more)
    odd = not token.isascii()  # the library that reads datasets calls it a bad value
    said += run(tmp_path, "train", "owner/never", "--model", str(whole.base()), code=3 if odd else 6, **more)
    assert "anary" not in said and said.count("error[") == 2, said
    assert leaks(tmp_path) == []


def test_an_address_with_a_password_is_not_repeated(tmp_path: Path):
    """HF_ENDPOINT may hold one; the sentence about a Hub that is away doesn't name it."""
    data = str(whole.data_file())
    said = run(tmp_path, "train", data, "--model", "owner/never", code=6, HF_HUB_OFFLINE="0", HTTPS_PROXY="")
    said += run(tmp_path, "train", "owner/never", "--model", str(whole.base()), code=6, HF_HUB_OFFLINE="0", HTTPS_PROXY="")  # fmt: skip  # noqa: E501
    assert "anary" not in said, said
    assert leaks(tmp_path) == []
