"""Every attack that worked on a peer, through every door by which a path comes in: no canary ever sings.

A canary is a file that a stranger's code would make, or a file of ours that it would change. Each attack is also
refused by name, or ignored and said, so that a test fails when its guard is taken away even where a library saves us.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests import tiny, whole
from tests.models.made import LABELS, make
from tunewright.cli import app
from tunewright.data.sources import open_data
from tunewright.errors import ModelError, TunewrightError
from tunewright.library import load, train
from tunewright.models.loading import load_base, resolve_base
from tunewright.models.saving import save_model
from tunewright.runs import find_run
from tunewright.serving.export import export
from tunewright.serving.hub import push

Change = Callable[[Path, Path], Any]  # (folder, canary)


class Bomb:
    """A pickle that writes the canary when it is opened."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (open, (str(self.canary), "w"))


def bomb(name: str) -> Change:
    return lambda folder, canary: (folder / name).write_bytes(pickle.dumps(Bomb(canary)))


def only_bomb(name: str) -> Change:
    def change(folder: Path, canary: Path) -> None:
        for path in folder.glob("*.safetensors"):
            path.unlink()
        bomb(name)(folder, canary)

    return change


def script(folder: Path, canary: Path, name: str = "own.py") -> None:
    classes = "\n".join(f"class {n}: pass" for n in ("Config", "Model", "Tokenizer"))
    (folder / name).write_text(f"open({str(canary)!r}, 'w').close()\n{classes}\n")


def settings(file: str = "config.json", *, scripted: bool = True, **changes: Any) -> Change:
    def change(folder: Path, canary: Path) -> None:
        path = folder / file
        body = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(body | changes))
        if scripted:
            script(folder, canary)

    return change


def link(name: str) -> Change:
    def change(folder: Path, canary: Path) -> None:
        secret = canary.with_name("secret.txt")
        secret.write_text("{}")
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(secret)

    return change


def header(length: int | None = None, **entry: Any) -> Change:
    def change(folder: Path, _: Path) -> None:
        text = json.dumps(entry.get("whole") or {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | entry})
        start = struct.pack("<Q", len(text) if length is None else length)
        (folder / "model.safetensors").write_bytes(start + text.encode() + b"\0" * 8)

    return change


def index(shard: str, *, keep: bool = False) -> Change:
    def change(folder: Path, canary: Path) -> None:
        weights = folder / "model.safetensors"
        if "/" in shard or not shard.endswith(".safetensors"):
            target = folder / shard
            if not keep and ".." in shard:
                shutil.copy(weights, target)
            elif not shard.endswith(".safetensors"):
                bomb(shard)(folder, canary)
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": shard}})
        )

    return change


def zipped(folder: Path, canary: Path) -> None:
    """What torch.save writes: a zip archive around a pickle."""
    with zipfile.ZipFile(folder / "model.safetensors", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb(canary)))


def tarred(folder: Path, canary: Path) -> None:
    with tarfile.open(folder / "model.safetensors", "w") as archive:
        entry = tarfile.TarInfo(f"../{canary.name}")
        archive.addfile(entry, io.BytesIO())


