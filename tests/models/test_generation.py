"""The engine writes what transformers' own `generate` writes, and leaves the model as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig, get_peft_model

from tests.data import tiny_tokenizers
from tests.models.configs import WRITERS, build_writer, without_dropout
from tunewright.errors import DataError, ModelError, UsageError
from tunewright.models import architectures, generation
from tunewright.models.cached_decoding import Block, CachedDecoder
from tunewright.models.generation import generate
from tunewright.models.padded_decoding import PaddedDecoder
from tunewright.models.sampling import Sampling

EOS = 2
NEAR = 1e-4  # closer than this, the two most probable tokens may change places
LENGTHS = (1, 3, 3, 5, 9, 14, 20, 7)  # tokens; windows in these configs are 6
SHAPE = {"vocab_size": 50, "num_attention_heads": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": EOS}
OTHERS: dict[str, Any] = {
    "gpt_neox": lambda: hf.GPTNeoXConfig(
        **SHAPE, hidden_size=32, num_hidden_layers=2, intermediate_size=64, max_position_embeddings=64
    ),
    "phi3": lambda: hf.Phi3Config(
        **SHAPE, hidden_size=32, num_hidden_layers=2, intermediate_size=64, max_position_embeddings=64, sliding_window=6
    ),
    "opt": lambda: hf.OPTConfig(**SHAPE, hidden_size=32, num_hidden_layers=2, ffn_dim=64, word_embed_proj_dim=32),
    "bloom": lambda: hf.BloomConfig(vocab_size=50, hidden_size=32, n_layer=2, n_head=4, pad_token_id=0),
}
READERS: dict[str, Any] = {
    "t5": lambda: hf.T5Config(
        vocab_size=50, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
    ),
    "bart": lambda: hf.BartConfig(
        vocab_size=50, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, pad_token_id=0,
        bos_token_id=1, eos_token_id=EOS, decoder_start_token_id=1, forced_eos_token_id=None,
    ),
}  # fmt: skip


def prompts(lengths: Sequence[int] = LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 50, (length,), generator=generator).tolist() for length in lengths]


def settings(**changes: Any) -> Sampling:
    return Sampling(**{"max_new_tokens": 16, "eos_ids": frozenset({EOS}), **changes})


def built(kind: str) -> Any:
    """A model with every weight off its initial value, so that the most probable tokens are clear and differ."""
    torch.manual_seed(0)
    if kind in READERS:
        return moved(hf.AutoModelForSeq2SeqLM.from_config(READERS[kind]()), 0.5)
    return moved(hf.AutoModelForCausalLM.from_config(OTHERS[kind]()), 0.1)


def moved(model: Any, much: float) -> Any:
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) * much
    without_dropout(model)
    return model.eval()


def theirs(model: Any, prompt: list[int], new: int = 16) -> list[int]:
    """What transformers writes after one prompt, greedily."""
    output = model.generate(
        input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False, max_new_tokens=new, eos_token_id=EOS, pad_token_id=0,
    )[0].tolist()  # fmt: skip
    return output[1:] if model.config.is_encoder_decoder else output[len(prompt) :]


@torch.no_grad()
def logits_after(model: Any, prompt: list[int], written: Sequence[int]) -> torch.Tensor:
    """Logits of the token that follows, from a plain forward without any cache."""
    if model.config.is_encoder_decoder:
        start = [model.config.decoder_start_token_id, *written]
        return model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([start])).logits[0, -1]
    return model(input_ids=torch.tensor([[*prompt, *written]])).logits[0, -1]


def check_equal(model: Any, prompt: list[int], ours: Sequence[int], expected: list[int]) -> None:
    """Token by token, up to a place where two tokens are as good as equal."""
    for place, (a, b) in enumerate(zip(ours, expected, strict=False)):
        if a != b:
            logits = logits_after(model, prompt, expected[:place])
            assert abs(logits[a] - logits[b]) < NEAR, f"token {place}: {a} instead of {b}"
            return
    assert len(ours) == len(expected)


def causal(kind: str) -> Any:
    return build_writer(kind).eval() if kind in WRITERS else built(kind)


@pytest.mark.parametrize("room", [60, 10_000])
@pytest.mark.parametrize("kind", [*WRITERS, *OTHERS])
def test_greedy_equals_transformers(kind, room):
    """With little room prompts wait, rows leave and others take their place."""
    model = causal(kind)
    texts = prompts()
    answers = generate(model, texts, settings(), max_tokens_in_flight=room)
    for text, answer in zip(texts, answers, strict=True):
        check_equal(model, text, answer.ids, theirs(model, text))
        assert answer.stopped == ("eos" if answer.ids[-1] == EOS else "length")


@pytest.mark.parametrize("room", [60, 10_000])
@pytest.mark.parametrize("kind", READERS)
def test_encoder_decoder_models_equal_transformers(kind, room):
    model = built(kind)
    texts = prompts()
    answers = generate(model, texts, settings(), max_tokens_in_flight=room)
    for text, answer in zip(texts, answers, strict=True):
        check_equal(model, text, answer.ids, theirs(model, text))
    assert len({answer.ids for answer in answers}) > 2


def test_the_encoder_runs_once():
    model = built("t5")
    calls = []
    model.get_encoder().register_forward_hook(lambda *_: calls.append(1))
    generate(model, prompts((4, 6)), settings())
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_the_padded_decoder_writes_the_same(kind, monkeypatch):
    model, texts = causal(kind), prompts()
    cached = generate(model, texts, settings())
    monkeypatch.setattr(architectures, "find", lambda model: None)
    padded = generate(model, texts, settings(), max_tokens_in_flight=60)
    for text, a, b in zip(texts, cached, padded, strict=True):
        check_equal(model, text, a.ids, list(b.ids))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_adapter_counts(kind):
    base = causal(kind)
    texts = prompts((4, 11))
    plain = [answer.ids for answer in generate(base, texts, settings())]
    targets = ["c_attn"] if kind == "gpt2" else ["q_proj", "v_proj"]
    model = get_peft_model(base, LoraConfig(target_modules=targets, fan_in_fan_out=kind == "gpt2"))
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter) * 0.5
    answers = [answer.ids for answer in generate(model, texts, settings())]
    assert answers != plain
    for text, ids in zip(texts, answers, strict=True):
        check_equal(model, text, ids, theirs(model, text))


def test_a_window_matters_here():
    """Otherwise the tests above wouldn't see a wrong one."""
    model, text = causal("mistral"), prompts((20,))
    narrow = generate(model, text, settings())[0].logprobs
    for layer in model.model.layers:
        layer.self_attn.config.sliding_window = 1000
    assert generate(model, text, settings())[0].logprobs[0] != pytest.approx(narrow[0], abs=1e-3)


