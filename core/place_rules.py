"""Rules for a place: who may ask, how much, and how the bot answers there.

A rule is set for a space or for a channel, in henji.toml or by an admin in the chat; what is set
for the channel goes before what is set for its space, and what an admin set goes before the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from core.errors import UsageError
from core.types import Sampling, ThreadKey

Ident: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[^\s,:@<>&|#]{1,64}$")]
"""A platform's id of a person, a role, a channel or a space. A name with an @ is none: a list that
held one would let through whom it was to keep out."""

Entry: TypeAlias = Annotated[str, StringConstraints(pattern=r"^(\w+:)?[^\s,:@<>&|#]{1,64}$")]
"""The same in a list that holds for all platforms: ``U024``, or ``slack:U024``."""

Lane: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[^\s:{}]{1,128}$")]

Count: TypeAlias = Annotated[int, Field(ge=0, le=10**9)]


class Rules(BaseModel):
    """What is set for one place; None: nothing. Quotas are for a day, and 0 is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    enabled: bool | None = None
    """False: nobody is answered here."""
    allow_people: tuple[Ident, ...] | None = None
    """Only these, and who has one of `allow_roles`."""
    deny_people: tuple[Ident, ...] | None = None
    allow_roles: tuple[Ident, ...] | None = None
    deny_roles: tuple[Ident, ...] | None = None

    person_messages: Count | None = None
    """A person's messages that are answered."""
    person_tokens: Count | None = None
    """Tokens of the prompts and replies of a person's messages."""
    channel_messages: Count | None = None
    channel_tokens: Count | None = None

    model: Lane | None = None
    """The lane that answers: one that a core of that model serves."""
    system_prompt: Annotated[str, Field(max_length=8000)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=5, strict=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, strict=False)] | None = None
    top_k: Annotated[int, Field(ge=0, le=10**6)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10, strict=False)] | None = None

    follow_up: Literal["always", "alone", "mention"] | None = None
    """In a thread that the bot takes part in: answer everything, what one person says while they
    are alone with it, or mentions only."""
    retention_days: Annotated[float, Field(ge=1, le=400, strict=False)] | None = None
    """A thread that is quiet for so long is forgotten."""

    def over(self, below: Rules) -> Rules:
        """These, and `below` where these say nothing."""
        return below.model_copy(update=self.set_here())

    def set_here(self) -> dict[str, Any]:
        """The rules that are set, by name."""
        return {name: value for name in NAMES if (value := getattr(self, name)) is not None}

    def sampling(self, default: Sampling) -> Sampling:
        """How the next token is chosen here."""
        return Sampling(
            temperature=_first(self.temperature, default.temperature),
            top_p=_first(self.top_p, default.top_p),
            top_k=_first(self.top_k, default.top_k),
            repetition_penalty=_first(self.repetition_penalty, default.repetition_penalty),
        )


MAX_SHOWN = 60
"""Characters of a wrong value that a sentence repeats."""

NAMES = tuple(Rules.model_fields)
NO_RULES = Rules()
DAY = 24 * 3600

QUOTAS = ("person_messages", "person_tokens", "channel_messages", "channel_tokens")
CEILINGS = (*QUOTAS, "max_new_tokens", "retention_days")
"""The rules that can have a ceiling."""


def scopes(thread: ThreadKey) -> tuple[str, str]:
    """What a thread's space and channel are called: ``slack:T024`` and ``slack:T024:C123``."""
    parts = str(thread).split(":")
    return ":".join(parts[:2]), ":".join(parts[:3])


def _first(value: Any, default: Any) -> Any:
    return default if value is None else value


def read_rules(table: Mapping[str, Any], where: str) -> Rules:
    """Rules as a file or the store has them; UsageError, one sentence, where they are wrong."""
    try:
        return Rules.model_validate_json(json.dumps(table))
    except (ValidationError, TypeError, ValueError) as error:
        raise UsageError(f"{where}: {_describe(error)}") from None


def rule_from_text(name: str, text: str | None, ids: Callable[[str], str] = str) -> Any:
    """The value of a rule as a person types it; None for None; UsageError where it is none.

    Lists are written with commas, an empty list as ``-``, truth as ``on`` and ``off``. `ids` puts
    ids for the mentions of people and roles in a list, as its platform writes them.
    """
    if name not in NAMES:
        raise UsageError(f"{name} is no rule{_suggestion(name)}")
    if text is None:
        return None
    where = f"{name} = {text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + '…'}"
    return getattr(read_rules({name: _parse(name, text.strip(), ids)}, where), name)


def _parse(name: str, text: str, ids: Callable[[str], str]) -> Any:
    kind = str(Rules.model_fields[name].annotation)
    if "tuple" in kind:
        return [part for part in re.split(r"[\s,]+", ids(text)) if part not in ("", "-")]
    if "bool" in kind:
        return {"on": True, "true": True, "off": False, "false": False}.get(text.lower(), text)
    if "int" in kind or "float" in kind:
        number = text.replace("_", "")
        return int(number) if re.fullmatch(r"[+-]?\d{1,18}", number) else _float(number)
    return text


def _float(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _suggestion(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, NAMES, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are {', '.join(NAMES)}"


def _describe(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "this is no table of rules"
    fault = error.errors()[0]
    name = str(fault["loc"][0]) if fault["loc"] else ""
    if fault["type"] == "extra_forbidden":
        return f"{name} is no rule{_suggestion(name)}"
    if fault["type"] == "string_pattern_mismatch":
        wanted = "the name of a model" if name == "model" else "an id such as U024 or 8123"
        return f"{name} is wrong: {str(fault['input'])[:MAX_SHOWN]!r} is not {wanted}"
    return f"{name} is wrong: {fault['msg'][:1].lower()}{fault['msg'][1:]}"
