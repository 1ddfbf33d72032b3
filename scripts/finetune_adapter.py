"""Fine-tunes a LoRA adapter on the CPU with PEFT and saves it as PEFT does. Needs torch, transformers, peft and gguf.

finetune_adapter.py WEIGHTS.gguf PACKAGE OUT [--epochs 2] [--rank 8]

The weights are the GGUF file that the package was built from, dequantized; the tokenizer and the chat template are the
package's own, so that the adapter learns from the very tokens it will see when it is served.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from adapter_example import Item, training_items
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaForCausalLM, PreTrainedTokenizerFast

IGNORED = -100  # torch's label for positions that are not learned from
BATCH = 4
LEARNING_RATE = 2e-3
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def encode(tokenizer: PreTrainedTokenizerFast, item: Item) -> tuple[list[int], int]:
    """Token ids of a whole conversation, and how many of them are the question's."""
    question = [{"role": "user", "content": item.report}]
    whole = [*question, {"role": "assistant", "content": item.ticket}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True)
    return tokenizer.apply_chat_template(whole), len(prompt)


def batch_of(rows: list[tuple[list[int], int]]) -> dict[str, torch.Tensor]:
    """Rows padded to one length; only answers are learned."""
    length = max(len(ids) for ids, _ in rows)
    ids = torch.zeros((len(rows), length), dtype=torch.long)
    labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
    for row, (tokens, prompt) in enumerate(rows):
        values = torch.tensor(tokens)
        ids[row, : len(tokens)], mask[row, : len(tokens)] = values, 1
        labels[row, prompt : len(tokens)] = values[prompt:]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def loss_of(model: LlamaForCausalLM, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross entropy of the answers. The output head, a fifth of this model, is computed for their positions only."""
    hidden = model.model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state[:, :-1]
    following = batch["labels"][:, 1:]
    learned = following != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[learned]), following[learned])


def train(model: PeftModel, rows: list[tuple[list[int], int]], epochs: int) -> None:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steps = epochs * -(-len(rows) // BATCH)
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    started, step = time.perf_counter(), 0
    for epoch in range(epochs):
        for start in torch.randperm(len(rows)).split(BATCH):
            loss = loss_of(model.get_base_model(), batch_of([rows[index] for index in start.tolist()]))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step % 5 == 0 or step == steps:
                seconds = time.perf_counter() - started
                print(f"epoch {epoch + 1}, step {step} of {steps}: loss {loss.item():.3f}, {seconds:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("package", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rank", type=int, default=8)
    args = parser.parse_args()
    torch.manual_seed(1)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(args.package / "tokenizer.json"))
    tokenizer.chat_template = (args.package / "chat_template.jinja").read_text(encoding="utf-8")
    base = AutoModelForCausalLM.from_pretrained(
        str(args.weights.parent), gguf_file=args.weights.name, dtype=torch.float32, local_files_only=True
    )
    lora = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules=TARGETS, task_type="CAUSAL_LM")
    model = get_peft_model(base, lora)
    model.print_trainable_parameters()
    train(model.train(), [encode(tokenizer, item) for item in training_items()], args.epochs)
    model.save_pretrained(args.out, safe_serialization=True)
    print(f"saved {args.out}")


if __name__ == "__main__":
    main()
