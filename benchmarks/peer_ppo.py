"""The peer: PPO on text as a person writes it with transformers and PEFT, in one straightforward loop.

    prompts -> model.generate -> reward model -> log probabilities of policy and reference -> GAE -> clipped updates

`plain`: padded batches, the reference and the reward model each a model of its own in memory, logits of every position.
`tuned` adds what the libraries offer without a kernel of one's own: the reference is the policy without its adapter,
and logits are computed where a completion is predicted (`logits_to_keep`); `tuned-bf16` also computes in bf16 by
autocast. LoRA, prompts, completions per iteration, lengths and updates are those of ours. Prints one JSON object.
"""

import argparse
import json
import resource
import time
from typing import Any

import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--style", choices=["plain", "tuned", "tuned-bf16"], required=True)
    parser.add_argument("--model", required=True, help="folder of the base model")
    parser.add_argument("--reward", required=True, help="folder of a classifier (an adapter), whose class 1 is wanted")
    parser.add_argument("--prompts", required=True, help="JSON lines with a column prompt")
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--completions", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--ppo-epochs", type=int, default=2)
    parser.add_argument("--minibatches", type=int, default=2)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(json.dumps(Loop(options).run()))


class Loop:
    """Models, prompts and the loop."""

    def __init__(self, options: argparse.Namespace) -> None:
        from peft import AutoPeftModelForSequenceClassification, LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.o = options
        self.tuned = options.style != "plain"
        self.tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side="left")
        base = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
        config = LoraConfig(
            task_type="CAUSAL_LM", r=options.rank, lora_alpha=2 * options.rank, target_modules="all-linear"
        )
        self.policy = get_peft_model(base, config)
        self.reference = None
        if not self.tuned:
            self.reference = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
        width = base.config.get_text_config().hidden_size
        self.value = torch.nn.Linear(width, 1)
        torch.nn.init.normal_(self.value.weight, std=(width + 1) ** -0.5)
        self.reward_tokenizer = AutoTokenizer.from_pretrained(options.reward)
        self.reward = AutoPeftModelForSequenceClassification.from_pretrained(options.reward).eval()
        parameters = [p for p in self.policy.parameters() if p.requires_grad]
        self.parameters = [*parameters, *self.value.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=options.learning_rate)
        with open(options.prompts, encoding="utf-8") as lines:
            self.prompts = [json.loads(line)["prompt"] for line in lines]

    def run(self) -> dict[str, Any]:
        torch.manual_seed(0)
        self.policy.eval()  # no dropout anywhere
        seconds, writing, ratios, scores = [], [], [], []
        for number in range(self.o.iterations):
            begin = time.perf_counter()
            batch = self.sample(number)
            written = time.perf_counter() - begin
            score, ratio = self.learn(batch)
            seconds.append(round(time.perf_counter() - begin, 2))
            writing.append(round(written, 2))
            scores.append(round(score, 3))
            ratios.append(round(ratio, 6))
        return {
            "seconds": seconds,
            "sampling": writing,
            "score": scores,
            "first_ratio": ratios,
            "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        }

    def autocast(self) -> Any:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.o.style == "tuned-bf16")

    def sample(self, number: int) -> dict[str, torch.Tensor]:
        """Completions of the iteration's prompts; 1 in `counts` where a token of a completion stands."""
        n = self.o.completions
        texts = [self.prompts[(number * n + i) % len(self.prompts)] for i in range(n)]
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True)
        with torch.no_grad(), self.autocast():
            ids = self.policy.generate(
                **inputs, do_sample=True, top_k=0, top_p=1.0, temperature=1.0, max_new_tokens=self.o.new_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
            )  # fmt: skip
        width = inputs["input_ids"].shape[1]
        completions = ids[:, width:]
        ended = (completions == self.tokenizer.eos_token_id).long().cumsum(1)
        counts = (ended - (completions == self.tokenizer.eos_token_id).long()) == 0  # up to the EOS, with it
        mask = torch.cat([inputs["attention_mask"], counts.long()], 1)
        words = self.tokenizer.batch_decode(completions, skip_special_tokens=True)
        shown = self.reward_tokenizer(
            [p + c for p, c in zip(texts, words, strict=True)], return_tensors="pt", padding=True, truncation=True
        )
        with torch.no_grad():
            logits = self.reward(**shown).logits
        return {"ids": ids, "mask": mask, "counts": counts, "scores": logits[:, 1] - logits[:, 0]}

    def forward(self, model: Any, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log probabilities of the completion tokens, and the states before them."""
        keep = self.o.new_tokens + 1 if self.tuned else 0
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        with self.autocast():
            found = model(
                input_ids=ids, attention_mask=mask, position_ids=positions, output_hidden_states=True,
                use_cache=False, logits_to_keep=keep,
            )  # fmt: skip
        c = min(self.o.new_tokens, ids.shape[1])
        logits = found.logits[:, -c - 1 : -1].float()
        targets = ids[:, -c:]
        logprobs = torch.log_softmax(logits, -1).gather(2, targets[..., None])[..., 0]
        return logprobs, found.hidden_states[-1][:, -c - 1 : -1].float()

    def learn(self, batch: dict[str, torch.Tensor]) -> tuple[float, float]:
        ids, mask, counts = batch["ids"], batch["mask"], batch["counts"]
        # All at once would hold a [B, T, V] tensor of the whole iteration: in the minibatches of the updates.
        parts = torch.arange(len(ids)).split(len(ids) // self.o.minibatches)
        with torch.no_grad():
            old = [self.forward(self.policy, ids[p], mask[p]) for p in parts]
            logprobs, hidden = (torch.cat(some) for some in zip(*old, strict=True))
            if self.reference is None:
                with self.policy.disable_adapter():
                    ref = torch.cat([self.forward(self.policy, ids[p], mask[p])[0] for p in parts])
            else:
                ref = torch.cat([self.forward(self.reference, ids[p], mask[p])[0] for p in parts])
            values = self.value(hidden)[..., 0] * counts
            rewards = -0.05 * (logprobs - ref) * counts
            last = counts.long().sum(1) - 1
            rewards[torch.arange(len(ids)), last] += batch["scores"]
            advantages = torch.zeros_like(rewards)
            running = torch.zeros(len(ids))
            for t in reversed(range(rewards.shape[1])):
                following = values[:, t + 1] if t + 1 < rewards.shape[1] else torch.zeros(len(ids))
                running = (rewards[:, t] + following - values[:, t] + 0.95 * running) * counts[:, t]
                advantages[:, t] = running
            returns = advantages + values
            some = advantages[counts]
            advantages = (advantages - some.mean()) / (some.std() + 1e-8)
        first = None
        for _ in range(self.o.ppo_epochs):
            for p in torch.randperm(len(ids)).split(len(ids) // self.o.minibatches):
                new, states = self.forward(self.policy, ids[p], mask[p])
                ratio = (new - logprobs[p]).exp()
                first = first if first is not None else float(ratio[counts[p]].sub(1).abs().max())
                loss = -torch.min(ratio * advantages[p], ratio.clamp(0.8, 1.2) * advantages[p])[counts[p]].mean()
                now = self.value(states)[..., 0]
                near = values[p] + (now - values[p]).clamp(-0.2, 0.2)
                loss += 0.05 * torch.max((now - returns[p]) ** 2, (near - returns[p]) ** 2)[counts[p]].mean()
                self.optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
                self.optimizer.step()
        return float(batch["scores"].mean()), float(first or 0.0)


if __name__ == "__main__":
    main()
