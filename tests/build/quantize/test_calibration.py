"""Calibration text: a fair mixture whatever its length, in the model's own template, or a text of one's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgeai.build.quantize.calibration import FOLDER, LEAST, SEGMENT, calibration_segments
from edgeai.errors import InvalidInput
from edgeai.sources.gguf import GGUFSource
from edgeai.sources.weights import TokenizerFiles
from edgeai.text import Tokenizer
from tests.fixtures.sources import DATA


@pytest.fixture(scope="module")
def files(smollm_source: GGUFSource) -> TokenizerFiles:
    return smollm_source.tokenizer()


def text_of(files: TokenizerFiles, segments: list[list[int]]) -> str:
    tokenizer = Tokenizer(files.tokenizer_json.decode(), bos_token_id=files.bos_token_id)
    return "".join(tokenizer.decode(segment, skip_control=False) for segment in segments)


def test_every_prefix_is_a_mixture(files: TokenizerFiles) -> None:
    segments = calibration_segments(files, 6000)
    assert 6000 <= sum(map(len, segments)) < 6000 + SEGMENT
    assert all(LEAST <= len(segment) <= SEGMENT for segment in segments)
    text = text_of(files, segments)
    for piece in ("<|im_start|>user\n", "的", "है", "من", "def ", " kwa ", " yang "):
        assert piece in text
    assert segments == calibration_segments(files, 12000)[: len(segments)]


def test_all_of_it_is_used_where_all_is_asked_for(files: TokenizerFiles) -> None:
    everything = calibration_segments(files, 10**9)
    assert len(list(FOLDER.iterdir())) >= 12
    assert sum(map(len, everything)) > 15000


def test_models_without_a_template_read_chats_as_text(files: TokenizerFiles) -> None:
    text = text_of(files, calibration_segments(replace(files, chat_template=None), 10**9))
    assert "why the sky is blue?" in text
    assert "<|im_start|>" not in text


def test_segments_are_led_by_bos_where_the_model_wants_it(files: TokenizerFiles) -> None:
    led = calibration_segments(replace(files, add_bos=True, bos_token_id=1), 4000)
    assert {segment[0] for segment in led} == {1}
    assert max(map(len, led)) == SEGMENT


def test_a_text_of_one_s_own(files: TokenizerFiles, tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("The quick brown fox. " * 400, encoding="utf-8")
    assert set(text_of(files, calibration_segments(files, 10**9, own)).split()) >= {"quick", "fox."}
    own.write_text("short", encoding="utf-8")
    with pytest.raises(InvalidInput, match="less than 32 tokens"):
        calibration_segments(files, 1000, own)
    with pytest.raises(InvalidInput, match="cannot be read"):
        calibration_segments(files, 1000, tmp_path / "missing.txt")


def test_held_out_text_is_not_in_it() -> None:
    """What quality is measured on is never calibrated with."""
    calibration = " ".join(" ".join(path.read_text(encoding="utf-8").split()) for path in FOLDER.iterdir())
    for path in DATA.glob("held_out*.txt"):
        words = path.read_text(encoding="utf-8").split()
        for start in range(0, len(words) - 12, 12):
            assert " ".join(words[start : start + 12]) not in calibration