def test_a_softcap_counts():
    """gemma2's own, 50, is too wide to be felt by a tiny model."""
    model, text = causal("gemma2"), prompts((9,))[0]
    before = generate(model, [text], settings())[0].logprobs
    for layer in model.model.layers:
        layer.self_attn.attn_logit_softcapping = 0.1
    answer = generate(model, [text], settings())[0]
    assert answer.logprobs[0] != pytest.approx(before[0], abs=1e-3)
    for place, (token, logprob) in enumerate(zip(answer.ids, answer.logprobs, strict=True)):
        expected = logits_after(model, text, answer.ids[:place]).log_softmax(-1)[token]
        assert logprob == pytest.approx(float(expected), abs=1e-4)


def test_a_prompt_asked_twice_is_read_once():
    model, reads = causal("llama"), []
    model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: reads.append(inputs[0].numel()))
    text = prompts((8,))[0]
    answers = generate(model, [text, text, text], settings(temperature=1.0, max_new_tokens=4))
    assert reads[0] == 8
    assert len({answer.ids for answer in answers}) > 1  # each row has its own chance


# ---- chance ----


@pytest.mark.parametrize("changes", [{}, {"top_k": 8}, {"top_p": 0.7}])
def test_a_rows_text_is_its_own(changes):
    """Whatever the batch, the room and the order; only its number, its prompt and the seed."""
    model, texts = causal("gemma3"), prompts()
    chance = settings(temperature=1.2, seed=5, **changes)
    together = [answer.ids for answer in generate(model, texts, chance)]
    assert [answer.ids for answer in generate(model, texts, chance, max_tokens_in_flight=50)] == together
    for number, text in enumerate(texts):
        assert generate(model, [text], chance, numbers=[number])[0].ids == together[number]
    backwards = generate(model, texts[::-1], chance, numbers=range(len(texts))[::-1])
    assert [answer.ids for answer in backwards][::-1] == together


