"""`edgeai run`, `chat`, `bench` and `eval` on a tiny model: it talks nonsense, but always the same."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from edgeai.package import Package
from tests.cli.conftest import Cli

GREEDY = ("--temperature", "0", "--max-tokens", "12")

pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What standard input holds: no terminal, but a pipe."""
    text = io.StringIO()
    monkeypatch.setattr("sys.stdin", text)
    return text


def type_lines(typed: io.StringIO, *lines: str) -> None:
    typed.write("".join(f"{line}\n" for line in lines))
    typed.seek(0)


def test_run_prints_the_answer_and_json_holds_it_too(cli: Cli) -> None:
    result = cli("run", "tiny", "Hello", *GREEDY)
    assert (result.code, result.err) == (0, "")
    document = cli("run", "tiny", "Hello", *GREEDY, "--json").document
    assert set(document) == {"text", "token_ids", "finish_reason", "timings"}
    assert document["text"] + "\n" == result.out
    assert len(document["token_ids"]) == 12
    assert document["finish_reason"] == "length"
    timings = document["timings"]
    assert set(timings) == {
        "load_seconds",
        "prompt_tokens",
        "first_token_seconds",
        "generated_tokens",
        "tokens_per_second",
    }
    assert timings["generated_tokens"] == 12
    assert timings["prompt_tokens"] > len("Hello")
    assert timings["tokens_per_second"] > 0


def test_run_takes_a_folder_and_reads_standard_input(cli: Cli, installed: Package, typed: io.StringIO) -> None:
    expected = cli("run", "tiny", "Hello", *GREEDY).out
    typed.write("Hello")
    typed.seek(0)
    assert cli("run", installed.path, "-", *GREEDY).out == expected


def test_a_seed_repeats_and_a_system_prompt_is_read(cli: Cli) -> None:
    def answer(*options: str) -> list[int]:
        ids: list[int] = cli("run", "tiny", "Hello", "--max-tokens", "8", "--json", *options).document["token_ids"]
        return ids

    assert answer("--seed", "7") == answer("--seed", "7")
    assert answer("--seed", "7") != answer("--seed", "8")
    plain = cli("run", "tiny", "Hello", *GREEDY, "--json").document["timings"]["prompt_tokens"]
    with_system = cli("run", "tiny", "Hello", *GREEDY, "--json", "--system", "Be kind.").document
    assert with_system["timings"]["prompt_tokens"] > plain


def test_a_value_out_of_range_is_named(cli: Cli) -> None:
    result = cli("run", "tiny", "Hello", "--temperature", "-1", "--json")
    assert result.code == 1
    assert "temperature" in result.document["error"]["message"]


def test_a_prompt_longer_than_the_context_is_refused(cli: Cli) -> None:
    result = cli("run", "tiny", "word " * 400, "--json")
    assert result.code == 1
    assert result.document["error"]["type"] == "ContextLengthExceeded"


def test_chat_answers_line_by_line(cli: Cli, typed: io.StringIO) -> None:
    type_lines(typed, "Hello", "", "/reset", "Hello", "/quit", "Hello")
    result = cli("chat", "tiny", *GREEDY)
    assert result.code == 0
    first = cli("run", "tiny", "Hello", *GREEDY).out
    assert result.out == first * 2, "both times from the start, and nothing after /quit"
    assert "forgotten" in result.err


@pytest.mark.parametrize(("between", "fits"), [("", False), ("/reset", True)], ids=["grows", "reset"])
def test_chat_remembers_until_it_is_reset(cli: Cli, typed: io.StringIO, between: str, fits: bool) -> None:
    """Four turns of about 90 tokens fit a context of 256 one by one, but not together."""
    type_lines(typed, *["word " * 15, between] * 4)
    result = cli("chat", "tiny", *GREEDY)
    assert result.code == 0
    assert ("/reset starts afresh" not in result.err) == fits


def test_chat_explains_itself_and_survives_what_it_does_not_know(cli: Cli, typed: io.StringIO) -> None:
    type_lines(typed, "/help", "/what", "word " * 400, "Hello")
    result = cli("chat", "tiny", *GREEDY)
    assert "/reset" in result.err
    assert "there is no /what" in result.err
    assert "/reset starts afresh" in result.err
    assert result.out == cli("run", "tiny", "Hello", *GREEDY).out, "what did not fit is not remembered"


def test_eval_gives_perplexity_and_tokens(cli: Cli, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 20)
    document = cli("eval", "tiny", "--text", text, "--context", "64", "--json").document
    assert document["perplexity"] > 1
    assert document["tokens"] > 64
    assert document["context"] == 64
    assert "perplexity" in cli("eval", "tiny", "--text", text, "--context", "64").out


def test_eval_refuses_what_is_no_text(cli: Cli, tmp_path: Path) -> None:
    text = tmp_path / "text.bin"
    text.write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8" in cli("eval", "tiny", "--text", text, "--json").document["error"]["message"]
    assert cli("eval", "tiny", "--text", tmp_path / "missing").code == 2
    text.write_text("short")
    assert cli("eval", "tiny", "--text", text, "--json").document["error"]["type"] == "InvalidInput"


def test_serve_refuses_settings_that_make_no_sense(cli: Cli) -> None:
    assert "port is 70000" in cli("serve", "--port", "70000").err
    assert "'much' is not a size" in cli("serve", "--kv-budget", "much").err
    assert "no model is called 'nothing'" in cli("serve", "--port", "0", "--model", "nothing").err
