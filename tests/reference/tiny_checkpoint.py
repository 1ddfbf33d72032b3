"""Writes random checkpoints of families that edgeai has no architecture for, and transformers' logits of some ids.

usage: tiny_checkpoint.py FAMILY CHECKPOINT IDS.npy LOGITS.npy

Runs in an environment with torch and transformers. `IDS.npy` is int64 [tokens], `LOGITS.npy` becomes float32
[tokens, vocab_size]. The tokenizer is byte-level BPE, trained on a few lines.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCAB = 320
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512}
FAMILIES = {
    # learned positions with an offset, tied head, post-norm options
    "opt": {**SIZES, "ffn_dim": 128, "word_embed_proj_dim": 64},
    # ALiBi, which is made of the mask: no position ids
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 4},
    # partial rotary positions, grouped queries, head of its own
    "stablelm": {**SIZES, "num_key_value_heads": 2, "intermediate_size": 128, "tie_word_embeddings": False},
    # fused attention matrices in the other order (Gemm), one key-value head
    "gpt_bigcode": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512},
    # positions counted from the past: rows must not be padded; norms and caps of its own
    "nemotron": {**SIZES, "num_key_value_heads": 2, "intermediate_size": 128},
    # keys and values of different sizes
    "deepseek_v3": {
        **SIZES, "num_key_value_heads": 4, "intermediate_size": 128, "moe_intermediate_size": 32, "n_routed_experts": 8,
        "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "kv_lora_rank": 16, "q_lora_rank": 16,
        "qk_rope_head_dim": 8, "v_head_dim": 16, "qk_nope_head_dim": 16,
    },
    # a state instead of a cache
    "mamba": {"hidden_size": 64, "num_hidden_layers": 2},
}  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(["The water in the well was low that year, and every household sent one"] * 3, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>", bos_token="<|end|>")
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}"
    return fast


def main(family: str, checkpoint: str, ids: str, logits: str) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, vocab_size=VOCAB, eos_token_id=0, bos_token_id=0, pad_token_id=0, **FAMILIES[family]
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # large enough that every part of the model matters
            if parameter.ndim == 2:
                parameter.normal_(0, 1.5 / parameter.shape[1] ** 0.5)
        reference = model(torch.from_numpy(np.load(ids))[None]).logits[0].numpy()
    model.save_pretrained(checkpoint)
    tokenizer().save_pretrained(checkpoint)
    Path(checkpoint, "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    np.save(logits, reference)


if __name__ == "__main__":
    main(*sys.argv[1:])