def fifo(name: str) -> Change:
    def change(folder: Path, _: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


def templates(folder: Path, canary: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "x y.jinja").write_text("{{ 1 }}")


CODE = {"AutoConfig": "own.Config", "AutoModel": "own.Model", "AutoModelForSequenceClassification": "own.Model"}
SSTI = "{{ cycler.__init__.__globals__.os.popen('touch CANARY').read() }}"
REFUSED: dict[str, tuple[Change, str]] = {
    **{f"only {n}": (only_bomb(n), "a pickle can run code when it is opened") for n in (
        "pytorch_model.bin", "model.pt", "model.pth", "model.pkl", "model.ckpt", "training_args.bin")},
    "auto_map, unknown type": (settings(model_type="own", auto_map=CODE), "never run here (own.py)"),
    "auto_map of another repository": (
        settings(model_type="own", auto_map={"AutoConfig": "owner/repo--own.Config"}), "owner/repo/own.py"),
    "nested auto_map": (settings(text_config={"model_type": "bert", "auto_map": CODE}), "text_config.auto_map"),
    "nested trust_remote_code": (settings(backbone={"trust_remote_code": True}), "backbone.trust_remote_code"),
    "attention from the Hub": (settings(_attn_implementation="owner/kernel"), "_attn_implementation"),
    "attention, without the dash": (settings(attn_implementation="owner/kernel:f"), "attn_implementation"),
    "attention, nested": (settings(text_config={"attn_implementation": {"": "owner/kernel"}}), "attn_implementation"),
    "attention, internal": (settings(_attn_implementation_internal="owner/kernel"), "_attn_implementation_internal"),
    "experts from the Hub": (settings(experts_implementation="owner/kernel"), "experts_implementation"),
    "another internal": (settings(_loader_internal={"a": 1}), "_loader_internal"),
    "custom_generate": (settings("generation_config.json", custom_generate="./own.py"), "custom_generate"),
    "custom_pipeline": (settings(custom_pipelines={"x": {"impl": "own.Model"}}), "custom_pipelines"),
    "another config by version": (
        lambda f, c: (settings("config.4.0.0.json", model_type="own", attn_implementation="a/b")(f, c),
                      settings(configuration_files=["config.4.0.0.json"])(f, c)), "config.4.0.0.json"),
    "weights by another name": (
        lambda f, c: (bomb("adapter_model.bin")(f, c), settings(transformers_weights="adapter_model.bin")(f, c)),
        "transformers_weights"),
    "weights elsewhere": (settings(transformers_weights="../other.safetensors"), "transformers_weights"),
    "a vocabulary elsewhere": (
        lambda f, c: settings("tokenizer_config.json", vocab_file=str(whole.ROOT / "pyproject.toml"))(f, c),
        "outside its folder"),
    "tokenizer auto_map": (
        lambda f, c: (settings("tokenizer_config.json", tokenizer_class="OwnTokenizer",
                               auto_map={"AutoTokenizer": ["own.Tokenizer", None]})(f, c),
                      settings(model_type="own")(f, c)), "never run here (own.py)"),
    "template named as a path": (
        settings("tokenizer_config.json", chat_template=[{"name": "../../x", "template": "{{ 1 }}"}]), "../../x"),
    "template file with an odd name": (templates, "a chat template called"),
    "giant template": (settings("tokenizer_config.json", chat_template="x" * 300_000), "300,000 bytes"),
    "giant template file": (lambda f, c: (f / "chat_template.jinja").write_text("x" * 300_000), "300,000 bytes"),
    "shard above the folder": (index("../model.safetensors"), "a shard outside its folder"),
    "shard at a path": (index("/etc/passwd", keep=True), "a shard outside its folder"),
    "shard that is a pickle": (index("shard.bin"), "no safetensors file"),
    "shard that is missing": (index("gone.safetensors"), "is missing"),
    "weights are a link": (link("model.safetensors"), "a symbolic link out of its folder"),
    "config is a link": (link("config.json"), "a symbolic link out of its folder"),
    "a text is a link": (link("notes.txt"), "a symbolic link out of its folder"),
    "templates are a link": (link("additional_chat_templates/a.jinja"), "a symbolic link out of its folder"),
    "config is a pipe": (fifo("config.json"), "is a pipe"),
    "weights are a pipe": (fifo("model.safetensors"), "is a pipe"),
    "header longer than the file": (header(5000), "claims 5,000 bytes, the file has"),
    "header of 100 MB": (header(100_000_001), "claims 100,000,001 bytes"),
    "header of 2^63": (header(2**63), "bytes; at most"),
    "overlap": (header(whole={n: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for n in "ab"}), "overlaps"),
    "hole": (header(data_offsets=[4, 8], shape=[1]), "leaves 4 bytes unused"),
    "tail": (header(data_offsets=[0, 4], shape=[1]), "the file has 8 for them"),
    "odd dtype": (header(dtype="PICKLE"), "unknown dtype PICKLE"),
    "odd shape": (header(shape=[-1, -2]), "no whole number"),
    "shape of another size": (header(shape=[2**40, 2**40]), "isn't what its shape needs"),
    "zip for weights": (zipped, "at most"),
    "tar for weights": (tarred, "at most"),
    "nested too deep": (lambda f, c: (f / "config.json").write_text("[" * 200_000), "nested too deep"),
}  # fmt: skip
IGNORED: dict[str, tuple[Change, str | None]] = {
    **{f"{n} beside safetensors": (bomb(n), None) for n in ("pytorch_model.bin", "optimizer.pt", "training_args.bin")},
    "auto_map, known type": (settings(auto_map=CODE), "config.json names Python code of its own (own.py)"),
    "tokenizer auto_map, known type": (
        settings("tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Tokenizer", None]}),
        "tokenizer_config.json"),
    "scripts": (lambda f, c: [script(f, c, n) for n in ("torch.py", "sitecustomize.py", "tokenizer.py")], None),
    "template that breaks out": (settings("tokenizer_config.json", chat_template=SSTI), None),
    "template that never ends": (
        settings("tokenizer_config.json", chat_template="{% for i in range(10**9) %}{% endfor %}"), None),
}  # fmt: skip


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nowhere before, nowhere after; transformers may ask what it likes, the answer is yes."""
    path = tmp_path / "CANARY"
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.chdir(tmp_path)
    yield path
    assert not path.exists(), "a stranger's code ran"
    assert not (tmp_path / "runs" / "CANARY").exists()


@cache
def clean(kind: str) -> Path:
    """A saved classifier, or an adapter with the tiny base beside it."""
    folder = whole.scratch() / f"canary-{kind}"
    made = make("bert", folder, "full" if kind == "whole" else "lora")
    save_model(made.model, made.loaded.tokenizer, folder / "model", base=made.base, labels=LABELS, max_length=32,
               truncate="left")  # fmt: skip
    return folder / "model"


def attacked(tmp_path: Path, change: Change, canary: Path, kind: str = "whole") -> Path:
    folder = tmp_path / "model"
    shutil.copytree(clean(kind), folder)
    if change is REFUSED["templates are a link"][0]:
        (folder / "additional_chat_templates").mkdir()
    change(folder, canary)
    return folder


def as_run(folder: Path) -> Path:
    """A finished run whose model this is."""
    run = folder.parent / "runs" / "theirs"
    run.mkdir(parents=True)
    shutil.copytree(folder, run / "model", symlinks=True, copy_function=_copy)
    (run / "run.json").write_text(json.dumps({"id": "theirs", "state": "succeeded", "name": "theirs"}))
    return run


def _copy(source: str, target: str) -> None:
    os.mkfifo(target) if Path(source).is_fifo() else shutil.copy2(source, target, follow_symlinks=False)


def adapter_on(folder: Path) -> Path:
    path = folder.parent / "adapter"
    shutil.copytree(clean("adapter"), path)
    settings("adapter_config.json", scripted=False, base_model_name_or_path=str(folder))(path, path)
    return path


DOORS: dict[str, Callable[[Path], Any]] = {
    "base model": lambda f: load_base(resolve_base(str(f)), LABELS, seed=0),
    "predict": lambda f: load(f),
    "an adapter's base": lambda f: load(adapter_on(f)),
    "run": lambda f: load("theirs", as_run(f).parent),
    "run as base": lambda f: load_base(resolve_base("run:theirs", runs=as_run(f).parent), LABELS, seed=0),
    "export": lambda f: export(as_run(f) / "model", "merged", f.parent / "exported"),
    "push": lambda f: push(as_run(f), "me/mine", endpoint="http://127.0.0.1:9"),
}


def test_the_bombs_are_live(tmp_path: Path):
    """Or the canaries would prove nothing."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "CANARY"))).close()
    assert (tmp_path / "CANARY").exists()
    script(tmp_path, tmp_path / "SECOND")
    exec(compile((tmp_path / "own.py").read_text(), "own.py", "exec"))
    assert (tmp_path / "SECOND").exists()


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("attack", REFUSED)
def test_refused(attack: str, door: str, tmp_path: Path, canary: Path):
    change, words = REFUSED[attack]
    folder = attacked(tmp_path, change, canary)
    with pytest.raises(ModelError) as caught:
        DOORS[door](folder)
    line = caught.value.line()
    assert words in line or (door.startswith(("run", "push")) and "symbolic link" in line), line
    assert len(line) < 700 and str(tmp_path) in line
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize("attack", IGNORED)
def test_ignored_and_said(attack: str, tmp_path: Path, canary: Path):
    change, words = IGNORED[attack]
    folder = attacked(tmp_path, change, canary)
    said = load_base(resolve_base(str(folder)), LABELS, seed=0).said
    assert words is None or any(words in sentence for sentence in said), said
    assert load(folder).predict(["a really good film"])
    exported = export(as_run(folder) / "model", "merged", tmp_path / "exported")
    assert not [p.name for p in exported.iterdir() if p.suffix in (".py", ".bin", ".pt")]  # a pickle isn't passed on


