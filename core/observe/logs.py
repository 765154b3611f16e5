"""Logging: one line an event on standard error, for people or as JSON.

The text of people and models is logged only on request, and secrets never: even one in an
exception's text is redacted as the line is written.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

import structlog
from pydantic import SecretStr
from structlog.typing import EventDict, Processor, WrappedLogger

from core.settings import Settings

_ACTIVE = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0 and C1 controls: terminal commands, and ends of lines
    "\u2028\u2029"  # ends of lines for some readers
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that reorder text
    "\ud800-\udfff"  # no characters at all
    "]"
)


def printable(text: str, keep: str = "") -> str:
    """`text` with an escape such as ``\\x1b`` for each such character that is not in `keep`."""
    return _ACTIVE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def printable_json(value: object) -> str:
    """`value` as one line of JSON."""
    text = json.dumps(value, ensure_ascii=False)
    return _ACTIVE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def printable_block(text: str) -> str:
    """The same over several lines: all but the first are indented, so that none looks like a
    separate entry."""
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n    ".join(printable(line, keep="\t") for line in lines)


CONTENT = frozenset(("text", "content", "prompt", "reply"))
"""The names of values with text of people and models."""

REDACTED = "[secret]"

LONGEST_VALUE = 2_000
LONGEST_TRACE = 20_000
LONGEST_ERROR = 300
"""Characters of a value, of a traceback, and of the newest error, that are kept."""

SECRET_PATTERNS = (
    re.compile(r"(\bBearer )[\w.~+/=-]{8,}"),
    re.compile(r"(://[^/\s:@\"']*:)[^/\s@\"']+(?=@)"),  # the password in an address
    re.compile(
        r"([?&][\w.-]*(?:token|key|secret|ticket|signature|sig|password)=)[^\s&#\"'<>]+", re.I
    ),
)
"""Secrets that are in no setting: the first group is kept."""


@dataclass(frozen=True, slots=True)
class Redaction:
    """Removes known secrets, and text that looks like one, from each line."""

    secrets: frozenset[str] = frozenset()
    patterns: tuple[re.Pattern[str], ...] = SECRET_PATTERNS
    """The first group of each match is kept."""

    @classmethod
    def of(cls, *settings: Settings, patterns: tuple[re.Pattern[str], ...] = ()) -> Redaction:
        """A redaction of these settings' secrets, with more patterns."""
        found = [secret for each in settings for secret in secrets_in(each)]
        return cls(frozenset(found), (*SECRET_PATTERNS, *patterns))

    def redact(self, text: str) -> str:
        """`text` without the secrets."""
        for secret in self.secrets:
            text = text.replace(secret, REDACTED)
        for pattern in self.patterns:
            text = pattern.sub(rf"\g<1>{REDACTED}", text)
        return text


def set_up_logging(settings: Settings, redaction: Redaction | None = None) -> None:
    """Configure the logs of this process and of its libraries by the settings.

    `redaction`: by default the secrets of `settings`.
    """
    shared = _processors(settings)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(settings, shared, redaction or Redaction.of(settings)))
    logging.raiseExceptions = False  # a terminal that is gone must not disturb the work
    root = logging.getLogger()
    root.handlers[:] = [handler]
    _set_levels(root, settings)


def _set_levels(root: logging.Logger, settings: Settings) -> None:
    ours = logging.getLevelNamesMapping()[settings.log_level.upper()]
    # libraries write whole messages into their finer logs
    root.setLevel(ours if settings.log_content else max(ours, logging.WARNING))
    for package in ("core", "storage", "bots"):
        logging.getLogger(package).setLevel(ours)


def _processors(settings: Settings) -> list[Processor]:
    processors: list[Processor] = [
        structlog.stdlib.filter_by_level,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,  # no values of variables
    ]
    return processors if settings.log_content else [*processors, _without_content]


def _without_content(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {name: value for name, value in event.items() if name not in CONTENT}


def _sanitize_values(
    redaction: Redaction, _: WrappedLogger, __: str, event: EventDict
) -> EventDict:
    """Values come from outside: each is one line, without controls, of limited length."""
    harmless = {name: _sanitized(redaction, name, value) for name, value in event.items()}
    if harmless.get("level") in ("error", "critical"):
        _newest_error.append((time.time(), _in_one_line(harmless)))
    return harmless


_newest_error: deque[tuple[float, str]] = deque(maxlen=1)


def newest_error() -> tuple[float, str]:
    """The time and the line of the newest error that this process logged; or (0, empty)."""
    return _newest_error[-1] if _newest_error else (0.0, "")


def _in_one_line(event: Mapping[str, Any]) -> str:
    trace = str(event.get("exception") or "").strip().rpartition("\n")[2]
    why = event.get("error") or event.get("why") or event.get("reason") or trace
    return f"{event.get('event', '')}: {why}"[:LONGEST_ERROR] if why else str(event.get("event"))


def _sanitized(redaction: Redaction, name: str, value: Any) -> Any:
    match value:
        case str():
            trace = name == "exception"
            text = redaction.redact(value)  # first: half a secret would not be recognized
            longest = LONGEST_TRACE if trace else LONGEST_VALUE
            clipped = text if len(text) <= longest else f"{text[:longest]}…"
            return printable(clipped, keep="\n" if trace else "")
        case Mapping():
            return {
                printable(str(key)): _sanitized(redaction, name, each)
                for key, each in value.items()
            }
        case list() | tuple():
            return [_sanitized(redaction, name, each) for each in value]
    return value


def _formatter(
    settings: Settings, shared: list[Processor], redaction: Redaction
) -> logging.Formatter:
    render: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    return _RedactingFormatter(
        redaction,
        foreign_pre_chain=shared[1:],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            partial(_sanitize_values, redaction),
            render,
        ],
    )


class _RedactingFormatter(structlog.stdlib.ProcessorFormatter):
    """Redacts known secrets in every line."""

    def __init__(
        self,
        redaction: Redaction,
        *,
        foreign_pre_chain: list[Processor],
        processors: list[Processor],
    ) -> None:
        super().__init__(processors=processors, foreign_pre_chain=foreign_pre_chain)
        self._redaction = redaction

    def format(self, record: logging.LogRecord) -> str:
        return self._redaction.redact(super().format(record))


def _password_in(address: str) -> str:
    """The password of a URL, even if it has a ``/``, ``?`` or ``#`` that should be escaped."""
    credentials, _, _ = address.partition("://")[2].rpartition("@")
    return credentials.partition(":")[2]


def secrets_in(settings: Settings) -> frozenset[str]:
    """Every value of the settings that must not be seen."""
    values = [getattr(settings, name) for name in type(settings).model_fields]
    found = {value.get_secret_value() for value in values if isinstance(value, SecretStr)}
    for address in (settings.redis_url, settings.openai_base_url, settings.otlp_endpoint):
        password = _password_in(address or "")
        found |= {password, unquote(password)}
    # as they are escaped in JSON and in a repr, too
    escaped = {quote(value)[1:-1] for value in found for quote in (json.dumps, repr)}
    return frozenset((found | escaped) - {""})
