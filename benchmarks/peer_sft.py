"""The peers of `sft.py` and `gpu.py`: TRL's SFTTrainer as it comes and tuned, and a plain loop. Needs no tunewright.

    python benchmarks/peer_sft.py train --style STYLE --model FOLDER --train ROWS --output FOLDER
    python benchmarks/peer_sft.py score --model FOLDER --rows ROWS --adapters FOLDER [FOLDER ...]

ROWS is a file of JSON lines with `prompt` and `completion`. Batch, learning rate, schedule, decay, clipping, epochs,
LoRA and the row length are the same in every style. There is no warm-up: transformers takes its first step at a rate of
0, which would cost the peers a step of a short run. The styles differ in this alone:

    default       SFTTrainer with nothing asked of it, but the number format: it checkpoints activations and pads
    grouped       no checkpointing; rows of like length share a batch
    padding-free  no checkpointing; the rows of a batch lie end to end
    packed        no checkpointing; rows packed to --pack tokens, as many packs in a step as hold its rows
    peft          no trainer: transformers, PEFT and a loop of twenty lines, rows of like length in a batch

On a GPU the tuned styles load bf16 weights, and the default style computes in bf16 over fp32 weights, which is what it
comes with. `train` prints one JSON object; its seconds are those of the training alone, without loading, scoring and
saving. `score` prints the loss per target token of each saved adapter, computed by plain transformers and PEFT: a judge
who belongs to neither side.
"""

import argparse
import json
import os
import time
from pathlib import Path

STYLES = ["default", "grouped", "padding-free", "packed", "peft"]
TARGETS = "all-linear"  # PEFT leaves the language head out
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("--style", choices=STYLES, required=True)
    training.add_argument("--model", required=True)
    training.add_argument("--train", required=True)
    training.add_argument("--output", type=Path, required=True)
    training.add_argument("--validation", help="rows scored once at the end, as the trainer does it")
    training.add_argument("--method", choices=["lora", "full"], default="lora")
    training.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    training.add_argument("--attention", default="sdpa")
    training.add_argument("--epochs", type=float, default=1)
    training.add_argument("--max-steps", type=int, default=-1)
    training.add_argument("--skip", type=int, default=0, help="steps at the start that aren't measured")
    training.add_argument("--batch", type=int, default=8, help="rows per optimizer step")
    training.add_argument("--micro-batch", type=int, help="rows computed at once; default: all of a step")
    training.add_argument("--pack", type=int, default=1024)
    training.add_argument("--max-length", type=int, default=1024)
    training.add_argument("--learning-rate", type=float, default=2e-4)
    training.add_argument("--rank", type=int, default=8)
    training.add_argument("--seed", type=int, default=42)
    scoring = commands.add_parser("score")
    scoring.add_argument("--model", required=True)
    scoring.add_argument("--rows", required=True)
    scoring.add_argument("--adapters", nargs="+", required=True)
    scoring.add_argument("--max-length", type=int, default=1024)
    options = parser.parse_args()
    if options.command == "score":
        print(json.dumps({"losses": [score(options, adapter) for adapter in options.adapters]}))
    else:
        print(json.dumps(with_loop(options) if options.style == "peft" else with_trainer(options)))


# ---- TRL ----