@pytest.mark.parametrize("attack", ["only pytorch_model.bin", "nested auto_map", "weights are a link", "overlap"])
def test_the_command_says_it_in_one_line(attack: str, tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]):
    folder = attacked(tmp_path, REFUSED[attack][0], canary)
    runs = tmp_path / "runs"
    commands = [
        [*whole.train_command(runs, "--quiet"), "--model", str(folder)],
        ["predict", str(folder), "-i", str(whole.data_file()), "-o", str(tmp_path / "out.jsonl")],
    ]
    for command in commands:
        assert app.main(command) == 4
        error = capsys.readouterr().err
        assert error.count("error[model]") == 1 and "Traceback" not in error
    assert not (tmp_path / "out.jsonl").exists()


# ---- adapters ----


def based_on(base: str, **changes: Any) -> Change:
    return settings("adapter_config.json", base_model_name_or_path=base, **changes)


PROMPT = {"prompt_tuning_init_state_dict_path": str(whole.ROOT / "pyproject.toml")}
ADAPTERS: dict[str, tuple[Change, str]] = {
    "only a pickle": (only_bomb("adapter_model.bin"), "no adapter_model.safetensors here, only adapter_model.bin"),
    "weights are a link": (link("adapter_model.safetensors"), "a symbolic link out of its folder"),
    "a base above": (based_on("../model"), "no path that an adapter may"),
    "a base at home": (based_on("~/model"), "no path that an adapter may"),
    "a base with a NUL": (based_on("a\0b"), "no path that an adapter may"),
    "a base behind an address": (
        based_on("https://evil.example/x"), "neither a folder nor a Hub id"),
    "a revision that is a path": (
        based_on("owner/name", revision="../../x"), "no branch, tag"),
    "a module to import": (
        settings("adapter_config.json", megatron_config={"a": 1}, megatron_core="own"), "megatron_config"),
    "other adapters": (settings("adapter_config.json", peft_type="XLORA", adapters={"0": "own"}), "XLORA adapters"),
    "another model": (settings("adapter_config.json", peft_type="SHADOW", shadow_model="a/b"), "SHADOW adapters"),
    "a prompt's pickle": (settings("adapter_config.json", **PROMPT), "outside its folder"),
    "auto_map": (settings("config.json", model_type="own", auto_map=CODE), "never run here (own.py)"),
}  # fmt: skip


