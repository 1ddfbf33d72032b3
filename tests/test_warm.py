"""Prompts that a package brings along computed: the same answers, sooner, whatever became of the file."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from edgeai.engine.config import EngineSettings
from edgeai.engine.request import SamplingParams, TokenOutput
from edgeai.errors import InvalidInput
from edgeai.model import DiskCache, Model, default_settings
from edgeai.package.adapters import AdapterStore
from edgeai.package.package import Package
from edgeai.package.store import Store
from edgeai.text.chat_template import ChatTemplate
from edgeai.warm import common_prefix, read_prompts, shared_beginning, warm
from tests.package.test_adapters import manifest as adapter_manifest
from tests.test_model import make_package

SETTINGS = EngineSettings(threads=1, max_rows=2, kv_budget_bytes=4 << 20, block_tokens=16)
SYSTEM = "Be brief, be kind, and answer in French, whatever the question was."
OTHER = "Answer with a poem of four lines, and do not use the letter e in it."
GREEDY = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True)
DATED = "{{ strftime_now('%d %B %Y') }}{% for m in messages %}{{ m.content }}{% endfor %}"


def ask(package: Package, system: str, user: str = "Why?", disk: DiskCache | None = None) -> tuple[list[int], int]:
    """The greedy answer of a fresh process, and how many tokens of the prompt needed no computing."""
    with Model.load(package, SETTINGS, disk=disk) as model:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        tokens = [token for chunk in model.chat(messages, GREEDY) for token in chunk.tokens]
    return [token.token_id for token in tokens], tokens[0].cached_tokens


def blocks_file(package: Package) -> Path:
    (name,) = package.warm_files
    return package.path / name


@pytest.fixture
def cold(tmp_path: Path) -> Package:
    return make_package(tmp_path)


@pytest.mark.parametrize("user", ["Why?", "\n\nhello", " x", "", "9 or 10?"])
def test_the_first_answer_is_the_same_without_computing_the_prompt(cold: Package, user: str) -> None:
    plain, computed = ask(cold, SYSTEM, user)
    warmed = warm(cold, [SYSTEM], SETTINGS)
    tokens, cached = ask(warmed, SYSTEM, user)
    assert tokens == plain
    assert computed == 0
    assert cached == warmed.manifest.warm[0].prompts[0] >= 64
    warmed.verify()


def test_another_prompt_is_computed(cold: Package) -> None:
    plain, _ = ask(cold, OTHER)
    assert ask(warm(cold, [SYSTEM], SETTINGS), OTHER) == (plain, 0)


def test_several_prompts_share_what_they_have_in_common(cold: Package) -> None:
    expected = [ask(cold, system)[0] for system in (SYSTEM, OTHER, SYSTEM + OTHER)]
    warmed = warm(cold, [SYSTEM, OTHER, SYSTEM + OTHER], SETTINGS)
    (entry,) = warmed.manifest.warm
    answers = [ask(warmed, system) for system in (SYSTEM, OTHER, SYSTEM + OTHER)]
    assert [tokens for tokens, _ in answers] == expected
    assert tuple(cached for _, cached in answers) == entry.prompts
    alone = sum(entry.prompts) // 16
    held = blocks_file(warmed).stat().st_size // (2 * 2 * 2 * 16 * 16 * 4)
    assert 0 < held < alone


def test_new_prompts_replace_the_old_and_none_removes_them(cold: Package) -> None:
    first = warm(cold, [SYSTEM], SETTINGS)
    second = warm(first, [OTHER], SETTINGS)
    assert (ask(second, SYSTEM)[1], ask(second, OTHER)[1] > 0) == (0, True)
    again = warm(second, [])
    assert again.digest == cold.digest
    again.verify()
    assert warm(again, [SYSTEM], SETTINGS).digest == first.digest  # the same prompt gives the same bytes


def test_a_damaged_file_costs_speed_and_nothing_else(cold: Package, caplog: pytest.LogCaptureFixture) -> None:
    plain, _ = ask(cold, SYSTEM)
    warmed = warm(cold, [SYSTEM], SETTINGS)
    data = blocks_file(warmed).read_bytes()
    size = len(data) * 16 // warmed.manifest.warm[0].prompts[0]
    for content in (data[:200] + b"?" + data[201:], data[: 2 * size + 5], data[size:] + data[:size][::-1], b""):
        blocks_file(warmed).write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            tokens, cached = ask(Package.open(warmed.path), SYSTEM)
        assert tokens == plain
        assert cached in (0, 32)
        assert "computed instead" in caplog.text


def test_blocks_on_disk_lie_below(cold: Package, tmp_path: Path) -> None:
    """What the package has is not written; what users add to it is."""
    warmed = warm(cold, [SYSTEM], SETTINGS)
    disk = DiskCache(tmp_path / "kv", 1 << 24, 1 << 24)
    user = "Tell me more than one block of it."
    first, cached = ask(warmed, SYSTEM, user, disk)
    assert cached == warmed.manifest.warm[0].prompts[0]
    on_disk = len(list((tmp_path / "kv").rglob("*.kv")))
    assert on_disk > 0
    again, more = ask(warmed, SYSTEM, user, disk)
    assert again == first
    assert cached < more <= cached + 16 * on_disk


def test_the_disk_s_blocks_stay_when_prompts_are_added(cold: Package, tmp_path: Path) -> None:
    disk = DiskCache(tmp_path / "kv", 1 << 24, 1 << 24)
    ask(cold, OTHER, disk=disk)
    assert ask(warm(cold, [SYSTEM], SETTINGS), OTHER, disk=disk)[1] > 0


def test_installed_adapters_still_fit(cold: Package, tmp_path: Path) -> None:
    adapter = AdapterStore(tmp_path).add(adapter_manifest(digest=cold.model_digest), [])
    assert adapter.fits(cold)
    assert adapter.fits(warm(cold, [SYSTEM], SETTINGS))


def test_an_installed_package_keeps_them(cold: Package, tmp_path: Path) -> None:
    warmed = warm(cold, [SYSTEM], SETTINGS)
    installed = Store(tmp_path / "home").install(warmed.path)
    assert ask(installed, SYSTEM)[1] == warmed.manifest.warm[0].prompts[0]


def test_a_cache_of_other_blocks_computes(cold: Package) -> None:
    warmed = warm(cold, [SYSTEM], replace(SETTINGS, block_tokens=32))
    assert ask(warmed, SYSTEM)[1] == 0


def test_a_text_model_s_prompt_is_its_beginning(tmp_path: Path) -> None:
    package = make_package(tmp_path, template=False)
    warmed = warm(package, [SYSTEM], SETTINGS)
    with Model.load(warmed, SETTINGS) as model:
        outputs = [token for chunk in model.complete(SYSTEM + " And so", GREEDY) for token in chunk.tokens]
    assert outputs[0].cached_tokens == warmed.manifest.warm[0].prompts[0] > 0


def test_a_date_in_front_of_the_prompt_leaves_nothing_to_share(cold: Package) -> None:
    with Model.load(cold, SETTINGS) as model:
        model.template = ChatTemplate(DATED, {})
        with pytest.raises(InvalidInput, match="share only 0 tokens") as caught:
            shared_beginning(model, SYSTEM)
        assert "date" in caught.value.hint


def test_prompts_too_short_or_too_long_are_refused_and_the_package_stays(cold: Package) -> None:
    for prompt, problem in (("", "share only"), ("word " * 300, "the context has")):
        with pytest.raises(InvalidInput, match=problem):
            warm(cold, [SYSTEM, prompt], SETTINGS)
        assert Package.open(cold.path, verify=True).digest == cold.digest
    assert [path.name for path in cold.path.parent.iterdir() if path.name.startswith(".edgeai")] == []


def test_prompts_are_read_as_a_shell_reads_them(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("Be kind.\nAlways.\n\n")
    assert read_prompts([tmp_path / "a"]) == ["Be kind.\nAlways."]
    (tmp_path / "b").write_text(" \n")
    (tmp_path / "c").write_bytes(b"\xff\xfe")
    for name, problem in (("b", "empty"), ("c", "cannot be read"), ("d", "cannot be read")):
        with pytest.raises(InvalidInput, match=problem):
            read_prompts([tmp_path / name])


def test_common_prefix() -> None:
    assert common_prefix([[1, 2, 3], [1, 2, 4, 5], [1, 2]]) == [1, 2]
    assert common_prefix([[1], [2]]) == []
    assert common_prefix([[], [2]]) == []


def real_answer(model: Model, system: str, count: int = 40) -> list[TokenOutput]:
    question = [{"role": "system", "content": system}, {"role": "user", "content": "What is this text about?"}]
    params = replace(GREEDY, max_tokens=count, logprobs=5)
    return [token for chunk in model.chat(question, params) for token in chunk.tokens]


def test_the_real_model_answers_from_them_as_from_its_own_cache(smollm_package: Package, tmp_path: Path) -> None:
    """Where the arithmetic is the same, so is the answer. A first run without any cache reads the end of the prompt in
    one chunk with what is before it, and int8 kernels round differently then: near, but near-ties may fall otherwise.
    So they may with drafts, whose length follows the clock.
    """
    system = (Path(__file__).parent / "data" / "held_out.txt").read_text()[:1500]
    package = Store(tmp_path).install(smollm_package.path)
    settings = default_settings(package.manifest, max_context=1024, max_rows=1, draft_tokens=0)
    with Model.load(package, settings) as model:
        uncached = real_answer(model, system, 1)
    with Model.load(package, settings) as model:
        list(model.stream(shared_beginning(model, system), replace(GREEDY, max_tokens=1)))
        own = real_answer(model, system)
    with Model.load(warm(package, [system], settings), settings) as model:
        warmed = real_answer(model, system)
    assert warmed == own
    assert warmed[0].cached_tokens >= 256
    first, second = ({one.token_id: one.logprob for one in answer[0].top_logprobs} for answer in (uncached, warmed))
    assert first.keys() == second.keys()
    assert max(abs(first[token] - second[token]) for token in first) < 0.1
