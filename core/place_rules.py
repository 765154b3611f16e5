"""Rules for a place: who may ask, how much, and how the bot answers there.

A rule is set for a space or for a channel, in henji.toml or by an admin in the chat. A channel's
rule takes precedence over its space's, and an admin's over the file's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from core.errors import UsageError
from core.types import Sampling, Thinking, ThreadKey

Ident: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[^\s,:@<>&|#]{1,64}$")]
"""A platform's id of a person, a role, a channel or a space. A name with an @ is not an
id: a list would not match it, and would let that person through."""

Entry: TypeAlias = Annotated[str, StringConstraints(pattern=r"^(\w+:)?[^\s,:@<>&|#]{1,64}$")]
"""An id in a list for all platforms: ``U024``, or ``slack:U024``."""

Lane: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[^\s:{}]{1,128}$")]

Count: TypeAlias = Annotated[int, Field(ge=0, le=10**9)]

DuelRule: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[^\s:{}]{1,128}:(0|1|0?\.\d{1,6}|1\.0{1,6})$")
]
"""``MODEL:SHARE``, as in ``rinna-sft-v2:0.2``."""


UNSET = "default"
"""The value that unsets a rule or a choice."""
UNSETTING = (UNSET, "unset")
"""Both unset a rule. For `thinking` the first is a value: as the model is set."""


def _is_no_default(name: str) -> str:
    if name == UNSET:
        raise ValueError(f"{UNSET} is what a place has without one")
    return name


MOST_OFFERED = 25
"""The most models, and personas, in a place: Discord's pickers show no more."""

PersonaName: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[^\s:{}]{1,32}$"), AfterValidator(_is_no_default)
]
OfferedLane: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^[^\s:{}]{1,75}$"), AfterValidator(_is_no_default)
]
"""A lane that people can choose: short enough for every platform's picker."""


class Persona(BaseModel):
    """How the model answers; None: not set."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    system_prompt: Annotated[str, Field(max_length=8000)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    max_thinking_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    thinking: Thinking | None = None
    """Whether a model that can do both thinks before it answers; ``default``: as the model is set,
    whatever holds around."""
    temperature: Annotated[float, Field(ge=0, le=5, strict=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, strict=False)] | None = None
    top_k: Annotated[int, Field(ge=0, le=10**6)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10, strict=False)] | None = None

    def set_here(self) -> dict[str, Any]:
        """The values that are set, by name."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value for name, value in named.items() if value is not None}

    def over_rules(self, rules: Rules) -> Rules:
        """The rules of a place, overridden by this persona."""
        return rules.model_copy(update={name: getattr(self, name) for name in self.set_here()})

    def sampling(self, default: Sampling) -> Sampling:
        """The sampling with this persona."""
        return Sampling(
            temperature=_first(self.temperature, default.temperature),
            top_p=_first(self.top_p, default.top_p),
            top_k=_first(self.top_k, default.top_k),
            repetition_penalty=_first(self.repetition_penalty, default.repetition_penalty),
        )