@pytest.mark.parametrize("door", [d for d in DOORS if d != "an adapter's base"])
@pytest.mark.parametrize("attack", ADAPTERS)
def test_adapters(attack: str, door: str, tmp_path: Path, canary: Path):
    if door == "push" and attack.startswith(("a base", "a revision", "other", "another")):
        pytest.skip("nothing is loaded")
    change, words = ADAPTERS[attack]
    folder = attacked(tmp_path, change, canary, "adapter")
    with pytest.raises(TunewrightError) as caught:
        DOORS[door](folder)
    line = caught.value.line()
    assert caught.value.exit_code == 4, line
    assert words in line or "symbolic link" in line, line


def test_adapters_in_a_circle(tmp_path: Path, canary: Path):
    folder = attacked(tmp_path, lambda f, c: None, canary, "adapter")
    other = adapter_on(folder)
    settings("adapter_config.json", scripted=False, base_model_name_or_path=str(other))(folder, canary)
    for door in ("base model", "predict"):
        with pytest.raises(ModelError, match="in a circle"):
            DOORS[door](folder)


def test_an_import_that_peft_never_does_for_us(tmp_path: Path, canary: Path):
    asked = settings("adapter_config.json", auto_mapping={"base_model_class": "Model", "parent_library": "own"})
    folder = attacked(tmp_path, asked, canary, "adapter")
    assert load(folder).predict(["a really good film"])


# ---- run folders and checkpoints ----


def planted(name: str) -> Change:
    """A link at a name that we write: what it leads to would be overwritten, or gain lines of a stranger's choice."""

    def change(run: Path, canary: Path) -> None:
        victim = canary.with_name("bashrc")
        victim.write_text("mine")
        (run / name).parent.mkdir(exist_ok=True, parents=True)
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(victim)

    return change


RUNS: dict[str, Change] = {
    **{f"link at {n}": planted(n) for n in (
        "events.jsonl", "metrics.jsonl", ".report.html.writing", ".run.json.writing", "recipe.resolved.yaml",
        "report.html", "untrained.safetensors", "log.txt", "lock", "checkpoints/step-000001/weights.safetensors",
        "checkpoints/step-000001/manifest.json", "predictions/validation.jsonl")},
    "checkpoints elsewhere": lambda run, c: (shutil.rmtree(run / "checkpoints", ignore_errors=True),
                                             (run / "checkpoints").symlink_to(run.parent.parent)),
    "pipe": lambda run, c: fifo("metrics.jsonl")(run, c),
}  # fmt: skip
RUN_DOORS: dict[str, list[str]] = {
    "predict": ["predict", "theirs", "-i", "DATA", "-o", "out.jsonl"],
    "a checkpoint": ["predict", "theirs:step-1", "-i", "DATA", "-o", "out.jsonl"],
    "resume": ["train", "--resume", "theirs"],
    "report": ["report", "theirs"],
    "export": ["export", "theirs", "--to", "merged", "-o", "exported"],
    "push": ["push", "theirs", "me/mine"],
    "evaluate": ["evaluate", "theirs", "--data", "DATA"],
    "show": ["runs", "show", "theirs"],
}


