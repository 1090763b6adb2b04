"""Whatever bytes a file holds, what comes out is data or one of our errors: never another exception, never a hang.

Hypothesis draws the bytes: noise, good files with bytes changed, cut or repeated, and JSON or YAML of the right form
with wrong values. The same draws every time, so that a build doesn't fail by chance; TUNEWRIGHT_FUZZ=5000 draws that
many new ones per test. What is found so becomes a case of tests/test_bad_*.py, or an `@example` here.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests import whole
from tests.feeding import call, rows
from tunewright.data.formats import EXTENSIONS
from tunewright.data.preparing import read
from tunewright.data.sources import open_data
from tunewright.errors import TunewrightError, UsageError
from tunewright.recipe import DataRecipe
from tunewright.recipe_files import build_recipe, dump, field_docs, load_recipe

FUZZ = int(os.environ.get("TUNEWRIGHT_FUZZ", "0"))


def draws(examples: int) -> settings:
    """How many, and that they are the same every time."""
    return settings(
        max_examples=FUZZ or examples, derandomize=not FUZZ, database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


# ---- what is drawn ----

JSON_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["", " ", "nan", "1e999", "-0", "../x", "/etc/passwd", "a" * 300, 10**30, 2**63, "\0", "\ud83d"])
)  # fmt: skip
JSON_VALUES = st.recursive(
    JSON_SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def good_files() -> dict[str, bytes]:
    """A good file of each kind."""
    parquet = io.BytesIO()
    columns = {name: [row[name] for row in rows(12)] for name in ("text", "label")}
    pyarrow.parquet.write_table(pyarrow.table(columns), parquet)
    lines = [json.dumps(row) for row in rows(12)]
    table = [f'"{row["text"]}",{row["label"]}' for row in rows(12)]
    return {
        "jsonl": "\n".join(lines).encode(),
        "json": ("[" + ",\n".join(lines) + "]").encode(),
        "csv": "\n".join(["text,label", *table]).encode(),
        "tsv": "\n".join(["text,label", *table]).replace(",", "\t").encode(),
        "parquet": parquet.getvalue(),
    }


GOOD = good_files()


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """The good bytes after a few accidents."""
    content = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 40))
        what = draw(st.sampled_from(["change", "cut", "remove", "repeat", "insert"]))
        if what == "change":
            content[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif what == "cut":
            del content[at:]
        elif what == "remove":
            del content[at : at + length]
        elif what == "repeat":
            content[at:at] = content[max(0, at - length) : at] * draw(st.integers(1, 3))
        else:
            content[at:at] = draw(
                st.binary(max_size=12) | st.sampled_from([b"\0", b"[" * 300, b'"', b"\r", b"\xff\xfe"])
            )
    return bytes(content)


ANY_FILE = (
    st.binary(max_size=200)
    | st.sampled_from(sorted(GOOD)).flatmap(lambda kind: damaged(GOOD[kind]))
    | st.sampled_from(sorted(GOOD)).flatmap(lambda kind: damaged(gzip.compress(GOOD[kind])))
    | st.text(alphabet='{}[]",:\n\r\t \\aue0.-\ufeff\u2028', max_size=60).map(lambda text: text.encode())
)


@contextlib.contextmanager
def only_our_errors():
    """Everything else, a warning of a library too, fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            yield
        except TunewrightError as error:
            line = error.line()
            assert line.startswith("error[") and line.isprintable() and len(line) < 2_000, line


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# ---- data ----


@pytest.mark.parametrize("suffix", [*EXTENSIONS, ".csv.gz", ".txt", ""])
@draws(60)
@given(content=ANY_FILE)
@example(content=b"")
@example(content=b"\x1f\x8b")
@example(content=b"[")
@example(content=b"\xef\xbb\xbf{")
@example(content=b"PAR1PAR1")
@example(content=b'{"text": "a", "label": 1e999}\n{"text": "b", "label": 2}\n{"text": "c", "label": 3}\n')
def test_any_bytes_as_data(suffix: str, content: bytes, tmp_path_factory: pytest.TempPathFactory):
    path = put(folder(tmp_path_factory) / f"data{suffix}", content)
    with only_our_errors():
        read(open_data(path), DataRecipe(train=str(path)), seed=0)


@draws(200)
@given(
    records=st.lists(
        st.dictionaries(st.sampled_from(["text", "label", "id", ""]), JSON_VALUES, max_size=3), max_size=6
    ),
    labels=st.sampled_from(["auto", "number", ["a", "b"], {"0": "a", "1": "b"}]),
)
def test_any_values_as_rows(records: list[dict[str, Any]], labels: Any):
    with only_our_errors():
        read(open_data(records), DataRecipe(train="(in memory)", labels=labels), seed=0)


# ---- recipes ----

GOOD_RECIPE = dump(build_recipe({"data": {"train": "a.jsonl"}})).encode()
PATHS = [doc.path for doc in field_docs()]


@draws(300)
@given(
    content=st.binary(max_size=120)
    | damaged(GOOD_RECIPE)
    | st.text(alphabet="a:[]{}-&*!|>\n\t '\"#%@?,0", max_size=60).map(str.encode)
)
@example(content=b"\xff\xfed\x00a\x00")
@example(content=b"data: {train: 2024-13-45}")
@example(content=b"data: {train: a}\nname: 1:99:99\n")
@example(content=b"? !!set {a}\n: b")
@example(content=b"!!python/object/apply:os.system [echo]")
@example(content=b"<<: {data: {train: a}}")
@example(content=b"<<: [a]")
@example(content=b"a: !!binary '*'")
@example(content=b"a: !!int ''")
@example(content=b"a: !!float 'x'")
@example(content=b"a: !!timestamp 'x'")
@example(content=b"a: !!omap [1]")
@example(content=b"a: !!pairs [1]")
def test_any_bytes_as_a_recipe(content: bytes, tmp_path_factory: pytest.TempPathFactory):
    with only_our_errors():
        load_recipe(put(folder(tmp_path_factory) / "job.yaml", content))