class Rules(Persona):
    """The rules of one place; None: not set. Quotas are for a day, and 0 is no limit."""

    enabled: bool | None = None
    """False: nobody is answered here."""
    allow_people: tuple[Ident, ...] | None = None
    """Only these people, and those with one of `allow_roles`."""
    deny_people: tuple[Ident, ...] | None = None
    allow_roles: tuple[Ident, ...] | None = None
    deny_roles: tuple[Ident, ...] | None = None

    person_messages: Count | None = None
    """Answered messages of each person."""
    person_tokens: Count | None = None
    """Tokens of prompts and replies, for each person."""
    channel_messages: Count | None = None
    channel_tokens: Count | None = None

    model: Lane | None = None
    """The lane that answers, which a core of that model serves."""
    models: Annotated[tuple[OfferedLane, ...], Field(max_length=MOST_OFFERED)] | None = None
    """The lanes that people may choose for their thread, beside `model`."""
    personas: Annotated[dict[PersonaName, Persona], Field(max_length=MOST_OFFERED)] | None = None
    """Named prompts that people may choose for their thread."""
    summary_prompt: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    """The model's instructions before the messages that it summarises."""

    follow_up: Literal["always", "alone", "mention"] | None = None
    """In a thread that the bot takes part in: answer everything, everything while only one person
    takes part, or mentions only."""
    retention_days: Annotated[float, Field(ge=1, le=400, strict=False)] | None = None
    """A thread is forgotten after so long without a message."""

    duel: DuelRule | None = None
    """A lane that also answers a share of the questions, so that people vote. The place's own lane:
    two samples of one model."""
    duel_votes: Annotated[int, Field(ge=1, le=1000)] | None = None
    """The models are named after so many votes."""
    duel_hours: Annotated[float, Field(gt=0, le=24, strict=False)] | None = None
    """The models are named after so long at the latest."""
    collect: bool | None = None
    """Keep rated replies, to train a model."""

    def over(self, below: Self) -> Self:
        """These rules, with `below` for those that are not set, and the personas of both."""
        found = self.set_here()
        if self.personas and below.personas:
            found["personas"] = below.personas | self.personas
        return below.model_copy(update=found)

    def duel_with(self) -> tuple[str, float] | None:
        """The other lane, and its share of the questions."""
        if self.duel is None:
            return None
        lane, _, share = self.duel.rpartition(":")
        return lane, float(share)


@dataclass(frozen=True, slots=True)
class Choice:
    """People's choices for one thread; empty: the place's default."""

    model: str = ""
    persona: str = ""

    def over(self, rules: Rules) -> Rules:
        """The rules in the thread, without choices that its place does not offer any more."""
        persona = (rules.personas or {}).get(self.persona)
        found = persona.over_rules(rules) if persona else rules
        chosen = {"model": self.model} if self.model in (rules.models or ()) else {}
        return found.model_copy(update=chosen)

    def lost(self, rules: Rules) -> tuple[str, ...]:
        """The choices that the place offers no more."""
        gone = [self.model] if self.model not in (rules.models or ()) else []
        gone += [self.persona] if self.persona not in (rules.personas or {}) else []
        return tuple(filter(None, gone))


NO_CHOICE = Choice()


@dataclass(frozen=True, slots=True)
class ThreadRules:
    """The rules of a thread, and the choices among them."""

    rules: Rules
    choice: Choice = NO_CHOICE
    names_place: bool = False
    """The system prompt has the name of the channel or of the bot."""

    @property
    def lost(self) -> tuple[str, ...]:
        """The choices that the place offers no more."""
        return self.choice.lost(self.rules)

    @property
    def kept(self) -> Choice:
        """The choices in force."""
        lost = self.lost
        held = [
            name if name not in lost else "" for name in (self.choice.model, self.choice.persona)
        ]
        return Choice(*held)


DATE, CHANNEL, BOT = "{date}", "{channel}", "{bot}"
"""The placeholders of a system prompt; other braces are left as they are."""
_SENTENCE = re.compile(r"[^\n。．！？]*?(?:[。．！？]|[.!?](?=\s|$)|\n|$)[^\S\n]*", re.DOTALL)


def has_placeholder(prompt: str) -> bool:
    return any(word in prompt for word in (DATE, CHANNEL, BOT))


def filled(prompt: str, date: str, channel: str, bot: str) -> str:
    """A system prompt with its placeholders filled in.

    The sentences with the date go to its end: the text before them is the same every day, and
    stays in the engine's cache.
    """
    values = {DATE: date, CHANNEL: channel, BOT: bot}
    sentences = _SENTENCE.findall(prompt)
    dated = [sentence for sentence in sentences if DATE in sentence]
    if dated and dated != sentences[-len(dated) - 1 : -1]:
        others = "".join(sentence for sentence in sentences if DATE not in sentence)
        prompt = f"{others.rstrip()}{_gap(others)}{''.join(dated).strip()}"
    return re.sub(r"\{(?:date|channel|bot)\}", lambda found: values[found[0]], prompt)


def _gap(before: str) -> str:
    """The separator before a sentence."""
    return "" if not before.strip() or before.rstrip()[-1] in "。．！？" else " "