@pytest.mark.parametrize("attack", RUNS)
def test_run_folders(attack: str, tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]):
    run = as_run(attacked(tmp_path, lambda f, c: None, canary))
    RUNS[attack](run, canary)
    for door, words in RUN_DOORS.items():
        code = app.main([str(whole.data_file()) if word == "DATA" else word for word in words])
        error = capsys.readouterr().err
        assert code == 4 and ("symbolic link" in error or "is a pipe" in error), (door, code, error)
        assert error.count("error[") == 1
    victim = tmp_path / "bashrc"
    assert not victim.exists() or victim.read_text() == "mine"
    assert not (tmp_path / "exported").exists() and not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "weights.bin", "rng_state.pth", "training_args.bin"])
def test_checkpoints_hold_no_pickle(name: str, tmp_path: Path, canary: Path):
    """As Hugging Face's Trainer keeps them (CVE-2026-1839): what isn't ours isn't a checkpoint."""
    run = as_run(attacked(tmp_path, lambda f, c: None, canary))
    shutil.copy(whole.finished().folder / "recipe.yaml", run)
    (run / "run.json").write_text(json.dumps({"id": "theirs", "state": "interrupted", "name": "theirs"}))
    checkpoint = run / "checkpoints" / "step-000001"
    checkpoint.mkdir(parents=True)
    bomb(name)(checkpoint, canary)
    (checkpoint / "manifest.json").write_text(json.dumps({name: {"bytes": 1, "sha256": ""}}))
    with pytest.raises(ModelError, match="checkpoint is damaged"):
        find_run("theirs:step-1", run.parent).weights  # noqa: B018
    with pytest.raises(ModelError):
        load("theirs:step-1", run.parent)
    try:  # with none that can be trusted it refuses, or begins again; it opens nothing
        train(resume="theirs", runs=run.parent, settings={"training.max_steps": 1})
    except TunewrightError as error:
        assert "Traceback" not in error.line()


# ---- data and recipes ----


def pickled(name: str) -> Change:
    return lambda folder, canary: bomb(name)(folder, canary)


def archive(name: str) -> Change:
    def change(folder: Path, canary: Path) -> None:
        with zipfile.ZipFile(folder / name, "w") as made:
            made.writestr(f"../../{canary.name}", "x")

    return change


DATA: dict[str, tuple[Change, str]] = {
    "only a pickle": (pickled("train.pkl"), "a pickle, which is never opened"),
    "only a script": (lambda f, c: script(f, c, "dataset.py"), "a script, which is never run"),
    **{f"a pickle named {n}": (pickled(n), "") for n in ("train.jsonl", "train.csv", "train.parquet", "train.json")},
    "a zip named jsonl": (archive("train.jsonl"), "zip archive"),
    "a zip named parquet": (archive("train.parquet"), "zip archive"),
    "a link": (link("train.jsonl"), "a symbolic link out of its folder"),
    "a pipe": (fifo("train.jsonl"), "is a pipe"),
}


@pytest.mark.parametrize("attack", DATA)
def test_data(attack: str, tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]):
    change, words = DATA[attack]
    (tmp_path / "data").mkdir()
    change(tmp_path / "data", canary)
    with pytest.raises(TunewrightError) as caught:
        list(open_data(tmp_path / "data").train.rows())
    assert caught.value.exit_code == 3 and words in caught.value.line()
    for given in (tmp_path / "data", *(p for p in (tmp_path / "data").iterdir() if not p.is_symlink())):
        assert app.main(["train", str(given), "--model", str(whole.base()), "--runs", "runs"]) == 3, given
        assert capsys.readouterr().err.count("error[data]") == 1


def test_a_recipe_makes_no_objects(tmp_path: Path, canary: Path, capsys: pytest.CaptureFixture[str]):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"task: !!python/object/apply:builtins.open ['{canary}', 'w']\n")
    assert app.main(["train", str(recipe)]) == 2
    assert capsys.readouterr().err.count("error[recipe]") == 1


def test_names_are_no_shell(tmp_path: Path, canary: Path):
    """CVE-2024-52803: a name went through a shell. Here it is refused, or it is a name."""
    rows = tiny.sentences(8)
    with pytest.raises(TunewrightError):
        train(str(whole.base()), rows, name=f"x; touch {canary}", runs=tmp_path / "runs")
