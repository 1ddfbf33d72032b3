"""The table of `check_tokenizers`: vocabularies in GGUF files against llama.cpp, on the corpus of hard strings."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgeai.errors import EdgeaiError
from edgeai.sources.gguf_format import GGUFFile
from edgeai.sources.gguf_tokenizer import read_tokenizer
from edgeai.text import Tokenizer
from tests.fixtures.texts import corpus
from tests.fixtures.tokenizer_golden import tokenize


def main() -> None:
    """One line of a Markdown table for each file of the folder."""
    print("| vocabulary | model | pre | tokens | texts | different |")
    print("|---|---|---|---:|---:|---:|")
    for path in sorted(Path(sys.argv[1]).glob("*.gguf")):
        print("| " + " | ".join(row(path)) + " |", flush=True)


def row(path: Path) -> list[str]:
    """Texts are compared with control tokens parsed, and with control tokens as text."""
    file = GGUFFile(path)
    tokens = file.metadata.get("tokenizer.ggml.tokens", [])
    kinds = [str(file.metadata.get(f"tokenizer.ggml.{key}", "")) for key in ("model", "pre")]
    cells = [path.stem.removeprefix("ggml-vocab-"), *kinds, str(len(tokens))]
    try:
        files = read_tokenizer(file, vocab_size=len(tokens))
    except EdgeaiError as error:
        return [*cells, "", error.message.removeprefix(f"{path.name}: ")]
    tokenizer = Tokenizer(files.tokenizer_json.decode(), bos_token_id=files.bos_token_id)
    cases = list(tokenize(path, [*corpus(), *around_control_tokens(tokenizer)]))
    different = sum(
        tokenizer.encode(case.text, parse_special=True) != case.special or tokenizer.encode(case.text) != case.plain
        for case in cases
    )
    return [*cells, str(len(cases)), str(different)]


def around_control_tokens(tokenizer: Tokenizer) -> list[str]:
    """Texts with the vocabulary's own control tokens."""
    names = [tokenizer.token_bytes(token).decode() for token in sorted(tokenizer.control_tokens)][:8]
    return [
        text
        for name in names
        for text in (name, f"a{name}b", f"  {name}  x", f"{name}\n\nuser {name}", name[:-1], name.upper())
    ]


if __name__ == "__main__":
    main()
