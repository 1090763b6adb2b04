"""The scan's parts against known answers: headers, names of files, settings, templates and what runs them."""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tests import tiny
from tunewright.errors import ModelError, TunewrightError
from tunewright.scanning import files, headers, settings, templates
from tunewright.scanning.models import copy_model, scan_model
from tunewright.scanning.templates import Renderer

# ---- headers ----


def written(folder: Path, body: Any, data: int = 8, *, length: int | None = None) -> Path:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + b"\0" * data)
    return path


def entry(begin: int = 0, end: int = 8, *, dtype: str = "F32", shape: Any = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


GOOD: dict[str, tuple[Any, int]] = {
    "one": ({"a": entry()}, 8),
    "with metadata": ({"__metadata__": {"format": "pt"}, "a": entry()}, 8),
    "in any order": ({"b": entry(8, 16), "a": entry(0, 8)}, 16),
    "a number": ({"a": entry(0, 4, shape=())}, 4),
    "nothing in it": ({"a": entry(0, 0, shape=(0, 5)), "b": entry()}, 8),
    "half bytes": ({"a": entry(0, 2, dtype="F4", shape=(4,))}, 2),
    "no tensor": ({}, 0),
}
BAD: dict[str, tuple[Any, int, str]] = {
    "a list": ([], 0, "no JSON object"),
    "no JSON": (b"{oops", 0, "no JSON"),
    "no UTF-8": (b'{"\xff": 1}', 0, "no UTF-8"),
    "a name twice": (b'{"a": 1, "a": 1}', 0, "names a tensor twice"),
    "deep": (b"[" * 100_000, 0, "nested too deep"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, 0, "no table of texts"),
    "no dtype": ({"a": {"shape": [2], "data_offsets": [0, 8]}}, 8, "lacks dtype, shape or data_offsets"),
    "three offsets": ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4, 8]}}, 8, "lacks dtype"),
    "a true shape": ({"a": entry(shape=(True, 2))}, 8, "no whole number"),
    "a fraction": ({"a": entry(shape=(2.0,))}, 8, "no whole number"),
    "backwards": ({"a": entry(8, 0)}, 8, "isn't what its shape needs"),
    "beyond the end": ({"a": entry(0, 16, shape=(4,))}, 8, "take 16 bytes, the file has 8"),
    "a gap at first": ({"a": entry(4, 12)}, 12, "leaves 4 bytes unused"),
    "one upon another": ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "overlaps"),
    "odd half bytes": ({"a": entry(0, 1, dtype="F4", shape=(1,))}, 1, "isn't what its shape needs"),
}


@pytest.mark.parametrize("case", GOOD)
def test_headers_that_are_right(case: str, tmp_path: Path):
    body, data = GOOD[case]
    path = written(tmp_path, body, data)
    assert headers.check_header(path) == set(body) - {"__metadata__"}
    if case != "half bytes":  # numpy has none
        with safe_open(path, framework="numpy") as file:
            assert set(file.keys()) == set(body) - {"__metadata__"}


@pytest.mark.parametrize("case", BAD)
def test_headers_that_are_wrong(case: str, tmp_path: Path):
    body, data, words = BAD[case]
    with pytest.raises(ModelError, match="weights can't be loaded") as caught:
        headers.check_header(written(tmp_path, body, data))
    assert words in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\1" + b"\0" * 7 + b"{", b"\xff" * 16])
def test_no_header_at_all(content: bytes, tmp_path: Path):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ModelError):
        headers.check_headers(tmp_path)


