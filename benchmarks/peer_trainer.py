"""The peer: Hugging Face Trainer + PEFT on a labelled text file, as the article writes it or tuned.

Both styles train LoRA (r=4, alpha 32, dropout 0.01, query) with batch 4, learning rate 1e-3, weight decay 0.01 and
512 tokens kept from the left. `article` is Shaw Talebi's script ported to transformers 5 (`eval_strategy`,
`processing_class`, accuracy computed locally). `tuned` adds what its documentation offers: no dropout in the base,
length-grouped batches, evaluation in batches of 32; `tuned-bf16` computes in bf16 as well. Prints one JSON object:
seconds, accuracy per epoch, peak memory.
"""

import argparse
import json
import resource
import time

started = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--style", choices=["article", "tuned", "tuned-bf16"], required=True)
    parser.add_argument("--model", required=True, help="folder of the base model")
    parser.add_argument("--train", required=True)
    parser.add_argument("--validation", required=True)
    parser.add_argument("--rows", type=int, default=0, help="first N rows of each file (0: all)")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--targets", default="query")
    parser.add_argument("--random", action="store_true", help="random weights: speed alone")
    parser.add_argument("--output", default="peer-output")
    print(json.dumps(train(parser.parse_args())))


def train(options: argparse.Namespace) -> dict:
    import numpy as np
    import peft
    import torch
    import transformers
    from datasets import load_dataset
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import (
        AutoConfig,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    tuned = options.style != "article"
    set_seed(options.seed)
    data = load_dataset("json", data_files={"train": options.train, "validation": options.validation})
    if options.rows:
        data = type(data)({name: split.select(range(options.rows)) for name, split in data.items()})
    names = {"negative": 0, "positive": 1}
    tokenizer = AutoTokenizer.from_pretrained(options.model, truncation_side="left")
    tokens = data.map(
        lambda rows: {
            **tokenizer(rows["text"], truncation=True, max_length=512),
            "labels": [names[x] for x in rows["label"]],
        },
        batched=True,
        remove_columns=["text", "label"],
    )
    config = AutoConfig.from_pretrained(
        options.model, num_labels=2, id2label={0: "Negative", 1: "Positive"}, label2id={"Negative": 0, "Positive": 1}
    )
    if tuned:
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
            if hasattr(config, name):
                setattr(config, name, 0.0)
    if options.random:
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        model = AutoModelForSequenceClassification.from_pretrained(options.model, config=config)
    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS, r=4, lora_alpha=32, lora_dropout=0.01, target_modules=options.targets.split(",")
    )
    model = get_peft_model(model, lora)
    history: list[dict] = []

    def accuracy(prediction) -> dict:
        value = float((np.argmax(prediction.predictions, axis=1) == prediction.label_ids).mean())
        history.append({"seconds": round(time.perf_counter() - started, 1), "accuracy": value})
        return {"accuracy": value}

    arguments = TrainingArguments(
        output_dir=options.output,
        learning_rate=1e-3,
        per_device_train_batch_size=4,
        per_device_eval_batch_size=32 if tuned else 4,
        num_train_epochs=options.epochs,
        weight_decay=0.01,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        seed=options.seed,
        report_to="none",
        use_cpu=True,
        bf16=options.style == "tuned-bf16",
        train_sampling_strategy="group_by_length" if tuned else "random",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=tokens["train"],
        eval_dataset=tokens["validation"],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
    )
    trainer.train()
    return {
        "who": f"trainer-{options.style}",
        "seconds": round(time.perf_counter() - started, 1),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "epochs": history,
        "seed": options.seed,
        "rows": len(tokens["train"]),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
    }


if __name__ == "__main__":
    main()
