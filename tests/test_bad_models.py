"""Model folders and adapters that can't be used: exit 4 or 6, one `error[` line with file and cure, no debris.

Numbers are those of the catalogue of bad inputs. Not here: 89 (chat data), 95 (merging into a quantised base) and 96
(GGUF) belong to tasks that aren't built; 98 is a matter of devices, in test_runtime.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from tests import tiny, whole
from tests.models.made import LABELS, make
from tunewright.cli import app
from tunewright.models.saving import save_model

Change = Callable[[Path], Any]


def body(file: str = "config.json", **changes: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def text(file: str, content: str) -> Change:
    return lambda folder: (folder / file).write_text(content)


def tensors(file: str, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    return lambda folder: save_file(edit(load_file(folder / file)), folder / file)


def renamed(old: str, new: str) -> Change:
    return lambda folder: (folder / old).rename(folder / new)


def sharded(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, kept in parts.items():
        save_file({name: weights[name] for name in kept}, folder / file, metadata={"format": "pt"})
    where = {name: file for file, kept in parts.items() for name in kept}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def after_sharding(change: Change) -> Change:
    return lambda folder: (sharded(folder), change(folder))


def on_a_narrow_base(folder: Path) -> None:
    config = tiny.config("bert")
    config.hidden_size, config.intermediate_size = 16, 32
    base = tiny.save("bert", folder.parent / "narrow")
    AutoModel.from_config(config).save_pretrained(base)
    body("adapter_config.json", base_model_name_or_path=str(base))(folder)
    (folder / "config.json").write_text((base / "config.json").read_text())
    body("config.json", id2label=LABELS.id2label, label2id=LABELS.label2id)(folder)


SHARD = "model-00002-of-00002.safetensors"
# number and name: (change, parts of the line)
MODELS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "83 config missing": (lambda f: (f / "config.json").unlink(), ("no config.json here",)),
    "83 config no JSON": (text("config.json", "{'a': 1}"), ("config.json can't be used", "line 1")),
    "83 config empty": (text("config.json", ""), ("config.json can't be used",)),
    "83 config a list": (text("config.json", "[]"), ("config.json can't be used",)),
    "83 unknown type": (body(model_type="brt"), ("config.json can't be used", "brt")),
    "83 no type": (body(model_type=None), ("config.json can't be used",)),
    "84 shard missing": (after_sharding(lambda f: (f / SHARD).unlink()), (SHARD, "is missing", "download")),
    "84 shard cut": (after_sharding(lambda f: os.truncate(f / SHARD, 3000)), (SHARD, "the file has", "download")),
    "84 shard of another": (
        after_sharding(tensors(SHARD, lambda t: dict(list(t.items())[1:]))), (SHARD, "doesn't hold")),
    "84 index no JSON": (after_sharding(text("model.safetensors.index.json", "{")), ("is no index of shards",)),
    "84 index empty": (
        after_sharding(text("model.safetensors.index.json", '{"weight_map": {}}')), ("is no index of shards",)),
    "85 weights empty": (text("model.safetensors", ""), ("model.safetensors", "0 bytes")),
    "85 weights are HTML": (text("model.safetensors", "<!doctype html>" * 9), ("model.safetensors", "can't be loaded")),
    "85 a Git LFS pointer": (
        text("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        ("model.safetensors", "git lfs pull")),
    "85 cut": (lambda f: os.truncate(f / "model.safetensors", 9000), ("model.safetensors", "the file has")),
    "86 only pickle": (renamed("model.safetensors", "pytorch_model.bin"), ("pytorch_model.bin", "convert")),
    "86 no weights": (lambda f: (f / "model.safetensors").unlink(), ("no .safetensors here",)),
    "87 remote code": (body(model_type="own", auto_map={"AutoConfig": "own.C"}), ("own.py", "never run", "choose")),
    "88 tokenizer missing": (
        lambda f: [(f / n).unlink() for n in ("tokenizer.json", "tokenizer_config.json")], ("no tokenizer here",)),
    "88 tokenizer torn": (text("tokenizer.json", "{"), ("tokenizer can't be loaded",)),
    "88 vocabulary larger than the embedding": (
        lambda f: (body(vocab_size=8)(f), tensors("model.safetensors", lambda t: {
            n: v[:8].clone() if n.endswith("word_embeddings.weight") else v for n, v in t.items()})(f)),
        ("tokenizer", "vocab", "8")),
    "80 a file, no folder": (
        lambda f: (shutil.rmtree(f), f.write_text("x")), ("no such folder",)),
    "80 nothing": (shutil.rmtree, ("no such folder",)),
    "90 weights of another shape": (body(hidden_size=64), ("the weights don't fit config.json",)),
}  # fmt: skip
ADAPTERS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "90 base gone": (body("adapter_config.json", base_model_name_or_path="/nowhere/base"), ("/nowhere/base is gone",)),
    "90 base of another shape": (on_a_narrow_base, ("adapter can't be loaded", "size mismatch")),
    "93 unknown kind": (body("adapter_config.json", peft_type="LORAA"), ("LORAA adapters", 'Did you mean "LORA"')),
    "93 no kind": (body("adapter_config.json", peft_type=None), ("None adapters can't be used",)),
    "92 matches nothing": (
        body("adapter_config.json", target_modules=["nope"]), ("adapter can't be loaded", "target_modules")),
    "94 weights missing": (
        tensors("adapter_model.safetensors", lambda t: {n: v for n, v in t.items() if "layer.0" not in n}),
        ("adapter_model.safetensors", "layer.0")),
    "94 weights nobody asked for": (
        tensors("adapter_model.safetensors", lambda t: {**t, "base_model.model.x.lora_A.weight": t[min(t)].clone()}),
        ("adapter_model.safetensors", "base_model.model.x.lora_A.weight")),
    "91 another rank": (body("adapter_config.json", r=3), ("adapter can't be loaded",)),
    "91 rank of nothing": (body("adapter_config.json", r=0), ("adapter can't be loaded",)),
    "91 rank in words": (body("adapter_config.json", r="four"), ("adapter can't be loaded",)),
    "97 head of another size": (
        body("config.json", id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1}, label_values=["a", "b"]),
        ("adapter can't be loaded",)),
    "86 only pickle": (renamed("adapter_model.safetensors", "adapter_model.bin"), ("adapter_model.bin", "pickle")),
}  # fmt: skip


@cache
def clean(kind: str) -> Path:
    folder = whole.scratch() / f"bad-{kind}"
    made = make("bert", folder, kind)
    save_model(made.model, made.loaded.tokenizer, folder / "model", base=made.base, labels=LABELS, max_length=32,
               truncate="left")  # fmt: skip
    return folder / "model"


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 4) -> str:
    """The single line of a command that fails."""
    begin = time.perf_counter()
    assert app.main(arguments) == code, capsys.readouterr()
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if "error[" in line]
    assert len(lines) == 1 and "Traceback" not in captured.err + captured.out, captured.err
    assert time.perf_counter() - begin < 20  # 5 on a machine with nothing else to do
    return lines[0]


@pytest.mark.parametrize("case", MODELS)
def test_models(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    change, parts = MODELS[case]
    folder = tmp_path / "model"
    shutil.copytree(clean("full"), folder)
    change(folder)
    line = refused([*whole.train_command(Path("runs")), "--model", str(folder)], capsys)
    assert all(part in line for part in (*parts, str(folder))), line
    assert not list(tmp_path.rglob("model.safetensors.tmp"))
    if folder.is_dir():
        line = refused(["predict", str(folder), "-i", str(whole.data_file()), "-o", "out.jsonl"], capsys)
        assert all(part in line for part in parts), line
    assert not Path("out.jsonl").exists()


@pytest.mark.parametrize("case", ADAPTERS)
def test_adapters(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    change, parts = ADAPTERS[case]
    folder = tmp_path / "adapter"
    shutil.copytree(clean("lora"), folder)
    change(folder)
    line = refused(["predict", str(folder), "-i", str(whole.data_file()), "-o", "out.jsonl"], capsys)
    assert all(part in line for part in parts), line
    assert not Path("out.jsonl").exists()


def test_names(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """81, 82: a Hub id that can't be reached; a name that is none."""
    monkeypatch.chdir(tmp_path)
    train = whole.train_command(Path("runs"))
    assert "can't be reached" in refused([*train, "--model", "owner/not-cached"], capsys, 6)
    assert "neither a folder nor a Hub id" in refused([*train, "--model", "no such thing"], capsys)
    assert "no finished run" in refused([*train, "--model", "run:none"], capsys)
    for name in ("run:", "run:../..", "run:/etc", "run:*"):
        assert "is no name of a run" in refused([*train, "--model", name], capsys)
    assert "no such folder" in refused([*train, "--model", "./models/x"], capsys)
