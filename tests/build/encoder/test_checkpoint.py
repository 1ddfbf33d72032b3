"""What an encoder's folder says, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeai.build.encoder.checkpoint import is_encoder, read_checkpoint
from edgeai.errors import EdgeaiError, SourceError, UnsupportedModel
from edgeai.recipe import EncoderPlan

BERT = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 48,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
XLM = BERT | {"architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta", "max_position_embeddings": 514}
XLM["pad_token_id"] = 1
NONE = EncoderPlan()


def steps(*names: str) -> list[dict[str, Any]]:
    paths = {"Transformer": "", "Pooling": "1_Pooling"}
    return [
        {"idx": number, "name": str(number), "path": paths.get(name, f"{number}_{name}"),
         "type": f"sentence_transformers.models.{name}"}
        for number, name in enumerate(names)
    ]  # fmt: skip


def pooling(**modes: Any) -> dict[str, Any]:
    return {"word_embedding_dimension": 48, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False, **modes}


def folder(path: Path, config: dict[str, Any] = BERT, **files: Any) -> Path:
    """A folder with these JSON files; None leaves one out."""
    documents: dict[str, Any] = {
        "config": config,
        "modules": steps("Transformer", "Pooling", "Normalize"),
        "1_Pooling/config": pooling(pooling_mode_mean_tokens=True),
        "sentence_bert_config": {"max_seq_length": 256, "do_lower_case": False},
        "config_sentence_transformers": {"prompts": {"query": "query: ", "document": ""}},
    }
    (path / "1_Pooling").mkdir()
    for name, document in (documents | files).items():
        if document is not None:
            (path / f"{name}.json").write_text(json.dumps(document))
    return path


def test_a_folder_of_sentence_transformers(tmp_path: Path) -> None:
    found = read_checkpoint(folder(tmp_path), NONE)
    assert (found.kind, found.pooling, found.normalize, found.max_length) == ("embedding", "mean", True, 256)
    assert (found.prompts, found.default_prompt, found.dimension) == ({"query": "query: "}, None, 48)


def test_cls_without_normalization(tmp_path: Path) -> None:
    files = {"1_Pooling/config": pooling(pooling_mode_cls_token=True), "modules": steps("Transformer", "Pooling")}
    found = read_checkpoint(folder(tmp_path, **files), NONE)
    assert (found.pooling, found.normalize) == ("cls", False)


def test_newer_names_of_pooling(tmp_path: Path) -> None:
    files = {"1_Pooling/config": {"embedding_dimension": 48, "pooling_mode": "mean", "include_prompt": True}}
    assert read_checkpoint(folder(tmp_path, **files), NONE).pooling == "mean"


def test_the_recipe_goes_first(tmp_path: Path) -> None:
    plan = EncoderPlan(
        pooling="cls", normalize=False, max_length=100, prompts={"passage": "p: "}, default_prompt="passage"
    )
    found = read_checkpoint(folder(tmp_path), plan)
    assert (found.pooling, found.normalize, found.max_length) == ("cls", False, 100)
    assert (found.prompts, found.default_prompt) == ({"passage": "p: "}, "passage")


@pytest.mark.parametrize(
    ("config", "settings", "length"),
    [
        (BERT, {"max_seq_length": 9999}, 512),
        (BERT, {}, 512),
        (XLM, {"max_seq_length": None}, 512),
        (XLM, {"max_seq_length": 128}, 128),
    ],
)
def test_lengths_are_within_the_positions(
    tmp_path: Path, config: dict[str, Any], settings: dict[str, Any], length: int
) -> None:
    assert read_checkpoint(folder(tmp_path, config, sentence_bert_config=settings), NONE).max_length == length


def test_a_reranker_has_one_label(tmp_path: Path) -> None:
    config = XLM | {"architectures": ["XLMRobertaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
    found = read_checkpoint(folder(tmp_path, config, modules=None), NONE)
    assert (found.kind, found.pooling, found.normalize, found.dimension) == ("reranker", None, False, 1)


def test_without_a_word_on_pooling_the_recipe_has_to_say_it(tmp_path: Path) -> None:
    path = folder(tmp_path, modules=None)
    with pytest.raises(SourceError, match="does not say how its vectors are pooled") as refused:
        read_checkpoint(path, NONE)
    assert "[encoder] pooling" in refused.value.hint
    assert read_checkpoint(path, EncoderPlan(pooling="cls")).pooling == "cls"


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"config": BERT | {"model_type": "modernbert"}}, "encoders of type 'modernbert'"),
        ({"config": BERT | {"position_embedding_type": "relative_key"}}, "absolute positions"),
        ({"config": BERT | {"is_decoder": True}}, "absolute positions"),
        ({"config": BERT | {"architectures": ["BertForTokenClassification"]}}, "BertForTokenClassification"),
        (
            {"config": BERT | {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "a", "1": "b"}}},
            "with 2 labels is a classifier",
        ),
        ({"config": BERT | {"architectures": ["BertForSequenceClassification"]}}, "with 2 labels"),
        ({"modules": steps("Transformer", "Pooling", "Dense", "Normalize")}, "the steps Dense of modules.json"),
        ({"modules": steps("WordEmbeddings", "Pooling")}, "WordEmbeddings"),
        ({"modules": steps("Pooling", "Transformer")}, "Pooling, Transformer"),
        ({"modules": steps("Transformer")}, "the steps Transformer"),
        ({"1_Pooling/config": pooling(pooling_mode_weightedmean_tokens=True)}, "pooling_mode_weightedmean_tokens"),
        ({"1_Pooling/config": pooling(pooling_mode_lasttoken=True)}, "pooling_mode_lasttoken"),
        ({"1_Pooling/config": pooling(pooling_mode_max_tokens=True, pooling_mode_mean_tokens=True)}, "max_tokens"),
        ({"1_Pooling/config": pooling(pooling_mode_cls_token=True, pooling_mode_mean_tokens=True)}, "cls_token and"),
        ({"1_Pooling/config": pooling()}, "pooling by nothing"),
        ({"1_Pooling/config": pooling(pooling_mode_mean_tokens=True, include_prompt=False)}, "leaves out the prompt"),
        ({"sentence_bert_config": {"do_lower_case": True}}, "lowers the case"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path: Path, files: dict[str, Any], problem: str) -> None:
    with pytest.raises(UnsupportedModel, match=problem):
        read_checkpoint(folder(tmp_path, **files), NONE)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"config": None}, "no config.json"),
        ({"1_Pooling/config": None}, "1_Pooling has no config.json"),
        ({"1_Pooling/config": pooling(pooling_mode_mean_tokens=True, word_embedding_dimension=64)}, "another width"),
        ({"config_sentence_transformers": {"default_prompt_name": "poem"}}, "the default prompt 'poem'"),
    ],
)
def test_what_is_damaged_or_missing(tmp_path: Path, files: dict[str, Any], problem: str) -> None:
    with pytest.raises(SourceError, match=problem):
        read_checkpoint(folder(tmp_path, **files), NONE)


def test_files_that_are_not_json(tmp_path: Path) -> None:
    path = folder(tmp_path)
    (path / "modules.json").write_text("[")
    with pytest.raises(EdgeaiError, match=r"modules\.json is not valid JSON"):
        read_checkpoint(path, NONE)


def test_which_configurations_are_encoders() -> None:
    assert all(is_encoder(config) for config in (BERT, XLM, BERT | {"architectures": None}))
    assert is_encoder({"model_type": "qwen3", "architectures": ["Qwen3ForSequenceClassification"]})
    assert not is_encoder({"model_type": "llama", "architectures": ["LlamaForCausalLM"]})