@draws(300)
@given(path=st.sampled_from(PATHS), value=JSON_VALUES)
def test_any_value_of_a_setting(path: str, value: Any):
    part, _, name = path.rpartition(".")
    values: dict[str, Any] = {"data": {"train": "a.jsonl"}}
    inner = values.setdefault(part, {}) if part else values
    inner[name] = value
    with only_our_errors():
        yaml.safe_load(dump(build_recipe(values)))


@draws(200)
@given(override=st.text(max_size=30) | st.tuples(st.sampled_from(PATHS), st.text(max_size=30)).map("=".join))
@example(override="training.epochs=!!python/name:os.system")
@example(override="data.train=!!timestamp 'x'")
@example(override="name=*a")
def test_any_override(override: str):
    with only_our_errors():
        build_recipe({"data": {"train": "a.jsonl"}}, [override])


# ---- what a run left ----


def replaced(good: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """The good object with some values, at any depth, replaced or left out."""

    @st.composite
    def one(draw: st.DrawFn) -> bytes:
        made = json.loads(json.dumps(good))
        for _ in range(draw(st.integers(1, 3))):
            inner = made
            while True:
                key = draw(st.sampled_from(sorted(inner)))
                if isinstance(inner[key], dict) and inner[key] and draw(st.booleans()):
                    inner = inner[key]
                    continue
                break
            if draw(st.booleans()):
                inner[key] = draw(JSON_VALUES)
            else:
                del inner[key]
            if not made:
                break
        return json.dumps(made).encode()

    return one()


def any_json(good: bytes) -> st.SearchStrategy[bytes]:
    value = json.loads(good)
    assert isinstance(value, dict)
    return st.binary(max_size=60) | damaged(good) | replaced(value) | JSON_VALUES.map(lambda v: json.dumps(v).encode())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that may be spoilt."""
    there = tmp_path_factory.mktemp("any") / "runs" / ANY
    shutil.copytree(whole.finished().folder, there)
    return there


def spoilt(path: Path, content: bytes) -> contextlib.AbstractContextManager[Path]:
    """The file with other content for a while."""

    @contextlib.contextmanager
    def replace():
        good = path.read_bytes()
        path.write_bytes(content)
        try:
            yield path
        finally:
            path.write_bytes(good)

    return replace()


def draw_for(path: Path, examples: int, check: Callable[[], None]) -> None:
    """Run the check with many contents of the file."""

    @draws(examples)
    @given(content=any_json(path.read_bytes()))
    def each(content: bytes) -> None:
        with spoilt(path, content):
            check()

    each()


ANY = "20260101-0101-any"
COMMANDS = [
    ("runs", "ls"), ("runs", "show", ANY), ("report", ANY), ("compare", ANY, ANY), ("evaluate", ANY),
    ("train", "--resume", ANY), ("push", ANY, "a/b"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_any_run_json(command: tuple[str, ...], run: Path, monkeypatch: pytest.MonkeyPatch):
    # Neither trains nor uploads: what comes after run.json was read is not the matter here.
    monkeypatch.setattr("tunewright.stages.read_data", _goes_no_further)
    monkeypatch.setattr("tunewright.serving.hub.push", lambda *_, **__: "https://example.invalid")
    assert "error[" not in call(*command, "--runs", str(run.parent)).err or command[0] == "train"

    def check() -> None:
        for more in ((), ("--json",)):
            outcome = call(*command, "--runs", str(run.parent), *more)
            assert outcome.code != 1 and "error[bug]" not in outcome.err, outcome.err
            assert len(outcome.errors) == (outcome.code != 0), outcome

    draw_for(run / "run.json", 40, check)


def _goes_no_further(*_: object) -> None:
    raise UsageError("far enough")


@pytest.mark.parametrize("name", ["manifest.json", "state.json"])
def test_any_checkpoint(name: str, run: Path):
    from tunewright.learning.checkpoints import CheckpointStore, verify

    newest = max((run / "checkpoints").glob("step-*"))
    manifest = json.loads((newest / "manifest.json").read_text())
    store = CheckpointStore(run / "checkpoints", json.loads((newest / "state.json").read_text())["identity"], 2)

    def check() -> None:
        with only_our_errors():
            verify(newest)
        with only_our_errors():
            found, _ = store.newest()
            if found is not None:
                store.check_identity(found)
        if name == "state.json":  # whoever changes it may change the manifest too
            import hashlib

            content = (newest / name).read_bytes()
            entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            with spoilt(newest / "manifest.json", json.dumps(manifest | {name: entry}).encode()), only_our_errors():
                found, _ = store.newest()
                if found is not None:
                    store.check_identity(found)

    draw_for(newest / name, 80, check)


@pytest.mark.parametrize("name", ["adapter_config.json", "config.json", "tokenizer_config.json"])
def test_any_model_folder(name: str, run: Path):
    from tunewright.models.loading import load_saved

    model = run / "model"
    if not (model / name).exists():
        pytest.skip(f"no {name}")

    def check() -> None:
        try:
            load_saved(model)
        except TunewrightError as error:
            assert error.line().isprintable()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of what it doesn't know
        draw_for(model / name, 60, check)


def folder(factory: pytest.TempPathFactory) -> Path:
    """One folder for all draws of a test: making thousands costs more than the test."""
    there = factory.getbasetemp() / f"bytes-{os.getpid()}"
    there.mkdir(exist_ok=True)
    return there