def test_seed_and_number_decide():
    model, text = causal("llama"), prompts((6,))[0]

    def written(seed: int, number: int) -> tuple[int, ...]:
        return generate(model, [text], settings(temperature=1.5, seed=seed), numbers=[number])[0].ids

    assert written(1, 0) == written(1, 0)
    assert len({written(1, 0), written(2, 0), written(1, 1), written(1, 2)}) == 4


def test_the_global_chance_is_left_alone():
    model, before = causal("llama"), torch.get_rng_state()
    generate(model, prompts((4,)), settings(temperature=1.0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("temperature", [0.0, 2.0])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "t5", "bart", "bloom"])
def test_logprobs_are_the_models_own(kind, temperature):
    model, text = built(kind) if kind in READERS else causal(kind), prompts((7,))[0]
    answer = generate(model, [text], settings(temperature=temperature, top_k=5))[0]
    for place, (token, logprob) in enumerate(zip(answer.ids, answer.logprobs, strict=True)):
        expected = logits_after(model, text, answer.ids[:place]).log_softmax(-1)[token]
        assert logprob == pytest.approx(float(expected), abs=1e-4)


# ---- ends ----


def rows_per_step(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled while the engine runs."""
    sizes: list[int] = []
    own = CachedDecoder.advance

    def advance(self: CachedDecoder, tokens: list[int]) -> torch.Tensor:
        sizes.append(len(tokens))
        return own(self, tokens)

    monkeypatch.setattr(CachedDecoder, "advance", advance)
    return sizes


def test_finished_rows_leave_and_others_come(monkeypatch):
    model, texts, sizes = causal("qwen2"), prompts(), rows_per_step(monkeypatch)
    answers = generate(model, texts, settings())
    assert {answer.stopped for answer in answers} == {"eos", "length"}
    assert sum(sizes) == sum(len(answer.ids) - 1 for answer in answers)  # not one step for a finished row
    assert sizes[0] > sizes[-1]


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_room_bounds_what_is_kept(kind, monkeypatch):
    """Half a block at most waits to be given back."""
    kept, own = [], CachedDecoder.advance

    def advance(self: CachedDecoder, tokens: list[int]) -> Any:
        kept.append(sum(block.keys[0].shape[0] * block.capacity for block in self.blocks))
        return own(self, tokens)

    monkeypatch.setattr(CachedDecoder, "advance", advance)
    generate(causal(kind), prompts(), settings(), max_tokens_in_flight=72)
    assert max(kept) <= 2 * 72
    assert len(kept) > 16  # so some had to wait


def test_a_block_gives_back_the_room_of_rows_that_left():
    block = Block([[5], [5, 6], [7], [8, 9, 10]], 4, torch.device("cpu"))
    block.make_room(0, torch.zeros(1, 2, 7, 3), torch.zeros(1, 2, 7, 3), None)
    block.keys[0][:] = torch.arange(4.0)[:, None, None, None]
    assert block.drop({0}) == [3, 1, 2]
    assert len(block.keys[0]) == 4  # less than half is free: not worth a copy
    assert block.drop({0, 2}) == [1]
    assert block.keys[0].shape == block.values[0].shape == (1, 2, 4, 3)
    assert block.lengths == [2]
    assert block.keys[0][0, 0, :2].tolist() == [[1.0] * 3] * 2


def test_a_prompt_larger_than_the_room_still_runs():
    answer = generate(causal("llama"), prompts((20,)), settings(), max_tokens_in_flight=1)[0]
    assert len(answer.ids) == 16


def test_rows_are_bounded_by_their_logits(monkeypatch):
    monkeypatch.setattr(generation, "MAX_LOGITS", 2 * 50)
    sizes = rows_per_step(monkeypatch)
    generate(causal("llama"), prompts(), settings(max_new_tokens=3))
    assert max(sizes) == 2


def test_no_longer_than_the_model_reads():
    texts = [*prompts((60,)), *prompts((2,))]
    answers = generate(causal("gpt2"), texts, settings(max_new_tokens=10, eos_ids=frozenset()))
    assert [len(answer.ids) for answer in answers] == [4, 10]
    assert answers[0].stopped == "length"


def test_a_stop_string_across_tokens():
    """It stops at the token that completes it, and not before."""
    tokenizer, model = tiny_tokenizers.gpt2(), big_vocabulary()
    text = tokenizer("the film")["input_ids"]
    free = generate(model, [text], Sampling(max_new_tokens=40))[0].ids
    written = tokenizer.decode(free[:12])
    pieces = [tokenizer.decode(free[:n]) for n in range(1, 13)]
    stop = written[len(pieces[4]) - 1 : len(pieces[5]) + 1]  # from the end of one token into the next but one
    answer = generate(model, [text], Sampling(max_new_tokens=40, stop=("never", stop)), tokenizer=tokenizer)[0]
    assert answer.stopped == "stop"
    assert answer.ids == free[: len(answer.ids)]
    assert stop in tokenizer.decode(answer.ids)
    assert stop not in tokenizer.decode(answer.ids[:-1])


def big_vocabulary() -> Any:
    size = len(tiny_tokenizers.gpt2())
    torch.manual_seed(0)
    config = hf.GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    return moved(hf.AutoModelForCausalLM.from_config(config), 0.1)


# ---- streaming, and what is left behind ----


def test_tokens_come_as_they_are_chosen():
    model, texts, heard = causal("qwen2"), prompts(), {}
    answers = generate(model, texts, settings(), on_token=lambda row, token: heard.setdefault(row, []).append(token))
    assert [tuple(heard[row]) for row in range(len(texts))] == [answer.ids for answer in answers]


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_stopping_in_the_middle_leaves_the_model_as_it_was(kind):
    model = causal(kind).train()
    attention = model.config._attn_implementation

    def stop(row: int, token: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(model, prompts(), settings(), on_token=stop)
    assert model.training
    assert model.config._attn_implementation == attention
    assert not [module for module in model.modules() if "forward" in vars(module)]
    ids = torch.tensor([[5, 6, 7]])
    assert model(input_ids=ids, labels=ids).loss.requires_grad


def test_one_call_inside_another():
    model, texts = causal("llama"), prompts((5, 7))
    expected = [answer.ids for answer in generate(model, texts, settings())]
    inner = []
    outer = generate(model, texts[:1], settings(), on_token=lambda *_: inner.append(generate(model, texts, settings())))
    assert outer[0].ids == expected[0]
    assert [answer.ids for answer in inner[-1]] == expected


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gemma3", "gpt2"])
def test_bf16_products(kind, rounded):
    """Close to fp32, with weights in either format."""
    model, text = causal(kind), prompts((9,))[0]
    if rounded:
        model.bfloat16()
    rough = generate(model, [text], settings(max_new_tokens=4), precision="bf16")[0]
    model.float()
    for place, (token, logprob) in enumerate(zip(rough.ids, rough.logprobs, strict=True)):
        expected = logits_after(model, text, rough.ids[:place]).log_softmax(-1)[token]
        assert logprob == pytest.approx(float(expected), abs=0.15)
        assert logprob != float(expected)


def test_nothing_to_do():
    assert generate(causal("llama"), [], settings()) == []


# ---- bad input ----


@pytest.mark.parametrize(
    ("prompt", "fragment"),
    [
        ([], "no tokens"),
        ([5, 50], "token 50"),
        ([-1], "token -1"),
        ([5] * 64, "64 tokens"),
    ],
)
def test_prompts_that_cannot_be_read(prompt, fragment):
    with pytest.raises(DataError, match=fragment) as caught:
        generate(causal("gpt2"), [[5], prompt], settings())
    assert caught.value.where == "prompt 2"


def test_a_diverged_model_is_named():
    model = causal("llama")
    model.model.norm.weight.data[:] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        generate(model, [[5, 6]], settings())


def test_stop_strings_need_a_tokenizer():
    with pytest.raises(UsageError, match="tokenizer"):
        generate(causal("llama"), [[5]], settings(stop=("end",)))


def test_a_model_without_keys_and_values_is_refused():
    config = hf.MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(ModelError, match="mamba"):
        PaddedDecoder(hf.AutoModelForCausalLM.from_config(config))