MAX_SHOWN = 60
"""Characters of a wrong value that a sentence repeats."""

NAMES = tuple(Rules.model_fields)
PERSONA_NAMES = tuple(Persona.model_fields)
NO_RULES = Rules()
DAY = 24 * 3600


def persona_from_text(name: str, rule: str, text: str, known: Mapping[str, Persona]) -> Any:
    """The personas of a place with one of them changed, as `Rules.personas`; None: none is left.

    With one of `UNSETTING` for a rule, the persona is removed. UsageError for a wrong one.
    """
    if rule in UNSETTING:
        return {other: known[other] for other in known if other != name} or None
    if rule not in PERSONA_NAMES:
        raise UsageError(f"{rule or 'nothing'} is no rule of a persona: {', '.join(PERSONA_NAMES)}")
    value = rule_from_text(rule, None if unsets(rule, text) else text)
    table = {other: persona.set_here() for other, persona in known.items()}
    table[name] = table.get(name, {}) | {rule: value}
    return read_rules({"personas": table}, f"persona {name[:MAX_SHOWN]}").personas


QUOTAS = ("person_messages", "person_tokens", "channel_messages", "channel_tokens")
CEILINGS = (*QUOTAS, "max_new_tokens", "max_thinking_tokens", "retention_days")
"""The rules that can have a ceiling."""

DUEL_VOTES, DUEL_HOURS = 3, 12.0

TERMINAL = "console"
"""The only platform on which collecting needs no permission: its person is the host."""


def scopes(thread: ThreadKey) -> tuple[str, str]:
    """The names of a thread's space and channel: ``slack:T024`` and ``slack:T024:C123``."""
    parts = str(thread).split(":")
    return ":".join(parts[:2]), ":".join(parts[:3])


def marks_on(thread: ThreadKey, author: str) -> tuple[str, str, str, str]:
    """The marks of resets and forgets that cover a person's messages in a thread."""
    space, channel = scopes(thread)
    return f"thread {thread}", f"channel {channel}", f"space {space}", f"person {space}:{author}"


def _first(value: Any, default: Any) -> Any:
    return default if value is None else value


def read_rules(table: Mapping[str, Any], where: str) -> Rules:
    """The rules in a table of the file or the store; UsageError for wrong ones."""
    try:
        return Rules.model_validate_json(json.dumps(table))
    except (ValidationError, TypeError, ValueError) as error:
        raise UsageError(f"{where}: {_describe(error)}") from None


def read_persona(text: str) -> Persona:
    """The persona in JSON; UsageError for a wrong one."""
    try:
        return Persona.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(_describe(error)) from None


def unsets(name: str, text: str) -> bool:
    """Whether a person who types this for a rule takes it back."""
    return text.strip() in UNSETTING and not (name == "thinking" and text.strip() == UNSET)


def rule_from_text(name: str, text: str | None, ids: Callable[[str], str] = str) -> Any:
    """The value of a rule that a person typed; None for None; UsageError for a wrong one.

    Lists are written with commas, an empty list as ``-``, booleans as ``on`` and ``off``. `ids`
    replaces the platform's mentions of people and roles in a list by their ids.
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


_WANTED = {
    "duel": "a model and a share, such as rinna-sft-v2:0.2",
    "model": "the name of a model",
    "models": "the name of a model",
    "personas": "a name of up to 32 characters without spaces and colons",
}


def _describe(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "this is no table of rules"
    fault = error.errors()[0]
    name = str(fault["loc"][0]) if fault["loc"] else ""
    if fault["type"] == "extra_forbidden":
        return f"{name} is no rule{_suggestion(name)}"
    if fault["loc"] == ("personas",) and fault["type"] == "dict_type":
        return "personas is wrong: each is set by itself, as in: config persona NAME RULE VALUE"
    if fault["type"] == "string_pattern_mismatch":
        wanted = _WANTED.get(name, "an id such as U024 or 8123")
        return f"{name} is wrong: {str(fault['input'])[:MAX_SHOWN]!r} is not {wanted}"
    return f"{name} is wrong: {fault['msg'][:1].lower()}{fault['msg'][1:]}"
