"""Embeddings and scores by the models' own libraries, for tests. Runs in an environment with torch.

usage: encoder_peers.py embed FOLDER TEXTS.json OUT.npy     sentence-transformers
       encoder_peers.py score FOLDER PAIRS.json OUT.npy     transformers, logits [pairs, 1]
       encoder_peers.py tiny KIND FOLDER                    a random checkpoint of a kind in KINDS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers

SIZES = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "vocab_size": 1200, "max_position_embeddings": 66,
}  # fmt: skip
KINDS = {
    "bert": ("BertConfig", "BertModel", {}),
    "roberta": ("RobertaConfig", "RobertaModel", {"pad_token_id": 1, "type_vocab_size": 1}),
    "xlm-roberta": ("XLMRobertaConfig", "XLMRobertaModel", {"pad_token_id": 1, "type_vocab_size": 1}),
    "bert-reranker": ("BertConfig", "BertForSequenceClassification", {"num_labels": 1}),
    "xlm-roberta-reranker": (
        "XLMRobertaConfig",
        "XLMRobertaForSequenceClassification",
        {"pad_token_id": 1, "type_vocab_size": 1, "num_labels": 1},
    ),
}


def embed(folder: str, texts: list[str]) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return np.asarray(SentenceTransformer(folder, device="cpu").encode(texts, batch_size=8, show_progress_bar=False))


@torch.inference_mode()
def score(folder: str, pairs: list[list[str]]) -> np.ndarray:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    limit = model.config.max_position_embeddings - (0 if model.config.model_type == "bert" else 2)
    inputs = tokenizer(pairs, padding=True, truncation="only_second", max_length=limit, return_tensors="pt")
    return model(**inputs).logits.numpy()


def tiny(kind: str, folder: str) -> None:
    config_name, model_name, extra = KINDS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, config_name)(**SIZES, **extra)
    model = getattr(transformers, model_name)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and "embeddings" not in name:
                parameter.normal_(0, 1.5 / parameter.shape[1] ** 0.5)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer(kind).save_pretrained(folder)


def tokenizer(kind: str) -> transformers.PreTrainedTokenizerFast:
    """Words w0, w1, ... with the family's special tokens and templates."""
    bert = kind.startswith("bert")
    pad, unknown, start, end = ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if bert else ("<pad>", "<unk>", "<s>", "</s>")
    order = [pad, unknown, start, end] if bert else [start, pad, end, unknown]
    vocabulary = {token: number for number, token in enumerate(order)}
    vocabulary |= {f"w{number}": number + 4 for number in range(1196)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=unknown))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    pair = f"{start} $A {end} $B:1 {end}:1" if bert else f"{start} $A {end} {end} $B {end}"
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{start} $A {end}", pair=pair, special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=pad, unk_token=unknown, cls_token=start, sep_token=end,
        model_max_length=64, model_input_names=["input_ids", "token_type_ids", "attention_mask"] if bert
        else ["input_ids", "attention_mask"],
    )  # fmt: skip


def main(task: str, *arguments: str) -> None:
    if task == "tiny":
        tiny(*arguments)
        return
    folder, texts, out = arguments
    given = json.loads(Path(texts).read_text(encoding="utf-8"))
    np.save(out, (embed if task == "embed" else score)(folder, given))


if __name__ == "__main__":
    main(*sys.argv[1:])