def with_trainer(options: argparse.Namespace) -> dict:
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Watch(TrainerCallback):
        """Starts the clock after the skipped steps."""

        started = 0.0

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == options.skip:
                self.started = now(options.device)

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    train = rows_of(options.train)
    lora = LoraConfig(task_type="CAUSAL_LM", r=options.rank, lora_alpha=2 * options.rank, target_modules=TARGETS)
    halves = options.device == "cuda" and options.style != "default"
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            options.model,
            dtype=torch.bfloat16 if halves else torch.float32,
            attn_implementation=options.attention,
            device_map={"": 0} if options.device == "cuda" else None,
        ),
        args=SFTConfig(**arguments(options, mean_tokens(train, tokenizer))),
        train_dataset=train,
        eval_dataset=rows_of(options.validation) if options.validation else None,
        processing_class=tokenizer,
        peft_config=lora if options.method == "lora" else None,
    )
    counted = Counting(trainer.data_collator)
    trainer.data_collator = counted
    watch = Watch()
    trainer.add_callback(watch)
    watch.started = now(options.device)
    trainer.train()
    seconds = now(options.device) - watch.started
    real, places, targets = counted.real, counted.places, counted.targets
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    validation = trainer.evaluate()["eval_loss"] if options.validation else None
    trainer.save_model(str(options.output))
    return {
        **facts(options, seconds, real, places, targets, trainer.state.global_step, losses),
        "validation_loss": validation,
    }


def arguments(options: argparse.Namespace, mean: float) -> dict:
    """What SFTConfig is given: the recipe that all styles share, then what the style adds."""
    micro = options.micro_batch or options.batch
    shared = {
        "output_dir": str(options.output / "trainer"), "report_to": "none", "disable_tqdm": True, "save_strategy": "no",
        "num_train_epochs": options.epochs, "max_steps": options.max_steps, "seed": options.seed,
        "per_device_train_batch_size": micro, "gradient_accumulation_steps": options.batch // micro,
        "learning_rate": options.learning_rate, "lr_scheduler_type": "linear", "warmup_steps": 0,
        "weight_decay": 0.01, "max_grad_norm": 1.0, "max_length": options.max_length,
        "use_cpu": options.device == "cpu", "bf16": options.device == "cuda",
        "logging_steps": 1 if options.device == "cpu" else 10,
    }  # fmt: skip
    if options.style == "default":
        return shared
    tuned = {**shared, "gradient_checkpointing": False}
    if options.style == "grouped":
        return {**tuned, "train_sampling_strategy": "group_by_length"}
    if options.style == "padding-free":
        # the length isn't cut then: `rows_of` gives rows that fit
        return {**tuned, "padding_free": True, "max_length": None}
    packs = max(1, round(options.batch * mean / options.pack))  # packs that hold as many rows as a step of the others
    return {
        **tuned, "packing": True, "max_length": options.pack, "gradient_accumulation_steps": packs,
        "per_device_train_batch_size": 1, "eval_packing": False,
    }  # fmt: skip


class Counting:
    """A collator that counts what it hands out: real tokens, places (with padding), tokens that are learnt."""

    def __init__(self, collator):
        self.collator, self.real, self.places, self.targets = collator, 0, 0, 0

    def __call__(self, examples):
        batch = self.collator(examples)
        self.places += batch["input_ids"].numel()
        self.real += int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()
        self.targets += int((batch["labels"] != -100).sum())
        return batch


# ---- transformers and PEFT alone ----


def with_loop(options: argparse.Namespace) -> dict:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup

    torch.manual_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(
        options.model,
        dtype=torch.bfloat16 if options.device == "cuda" else torch.float32,
        attn_implementation=options.attention,
    ).to(options.device)
    if options.method == "lora":
        lora = LoraConfig(task_type="CAUSAL_LM", r=options.rank, lora_alpha=2 * options.rank, target_modules=TARGETS)
        model = get_peft_model(model, lora)
    examples = [tokens_of(row, tokenizer, options.max_length) for row in rows_of(options.train)]
    batches = by_length(examples, options.batch, options.seed)
    steps = options.max_steps if options.max_steps > 0 else round(len(batches) * options.epochs)
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=options.learning_rate, weight_decay=0.01, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, steps)
    model.train()
    real = places = targets = 0
    losses = []
    start = now(options.device)
    for step in range(steps):
        batch = padded(batches[step % len(batches)], tokenizer.pad_token_id or 0)
        real, places = real + int(batch["attention_mask"].sum()), places + batch["input_ids"].numel()
        learnable = int((batch["labels"] != -100).sum())
        targets += learnable
        for rows in range(0, options.batch, options.micro_batch or options.batch):
            part = {k: v[rows : rows + (options.micro_batch or options.batch)] for k, v in batch.items()}
            if not len(part["labels"]):
                continue
            if bool(part["attention_mask"].all()):
                del part["attention_mask"]  # without a mask the fused kernels may be used
            part = {k: v.to(options.device) for k, v in part.items()}
            loss = model(**part, use_cache=False, num_items_in_batch=learnable).loss
            loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        if step + 1 == options.skip:
            start = now(options.device)
    seconds = now(options.device) - start
    model.save_pretrained(options.output)
    return facts(options, seconds, real, places, targets, steps, [float(loss) for loss in losses])