@examples(max_examples=200, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 400), st.integers(0, 255))
def test_what_the_library_refuses_is_refused(tmp_path_factory, noise: bytes, place: int, byte: int):
    """A real file with bytes changed: ours never passes what safetensors itself calls invalid."""
    path = tmp_path_factory.getbasetemp() / "fuzzed.safetensors"
    save_file({"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.int64)}, path)
    content = bytearray(path.read_bytes())
    content[place % len(content)] = byte
    at = place * 7 % len(content)
    content[at : at + len(noise) % 5] = noise[:5]
    path.write_bytes(content)
    try:
        with safe_open(path, framework="numpy") as file:
            valid = len(file.keys()) >= 0
    except (SafetensorError, OSError):
        valid = False
    try:
        headers.check_header(path)
        ours = True
    except ModelError:
        ours = False
    assert valid or not ours


# ---- files ----


def test_links_of_the_hub_cache(tmp_path: Path):
    """Into the repository's own blobs, and nowhere else; the cache may lie behind a link itself."""
    repo = tmp_path / "hub" / "models--owner--name"
    snapshot = repo / "snapshots" / "abc"
    other = tmp_path / "hub" / "models--owner--other" / "blobs"
    for folder in (snapshot / "data", repo / "blobs", other):
        folder.mkdir(parents=True)
    (repo / "blobs" / "1").write_text("{}")
    (other / "2").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/1")
    (snapshot / "data" / "train.jsonl").symlink_to("../../../blobs/1")
    (tmp_path / "link").symlink_to(tmp_path / "hub")
    for folder in (snapshot, tmp_path / "link" / "models--owner--name" / "snapshots" / "abc"):
        assert files.why_refused(folder / "config.json", folder) is None
        assert files.why_refused(folder / "data" / "train.jsonl", folder / "data") is None
    (snapshot / "vocab.txt").symlink_to("../../../models--owner--other/blobs/2")
    assert "out of its folder" in str(files.why_refused(snapshot / "vocab.txt", snapshot))
    (repo / "blobs" / "3").symlink_to("/etc/passwd")
    (snapshot / "notes.txt").symlink_to("../../blobs/3")
    assert "out of its folder" in str(files.why_refused(snapshot / "notes.txt", snapshot))


def test_a_folder_dressed_as_the_hub_cache(tmp_path: Path):
    """`blobs` that is a link to elsewhere holds nobody's blobs."""
    secret = tmp_path / "home"
    secret.mkdir()
    (secret / "id_rsa").write_text("mine")
    snapshot = tmp_path / "models--a--b" / "snapshots" / "c"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "blobs").symlink_to(secret)
    (snapshot / "notes.txt").symlink_to("../../blobs/id_rsa")
    assert files.why_refused(snapshot / "notes.txt", snapshot)


def test_links_within_a_folder_and_in_circles(tmp_path: Path):
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").symlink_to("a.json")
    (tmp_path / "c.json").symlink_to("c.json")
    (tmp_path / "d.json").symlink_to("nowhere")
    (tmp_path / "e.json").symlink_to("/dev/zero")
    assert files.why_refused(tmp_path / "b.json", tmp_path) is None
    for name in "cd":
        assert "leads nowhere" in str(files.why_refused(tmp_path / f"{name}.json", tmp_path))
    assert files.why_refused(tmp_path / "e.json", tmp_path)
    assert files.why_refused(tmp_path / "gone", tmp_path) is None  # as a temporary file of a run


# ---- settings ----


def scanned(tmp_path: Path, body: Any) -> list[str]:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(body))
    return settings.refuse_code(settings.read_json(path), path)


@pytest.mark.parametrize("body", [
    {"id2label": {"0": "auto_map"}, "label2id": {"auto_map": 0, "x_internal": 1, "trust_remote_code": 2}},
    {"trust_remote_code": False, "custom_generate": None, "auto_map": {}, "_attn_implementation": "sdpa"},
    {"_attn_implementation_autoset": True, "_attn_implementation_internal": None, "attn_implementation": "eager"},
    {"special_tokens_map_file": "/home/author/.cache/x", "tokenizer_file": None, "_name_or_path": "/home/author/m"},
    {"added_tokens_decoder": {"0": {"content": "custom_generate"}}, "vocab_file": "vocab.txt"},
    {"transformers_weights": "other.safetensors"},
    [], "text", None,
])  # fmt: skip
def test_settings_that_ask_for_nothing(body: Any, tmp_path: Path):
    assert scanned(tmp_path, body) == []


def test_depth_hides_nothing(tmp_path: Path):
    body: Any = {"attn_implementation": "a/b"}
    for i in range(300):
        body = [body] if i % 2 else {"x": body}
    with pytest.raises(ModelError, match="asks for code"):
        scanned(tmp_path, body)


def test_modules_of_an_auto_map(tmp_path: Path):
    assert scanned(tmp_path, {"auto_map": {"A": "own.A", "T": ["slow.T", None], "B": "me/repo--own.B"}}) == [
        "me/repo/own.py", "own.py", "slow.py",
    ]  # fmt: skip


def test_a_config_of_a_gigabyte_is_not_read(tmp_path: Path):
    with (tmp_path / "config.json").open("wb") as stream:
        stream.truncate(2**30)
    with pytest.raises(ModelError, match="more than"):
        settings.read_json(tmp_path / "config.json")


NAMES = ["config.json", "tokenizer_config.json", "adapter_config.json", "model.safetensors", "a.index.json", "a.jinja"]


@examples(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(NAMES))
def test_any_bytes_make_a_sentence(tmp_path_factory, content: bytes, name: str):
    folder = tmp_path_factory.mktemp("any")
    (folder / name).write_bytes(content)
    try:
        scan_model(folder)
    except TunewrightError as error:
        assert "\n" not in error.line()


# ---- whole folders ----


def test_honest_models_pass(tmp_path: Path):
    for kind in tiny.KINDS:
        assert scan_model(tiny.save(kind, tmp_path / kind)) == ()


def test_a_scan_is_quick(tmp_path: Path):
    """Headers, not tensors: a thousand layers in a blink."""
    save_file({f"layer.{i}.weight": np.zeros(4, np.float32) for i in range(20_000)}, tmp_path / "model.safetensors")
    begin = time.perf_counter()
    scan_model(tmp_path)
    assert time.perf_counter() - begin < 2


