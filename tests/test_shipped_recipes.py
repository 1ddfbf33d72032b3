"""The recipes that ship: their facts are consistent, and every model in them is one that can be built."""

from __future__ import annotations

import pytest

from edgeai import licences
from edgeai.architectures.registry import ARCHITECTURES
from edgeai.build.encoder.checkpoint import MODEL_TYPES
from edgeai.recipe import ModelSize, Recipe, RepositoryRef, find_recipe, recipe_names

NAMES = recipe_names()
RERANKERS = ("ms-marco-minilm-l6-v2",)


@pytest.fixture(params=NAMES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return find_recipe(request.param)


def test_there_are_recipes_for_many_models() -> None:
    repositories = {entry.repo for name in NAMES for entry in find_recipe(name).sources if entry.kind == "hub"}
    assert len(repositories) >= 20


def test_each_is_called_like_its_file_and_says_what_it_is(recipe: Recipe) -> None:
    assert recipe.name in NAMES
    assert recipe.description
    assert recipe.languages
    assert recipe.licence is not None
    assert licences.is_open(recipe.licence.spdx) or len(recipe.licence.note) > 100
    assert recipe.licence.url.startswith("https://")


def test_the_architecture_is_supported(recipe: Recipe) -> None:
    assert recipe.size is not None
    assert recipe.size.model_type in {*ARCHITECTURES, *MODEL_TYPES}


def test_a_repository_is_pinned_to_a_commit_or_says_that_it_is_not(recipe: Recipe) -> None:
    for entry in recipe.sources:
        if isinstance(entry, RepositoryRef):
            assert entry.pinned == (entry.revision not in ("main", "master"))


def test_the_published_number_of_parameters_follows_from_the_dimensions(recipe: Recipe) -> None:
    """The two come from different places (the model card, and config.json), so a wrong digit in either shows."""
    assert recipe.size is not None
    head = recipe.size.hidden + 1 if recipe.name in RERANKERS else 0
    assert parameters(recipe.size) + head == recipe.size.parameters


def encoder_parameters(size: ModelSize) -> int:
    """Embeddings with positions and types, layers with biases and two norms, and the pooler."""
    square = size.hidden * size.hidden + size.hidden
    positions, types = (size.context, 2) if size.model_type == "bert" else (size.context + 2, 1)
    mlp = 2 * size.hidden * size.intermediate + size.intermediate + size.hidden
    layer = 4 * square + mlp + 4 * size.hidden
    return (size.vocab + positions + types + 2) * size.hidden + size.layers * layer + square


def parameters(size: ModelSize) -> int:
    """Values of all tensors of a dense decoder or an encoder, counted family by family."""
    if size.model_type in MODEL_TYPES:
        return encoder_parameters(size)
    query, key = size.heads * size.head, size.kv_heads * size.head
    layer = size.hidden * (2 * query + 2 * key) + 3 * size.hidden * size.intermediate
    match size.model_type:
        case "qwen2":
            layer += query + 2 * key + 2 * size.hidden  # biases, norms
        case "glm4":
            layer += query + 2 * key + 4 * size.hidden
        case "qwen3":
            layer += 2 * size.head + 2 * size.hidden
        case "gemma3_text":
            layer += 2 * size.head + 4 * size.hidden
        case "gemma2":
            layer += 4 * size.hidden
        case "olmo2":
            layer += query + key + 2 * size.hidden
        case _:
            layer += 2 * size.hidden
    return size.table + size.layers * layer + size.hidden
