"""Text and token ids: tokenizer, chat template, and what turns a stream of ids back into text."""

from edgeai.text.chat_template import ChatTemplate
from edgeai.text.prompt import encode_chat
from edgeai.text.stream import Detokenizer, StopStrings
from edgeai.text.tokenizer import Tokenizer

__all__ = ["ChatTemplate", "Detokenizer", "StopStrings", "Tokenizer", "encode_chat"]