def by_length(examples: list, size: int, seed: int) -> list[list]:
    """Batches of neighbours in length, in random order."""
    import random

    examples = sorted(examples, key=lambda example: len(example[0]))
    batches = [examples[start : start + size] for start in range(0, len(examples), size)]
    random.Random(seed).shuffle(batches)
    return batches


def padded(examples: list, pad: int) -> dict:
    import torch

    longest = max(len(ids) for ids, _ in examples)
    rows = [(longest - len(ids), ids, known) for ids, known in examples]
    return {
        "input_ids": torch.tensor([ids + [pad] * more for more, ids, _ in rows]),
        "attention_mask": torch.tensor([[1] * len(ids) + [0] * more for more, ids, _ in rows]),
        "labels": torch.tensor([[-100] * known + ids[known:] + [-100] * more for more, ids, known in rows]),
    }


# ---- both ----


def now(device: str) -> float:
    """The clock, once everything asked of the device is done."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def rows_of(path: str):
    from datasets import load_dataset

    return load_dataset("json", data_files=path, split="train")


def mean_tokens(rows, tokenizer) -> float:
    """Of a row, from the first hundred."""
    texts = [row["prompt"] + row["completion"] for row in rows.select(range(min(100, len(rows))))]
    return sum(map(len, tokenizer(texts)["input_ids"])) / len(texts)


def tokens_of(row: dict, tokenizer, max_length: int) -> tuple[list[int], int]:
    """Ids of prompt, completion and EOS, and how many are prompt; too long a prompt loses its beginning."""
    prompt = tokenizer(row["prompt"])["input_ids"]
    completion = tokenizer(row["completion"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    completion = completion[: max_length - 1]
    over = max(0, len(prompt) + len(completion) - max_length)
    prompt = prompt[:1] + prompt[1 + over :]
    return prompt + completion, len(prompt)


def facts(options, seconds: float, real: int, places: int, targets: int, steps: int, losses: list[float]) -> dict:
    import peft
    import torch
    import transformers

    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}
    if options.style != "peft":
        import trl

        versions["trl"] = trl.__version__
    return {
        "who": options.style if options.style == "peft" else f"trl-{options.style}",
        "train_seconds": round(seconds, 2), "train_tokens": real, "train_targets": targets, "steps": steps,
        "tokens_per_second": round(real * (1 - options.skip / steps) / seconds, 1),
        "padding": round(1 - real / max(1, places), 3),
        "first_loss": round(losses[0], 4) if losses else None, "last_loss": round(losses[-1], 4) if losses else None,
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if options.device == "cuda" else None,
        "versions": versions,
    }  # fmt: skip


def score(options: argparse.Namespace, adapter: str) -> dict:
    """Nats per target token over the rows, one at a time, in fp32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    if adapter != "none":
        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    nats = count = 0
    with torch.inference_mode():
        for row in rows_of(options.rows):
            ids, known = tokens_of(row, tokenizer, options.max_length)
            logits = model(input_ids=torch.tensor([ids]), logits_to_keep=len(ids) - known + 1).logits[0, :-1]
            nats += float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[known:]), reduction="sum"))
            count += len(ids) - known
    return {"adapter": adapter, "loss": round(nats / count, 4), "targets": count}


if __name__ == "__main__":
    main()
