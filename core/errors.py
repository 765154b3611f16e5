"""Every error of the project, in one tree.

    HenjiError
    ├── ChatError                 fit to show to a person in the chat; its code names the sentence
    │   ├── TurnTooLong           one message alone is over what the model can read
    │   └── PromptUnavailable     the prompt of a reply to regenerate is no longer kept
    └── OperatorError             fit to show to the operator; one clear sentence
        ├── UsageError            the command line or a setting is wrong (exit status 2)
        ├── ModelError            a model is missing, broken or does not fit together
        ├── StoreUnavailable      Redis does not answer
        └── EngineError           the engine could not go on with a request
            └── EngineRefused     and no retry can succeed

An exception of neither family is a defect: it is logged with its job's id and answered with one
calm sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit


class HenjiError(Exception):
    """The root of everything raised on purpose."""


class ChatError(HenjiError):
    """An end of a job that is shown to the person as the sentence named `code`."""

    code: ClassVar[str] = "internal"


class TurnTooLong(ChatError):
    """The newest turn alone does not fit the model's context beside a reply."""

    code = "too_long"

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(f"the turn takes {tokens} tokens, and {limit} is the most")
        self.tokens = tokens
        self.limit = limit


class PromptUnavailable(ChatError):
    """A reply cannot be regenerated: the turn that it answers was evicted."""

    code = "prompt_gone"


class OperatorError(HenjiError):
    """One clear sentence for the operator."""


class UsageError(OperatorError):
    """A wrong setting or command line."""


class ModelError(OperatorError):
    """A model that cannot be found or loaded; the message names the file or the setting."""


class StoreUnavailable(OperatorError):
    """Redis cannot be reached, or does not take writes."""


class EngineError(OperatorError):
    """The engine gave up on a request; another attempt may succeed."""


class EngineRefused(EngineError):
    """The engine will not take this request, however often it is tried."""


def in_brief(error: BaseException) -> str:
    """The first sentence of a library's error without its full stop, to end a sentence of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    return re.split(r"(?<=[.!?])\s", first)[0][:200].rstrip(".:, ")


def without_secret(words: str, secret: str | None) -> str:
    """A server's words without the key that it was sent: some repeat it in their errors. A secret
    of under eight characters, such as "none", opens nothing."""
    return words.replace(secret, "…") if secret and len(secret) >= 8 else words


def install_command(extra: str) -> str:
    """Such as ``pip install '/srv/henji[slack]'``."""
    record = distribution("henji").read_text("direct_url.json") or "{}"
    return command_for(json.loads(record), extra)


def command_for(origin: dict[str, Any], extra: str) -> str:
    """The command for an origin, as the installer recorded it: a checkout, a wheel, or nothing (PEP
    610)."""
    path = Path(unquote(urlsplit(origin.get("url", "")).path))
    if not path.name or not path.exists():
        return f"pip install 'PATH[{extra}]', with the path of Henji's wheel or checkout"
    editable = origin.get("dir_info", {}).get("editable")
    return f"pip install {'--editable ' * bool(editable)}'{path}[{extra}]'"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the writing inside into an OperatorError, one sentence."""
    try:
        yield
    except OSError as error:
        raise OperatorError(f"{path} cannot be written: {error.strerror}") from None


NOT_TEXT = "holds half of a character (a lone surrogate)"
"""The end of a sentence about a string that `is_text` refuses."""


def is_text(words: str) -> bool:
    """Whether a string from outside could be decoded; if not, it has lone surrogates."""
    try:
        words.encode()
    except UnicodeEncodeError:
        return False
    return True
