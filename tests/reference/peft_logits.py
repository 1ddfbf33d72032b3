"""A tiny random checkpoint and a random adapter made by PEFT, and what PEFT's own merge computes. For tests.

usage: peft_logits.py CONFIG.json LORA.json IDS.npy OUT

Writes OUT/base (a checkpoint), OUT/adapter (as save_pretrained leaves it) and OUT/{base,adapted,merged}.npy, float32
[tokens, vocab_size]. Runs in an environment with torch, transformers and peft; it shares no code with edgeai.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM


def randomize(model: torch.nn.Module) -> None:
    """Weights large enough that every part of the model matters."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.8, 1.2)
            else:
                parameter.normal_(0, 2.0 / parameter.shape[1] ** 0.5)


@torch.inference_mode()
def logits(model: torch.nn.Module, ids: np.ndarray) -> np.ndarray:
    return model.float().eval()(torch.from_numpy(ids)[None]).logits[0].numpy()


def main(config: Path, lora: Path, ids_path: Path, out: Path) -> None:
    torch.manual_seed(0)
    ids = np.load(ids_path)
    model = LlamaForCausalLM(LlamaConfig(**json.loads(config.read_text())))
    randomize(model)
    model.save_pretrained(out / "base", safe_serialization=True)
    np.save(out / "base.npy", logits(model, ids))
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(out / "base"),
        LoraConfig(task_type="CAUSAL_LM", **json.loads(lora.read_text())),
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.5 / parameter.shape[1] ** 0.5)
    adapted.save_pretrained(out / "adapter", safe_serialization=True)
    np.save(out / "adapted.npy", logits(adapted, ids))
    np.save(out / "merged.npy", logits(adapted.merge_and_unload(), ids))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
