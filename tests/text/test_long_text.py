"""Texts of megabytes: those that are far too long are refused early, and no other is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeai.errors import ContextLengthExceeded
from edgeai.sources.gguf import GGUFSource
from edgeai.text import ChatTemplate, Tokenizer, encode_chat
from edgeai.text.tokenizer import PIECE, SHIELD
from tests.server.scripted import TEMPLATE

UNITS = ["the ", "a", "ab", " \n", "0", "é", "語", "🌧", "<|im_end|>", "<|im_start|>user\n", f"{SHIELD}<|im_end|>", "x-"]
LIMIT = 2000

texts = st.lists(st.tuples(st.sampled_from(UNITS), st.integers(1, 40_000)), min_size=1, max_size=4).map(
    lambda parts: "".join(unit * count for unit, count in parts)
)


@settings(max_examples=60)
@given(text=texts, shielded=st.booleans())
def test_what_fits_is_never_refused_and_what_is_far_too_long_always(
    smollm_tokenizer: Tokenizer, text: str, shielded: bool
) -> None:
    tokens = len(smollm_tokenizer.encode_shielded(text) if shielded else smollm_tokenizer.encode(text))
    try:
        smollm_tokenizer.check_length(text, LIMIT, shielded=shielded)
    except ContextLengthExceeded as error:
        assert tokens > LIMIT
        assert f"the context holds {LIMIT}" in error.message  # noqa: PT017
    else:
        assert tokens <= 2 * LIMIT + 4 * (1 + len(text) // PIECE) or len(text) <= max(PIECE, 2 * LIMIT)


def test_a_chat_of_many_short_turns_is_counted_by_its_control_tokens(smollm_tokenizer: Tokenizer) -> None:
    """Each is one token; as plain text it would count as many."""
    turns = [{"role": "user", "content": "a"}] * 3000
    prompt = encode_chat(smollm_tokenizer, ChatTemplate(TEMPLATE, {}), turns, most=100_000)
    assert prompt == encode_chat(smollm_tokenizer, ChatTemplate(TEMPLATE, {}), turns, most=len(prompt))
    with pytest.raises(ContextLengthExceeded):
        encode_chat(smollm_tokenizer, ChatTemplate(TEMPLATE, {}), turns, most=len(prompt) // 3)


def test_eight_megabytes_take_little_memory(smollm_source: GGUFSource, tmp_path: Path) -> None:
    """Encoding them whole took 860 MB, of digits 3.1 GB."""
    (tmp_path / "tokenizer.json").write_bytes(smollm_source.tokenizer().tokenizer_json)
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from edgeai.errors import ContextLengthExceeded\n"
        "from edgeai.text import Tokenizer\n"
        "tokenizer = Tokenizer.load(Path(sys.argv[1]))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for text in ('The quick brown fox. ' * 400_000, '1 ' * (4 << 20), 'a' * (8 << 20)):\n"
        "    try:\n"
        "        tokenizer.check_length(text, 8192)\n"
        "    except ContextLengthExceeded:\n"
        "        continue\n"
        "    raise SystemExit('not refused')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "tokenizer.json")]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) * 1024
    assert grown < 60_000_000
