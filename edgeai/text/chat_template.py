"""Chat templates: Jinja in a sandbox, rendering as transformers' `apply_chat_template` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import jinja2.meta

from edgeai.errors import InvalidInput, PackageError
from edgeai.text.template_sandbox import BUDGET, MAX_SOURCE, Budget, bounded, environment

_ENVIRONMENT = environment()


class ChatTemplate:
    """A compiled chat template with the special tokens (`bos_token`, ...) it may name."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compile `source`. Raises `PackageError` with the line when it is not a valid template."""
        if len(source) > MAX_SOURCE:
            raise PackageError(f"the chat template has more than {MAX_SOURCE} characters")
        self.source = source
        self._variables: frozenset[str] | None = None
        self._special_tokens = dict(special_tokens)
        try:
            self._template = _ENVIRONMENT.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise PackageError(f"the chat template is not valid: line {error.lineno}: {error.message}") from error
        except RecursionError as error:
            raise PackageError("the chat template is nested too deeply") from error

    @property
    def variables(self) -> frozenset[str]:
        """Names of the variables that it looks at."""
        if self._variables is None:
            self._variables = frozenset(jinja2.meta.find_undeclared_variables(_ENVIRONMENT.parse(self.source)))
        return self._variables

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **extra: Any,
    ) -> str:
        """The prompt for `messages`, ending where the model's reply begins when `add_generation_prompt` is set.

        `extra` are further template variables (`enable_thinking`, `documents`, ...). Raises `InvalidInput` with the
        template's own words when it refuses the messages, and when it takes too long or writes too much.
        """
        variables = {
            "documents": None,
            **self._special_tokens,
            **extra,
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
            BUDGET: Budget(),
        }
        try:
            return bounded(self._template.generate(variables))
        except jinja2.TemplateError as error:
            raise InvalidInput(f"the chat template refused the messages: {error}", param="messages") from error
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise InvalidInput(
                f"the chat template cannot render these messages: {what}", "check roles and contents", param="messages"
            ) from error
        except (RecursionError, MemoryError) as error:
            raise InvalidInput("the chat template takes too much to render", param="messages") from error
