"""A loaded model: text out of tokens, prompts, defaults, and what happens to answers that nobody waits for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from edgeai.build.pipeline import build_package
from edgeai.engine.config import EngineSettings
from edgeai.engine.request import FinishReason, SamplingParams, TokenOutput
from edgeai.errors import ContextLengthExceeded, InvalidInput
from edgeai.model import Chunk, Model, TextStream, default_settings, model_shape
from edgeai.package.package import Package
from edgeai.recipe import find_recipe
from edgeai.text.tokenizer import Tokenizer
from tests.fixtures.gguf_files import tiny_llama

SETTINGS = EngineSettings(threads=1, max_rows=2, kv_budget_bytes=4 << 20)
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def make_package(folder: Path, recipe: str = "", *, template: bool = True) -> Package:
    """A tiny package; `recipe` is more TOML."""
    document = tiny_llama("F32")
    if not template:
        del document.metadata["tokenizer.chat_template"]
    (folder / "weights.gguf").write_bytes(document.to_bytes())
    path = folder / "tiny.toml"
    path.write_text(f'schema = 1\nname = "tiny"\n[[sources]]\nkind = "path"\npath = "weights.gguf"\n{recipe}\n')
    return Package.open(build_package(str(path), out=folder / "package", home=folder, cache=folder).package)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    with Model.load(make_package(tmp_path_factory.mktemp("model")), SETTINGS) as model:
        yield model


@pytest.fixture(scope="module")
def tokenizer(tiny: Model) -> Tokenizer:
    return tiny.tokenizer


def pushed(
    tokenizer: Tokenizer, ids: list[int], stop: tuple[str, ...] = (), end: FinishReason | None = None
) -> list[Chunk]:
    """Chunks up to the first that ends; the last token carries `end`."""
    stream, chunks = TextStream(tokenizer, stop), []
    for number, token in enumerate(ids):
        last = number == len(ids) - 1
        chunks.append(stream.push(TokenOutput(token, finish_reason=end if last else None)))
        if chunks[-1].finish_reason is not None:
            break
    return chunks


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def byte_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """One token for each byte, so that every border is met."""
    by_bytes = {tokenizer.token_bytes(token): token for token in reversed(range(3, tokenizer.vocab_size))}
    return [by_bytes[bytes([byte])] for byte in text.encode()]


@pytest.mark.parametrize("stop", ["END", "\n\n", "é!", "d E"])
def test_a_stop_string_is_found_across_tokens(tokenizer: Tokenizer, stop: str) -> None:
    text = "good END\n\né! and more"
    chunks = pushed(tokenizer, byte_ids(tokenizer, text), ("never", stop))
    assert text_of(chunks) == text[: text.index(stop)]
    assert chunks[-1].finish_reason is FinishReason.STOP
    assert sum(len(chunk.tokens) for chunk in chunks) == len((text[: text.index(stop)] + stop).encode())


def test_nothing_of_a_stop_string_is_shown_early(tokenizer: Tokenizer) -> None:
    shown = ""
    for chunk in pushed(tokenizer, byte_ids(tokenizer, "a EN EMD EN"), ("END",), FinishReason.LENGTH):
        shown += chunk.text
        if chunk.finish_reason is None:
            assert not shown.endswith(("E", "EN"))
    assert shown == "a EN EMD EN"  # what was held back comes at the end


@pytest.mark.parametrize("end", [0, 2])
def test_an_end_token_is_not_part_of_the_text(tokenizer: Tokenizer, end: int) -> None:
    chunks = pushed(tokenizer, [*byte_ids(tokenizer, "bye"), end], (), FinishReason.STOP)
    assert text_of(chunks) == "bye"
    assert chunks[-1].token_ids == (end,)
    assert chunks[-1].finish_reason is FinishReason.STOP


def test_a_stop_token_with_text_of_its_own_is_not_shown_either(tokenizer: Tokenizer) -> None:
    assert text_of(pushed(tokenizer, byte_ids(tokenizer, "bye!"), (), FinishReason.STOP)) == "bye"


def test_an_incomplete_character_comes_with_the_last_token(tokenizer: Tokenizer) -> None:
    cut = byte_ids(tokenizer, "a🌧")[:-1]
    chunks = pushed(tokenizer, cut, (), FinishReason.LENGTH)
    assert [chunk.text for chunk in chunks] == ["a", "", "", "\ufffd"]
    assert chunks[-1].finish_reason is FinishReason.LENGTH


def test_the_last_token_may_complete_a_stop_string(tokenizer: Tokenizer) -> None:
    """It then ended by the stop string, not by its length."""
    chunks = pushed(tokenizer, byte_ids(tokenizer, "go END"), ("END",), FinishReason.LENGTH)
    assert text_of(chunks) == "go "
    assert chunks[-1].finish_reason is FinishReason.STOP
    damaged = pushed(tokenizer, byte_ids(tokenizer, "goé")[:-1], ("\ufffd",), FinishReason.LENGTH)
    assert (text_of(damaged), damaged[-1].finish_reason) == ("go", FinishReason.STOP)


def test_logprobs_travel_with_their_tokens(tiny: Model) -> None:
    params = tiny.default_params(max_tokens=6, temperature=0, logprobs=2)
    tokens = [token for chunk in tiny.complete("hello", params) for token in chunk.tokens]
    assert tokens
    assert all(token.logprob is not None and len(token.top_logprobs) == 2 for token in tokens)


def test_chunks_add_up_to_the_decoded_tokens(tiny: Model) -> None:
    params = SamplingParams(max_tokens=60, temperature=2.0, seed=3, ignore_eos=True)
    chunks = list(tiny.complete("hello", params))
    ids = [token for chunk in chunks for token in chunk.token_ids]
    assert len(ids) == 60
    assert text_of(chunks) == tiny.tokenizer.decode(ids)


def test_a_dropped_iterator_cancels(tiny: Model) -> None:
    params = SamplingParams(max_tokens=100, temperature=0, ignore_eos=True)
    chunks = tiny.complete("hello", params)
    next(chunks)
    assert tiny.engine.stats().running == 1
    del chunks
    assert not tiny.engine.has_work
    assert not tiny.engine.runner.arena.occupied
    assert len(list(tiny.complete("hello", params))) == 100


def test_a_stop_string_ends_the_request_too(tiny: Model) -> None:
    params = SamplingParams(max_tokens=60, temperature=2.0, seed=3, ignore_eos=True)
    text = text_of(list(tiny.complete("hello", params)))
    stop = text[20:22]
    chunks = list(tiny.complete("hello", params, [stop]))
    assert text_of(chunks) == text[: text.index(stop)]
    assert not tiny.engine.has_work


def test_bad_requests_are_refused(tiny: Model) -> None:
    with pytest.raises(ContextLengthExceeded):
        list(tiny.complete("a" * 300, tiny.default_params()))
    with pytest.raises(InvalidInput, match="stop string"):
        list(tiny.complete("a", tiny.default_params(), [""]))
    with pytest.raises(InvalidInput, match="temperature"):
        list(tiny.complete("a", tiny.default_params(temperature=-1)))
    assert not tiny.engine.has_work
    assert list(tiny.complete("a", tiny.default_params(max_tokens=2)))


def test_defaults_are_the_recipe_s_and_the_caller_s(tmp_path: Path) -> None:
    recipe = '[prompt]\ntemperature = 0.3\ntop_k = 7\nsystem = "Be brief."'
    with Model.load(make_package(tmp_path, recipe), SETTINGS) as model:
        context = model.context_length
        assert model.default_params() == SamplingParams(max_tokens=context, temperature=0.3, top_k=7)
        assert model.default_params(top_k=None, temperature=0.0, seed=4) == SamplingParams(
            max_tokens=context, temperature=0.0, top_k=7, seed=4
        )
        assert model.default_params(max_tokens=5).max_tokens == 5


def test_the_recipe_s_system_prompt_leads_where_there_is_none(tmp_path: Path) -> None:
    with Model.load(make_package(tmp_path, '[prompt]\nsystem = "Be brief."'), SETTINGS) as model:

        def text(*messages: tuple[str, str]) -> str:
            ids = model.encode_chat([{"role": role, "content": content} for role, content in messages])
            return model.tokenizer.decode(ids, skip_control=False)

        tail = "<|im_end|>\n<|im_start|>assistant\n"
        user = f"<|im_start|>user\nhello{tail}"
        assert text(("user", "hello")) == f"<|im_start|>system\nBe brief.<|im_end|>\n{user}"
        assert text(("system", "Sing."), ("user", "hello")) == f"<|im_start|>system\nSing.<|im_end|>\n{user}"


def test_messages_are_not_changed(tmp_path: Path) -> None:
    with Model.load(make_package(tmp_path, '[prompt]\nsystem = "Be brief."'), SETTINGS) as model:
        messages = [{"role": "user", "content": "hello"}]
        model.encode_chat(messages)
        assert messages == [{"role": "user", "content": "hello"}]


def test_a_package_without_a_template_does_not_chat(tmp_path: Path) -> None:
    with Model.load(make_package(tmp_path, template=False), SETTINGS) as model:
        with pytest.raises(InvalidInput, match="tiny has no chat template") as caught:
            model.chat(QUESTION, model.default_params())
        assert caught.value.param == "messages"
        assert list(model.complete("hello", model.default_params(max_tokens=3)))


def test_the_shape_is_the_manifest_s(tiny: Model) -> None:
    shape, architecture = model_shape(tiny.manifest), tiny.manifest.architecture
    assert (shape.vocab_size, shape.num_layers, shape.num_kv_heads) == (architecture.vocab_size, 2, 2)
    assert shape.eos_token_ids == {0, 2}
    assert shape.token_bytes == 2 * 2 * 2 * 16 * 4


def test_settings_suit_the_machine(tiny: Model) -> None:
    manifest = tiny.manifest
    settings = default_settings(manifest)
    assert settings.threads == (psutil.cpu_count(logical=False) or 1)
    shape = model_shape(manifest)
    assert settings.kv_budget_bytes == 2 * settings.max_rows * shape.context_length * shape.token_bytes  # a tiny model
    large = manifest.model_copy(
        update={"architecture": manifest.architecture.model_copy(update={"context_length": 10**9})}
    )
    assert 0 < default_settings(large).kv_budget_bytes < psutil.virtual_memory().total / 2
    assert default_settings(manifest, max_rows=1).kv_budget_bytes * 8 == settings.kv_budget_bytes
    chosen = default_settings(manifest, threads=3, kv_budget_bytes=12345, max_context=None)
    assert chosen == replace(EngineSettings(), threads=3, kv_budget_bytes=12345)


@pytest.fixture(scope="module")
def smollm(smollm_package: Package) -> Iterator[Model]:
    with Model.load(smollm_package, default_settings(smollm_package.manifest, max_context=1024, max_rows=2)) as model:
        yield model


def test_the_real_model_answers_a_question(smollm_package: Package) -> None:
    """From the prefix cache it is the same each time; only the first run may round differently, in another shape.

    So may runs with drafts, whose lengths follow from what was measured: here there are none.
    """
    settings = default_settings(smollm_package.manifest, max_context=1024, max_rows=2, draft_tokens=0)
    with Model.load(smollm_package, settings) as smollm:
        params = smollm.default_params(temperature=0, max_tokens=40)
        first, second, third = (list(smollm.chat(QUESTION, params)) for _ in range(3))
    for answer in (first, second):
        assert "Paris" in text_of(answer)
        assert "<|" not in text_of(answer)
        assert answer[-1].finish_reason in (FinishReason.STOP, FinishReason.LENGTH)
    assert [chunk.token_ids for chunk in third] == [chunk.token_ids for chunk in second]
    assert first[0].tokens[0].cached_tokens == 0
    assert second[0].tokens[0].cached_tokens >= 32


def test_the_real_recipe_s_defaults(smollm: Model) -> None:
    assert smollm.name == "smollm2-135m-instruct"
    prompt = find_recipe(smollm.name).prompt
    params = smollm.default_params()
    stated = prompt.model_dump(exclude={"system"}, exclude_none=True)
    assert {"temperature", "top_p"} <= stated.keys()
    assert {name: getattr(params, name) for name in stated} == stated


def test_a_seeded_answer_is_repeated(smollm_package: Package) -> None:
    """Where the same runs are made: a cached prefix or a draft changes their shapes, and so how int8 sums round."""
    settings = default_settings(smollm_package.manifest, max_context=512, max_rows=1, draft_tokens=0)
    smollm = Model.load(smollm_package, replace(settings, prefix_cache=False))
    params = smollm.default_params(temperature=1.0, max_tokens=30, seed=11)
    answers = [text_of(list(smollm.chat(QUESTION, params))) for _ in range(2)]
    assert answers[0] == answers[1]
    other = text_of(list(smollm.chat(QUESTION, replace(params, seed=12))))
    assert other != answers[0]
