"""A compiler over the real vocabulary of SmolLM2."""

from __future__ import annotations

import pytest

from edgeai.grammar.compiler import GrammarCompiler
from edgeai.text import Tokenizer

EOS = (2, 0)


@pytest.fixture(scope="session")
def compiler(smollm_tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(smollm_tokenizer, EOS)