def test_copies_leave_strangers_behind(tmp_path: Path):
    folder = tiny.save("bert", tmp_path / "base")
    (folder / "own.py").touch()
    (folder / "pytorch_model.bin").touch()
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text("{{ 1 }}")
    copy_model(folder, tmp_path / "copy")
    names = {str(p.relative_to(tmp_path / "copy")) for p in (tmp_path / "copy").rglob("*") if p.is_file()}
    assert "additional_chat_templates/tool.jinja" in names and "model.safetensors" in names
    assert not names & {"own.py", "pytorch_model.bin"}


# ---- templates ----


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/b", "a\\b", "", ".hidden", "x" * 97, "a\0b", "а", "con:", "a b", 5, None]
)
def test_names_that_would_be_paths(name: Any, tmp_path: Path):
    with pytest.raises(ModelError, match="a chat template called"):
        templates.check_settings({"chat_template": [{"name": name, "template": ""}]}, tmp_path)


def test_shapes_of_templates(tmp_path: Path):
    for good in (None, "x", {"default": "x"}, [{"name": "tool_use", "template": "x"}]):
        templates.check_settings({"chat_template": good}, tmp_path)
    for bad in (5, [{"name": "a"}], [5], {"a": 5}, ["x"] * 100):
        with pytest.raises(ModelError):
            templates.check_settings({"chat_template": bad}, tmp_path)


CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content | trim + '<|im_end|>' }}\n"
    "{% if m.tools is defined %}{{ m.tools | tojson(indent=1) }}{% endif %}"
    "{% if loop.last %}{% continue %}{% endif %}{% generation %}<é>{% endgeneration %}{% endfor %}"
)
MESSAGES = [{"role": "user", "content": " <b>hé "}, {"role": "assistant", "content": "yes", "tools": {"a": ["<", 1]}}]


@pytest.fixture(scope="module")
def renderer():
    with Renderer(seconds=1.0) as made:
        yield made


def test_renders_as_transformers_does(renderer: Renderer):
    from transformers.utils.chat_template_utils import render_jinja_template

    expected, _ = render_jinja_template([MESSAGES], chat_template=CHATML)
    assert renderer.render(CHATML, {"messages": MESSAGES}) == expected[0]


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "{{ self.__init__.__globals__.__builtins__.open('CANARY', 'w') }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ ''|attr('__class__') }}",
    "{{ ('%s'|format)('x').__class__ }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{{ ({}|map(attribute='__class__')|list) }}{{ {'a': {}}|map(attribute='a.__class__')|list|first|upper }}",
    "{{ joiner.__call__.__globals__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{{ messages.append(1) }}",
    "{% set x = messages.pop() %}",
]
BOMBS = [
    "{% for i in range(10**9) %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 10**9 }}",
    "{{ 'a' * 10**12 }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ 'a' | center(10**9) }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ [0] * 10**9 }}",
    "{% set n = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
    "{% for i in range(9999) %}{{ 'a' * 10000 }}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "x" * 300_000,
]


@pytest.mark.parametrize("template", ESCAPES + BOMBS, ids=lambda t: t[:40])
def test_templates_that_break_out_or_never_end(template: str, renderer: Renderer, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin = time.perf_counter()
    try:
        shown = renderer.render(template, {"messages": []})
        assert shown in ("", "[]") or "Undefined" in shown or not set("<>") & set(shown), shown
        assert template not in BOMBS
    except ModelError as error:
        assert "the chat template" in error.line() and "\n" not in error.line()
    assert time.perf_counter() - begin < 5
    assert not (tmp_path / "CANARY").exists()
    assert renderer.render("{{ 1 + 1 }}", {}) == "2"  # and the next one is served


def test_the_process_can_do_nothing_even_outside_the_sandbox(tmp_path: Path):
    """Its limits, asked of the very code that sets them."""
    import subprocess

    script = Path(templates.__file__).with_name("rendering.py")
    code = (
        f"import runpy, sys, os; m = runpy.run_path({str(script)!r}); m['limit'](600 << 20)\n"
        f"try: open({str(tmp_path / 'CANARY')!r}, 'w'); print('opened')\n"
        "except OSError as e: print(type(e).__name__)\n"
        "try: bytearray(1 << 30); print('taken')\n"
        "except MemoryError: print('MemoryError')\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["OSError", "MemoryError"], done
    assert not (tmp_path / "CANARY").exists()


def test_nothing_of_ours_reaches_the_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted")
    with Renderer() as made:
        assert made.render("{{ x }}", {"x": 1}) == "1"
        child = made._child
        assert child is not None
        environment = Path(f"/proc/{child.pid}/environ").read_bytes() if sys.platform == "linux" else b""
        assert b"hf_planted" not in environment
    assert child.poll() is not None
