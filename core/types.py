"""The basic types: conversations, jobs and reply events.

Everything here is frozen data. Times are seconds since the epoch; a time that two processes must
agree on is by Redis's clock.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias, TypeVar, cast
from urllib.parse import quote, unquote

Role: TypeAlias = Literal["user", "assistant"]
FinishReason: TypeAlias = Literal["stop", "length", "repetition", "cancelled"]
Thinking: TypeAlias = Literal["on", "off", "default"]
"""Whether a model thinks before it answers; ``default``: as its chat template has it."""


DIRECT = "dm"
"""The space of direct messages, where a platform has none for them."""


@dataclass(frozen=True, slots=True)
class ThreadKey:
    """The key of a conversation. Prints as ``slack:T024:C123:1766.24`` and parses back."""

    platform: str
    space: str
    """The Slack team or Discord guild; ``dm`` only where the platform has none."""
    channel: str
    thread: str

    def __str__(self) -> str:
        return _printed(self)

    @property
    def is_one_off(self) -> bool:
        """Whether this is the thread of a one-off job, not a conversation."""
        return self.thread.startswith(ONE_OFF)

    @classmethod
    def parse(cls, text: str) -> ThreadKey:
        """The key that prints as `text`; ValueError if there is none."""
        parts = [unquote(part) for part in text.split(":")]
        if len(parts) != 4 or not all(parts):
            raise ValueError(f"{text!r} is not a thread: platform:space:channel:thread is expected")
        return cls(*parts)


@lru_cache(4096)
def _printed(key: ThreadKey) -> str:
    # a key is printed for every step of every job
    parts = (key.platform, key.space, key.channel, key.thread)
    return ":".join(quote(part, safe="") for part in parts)


ONE_OFF = "~errand-"
"""Prefix of the threads of one-off jobs, whose text is deleted when they end."""

BETWEEN_FILES = "\n\n"
"""Separates the words and the files in a turn's text."""


@dataclass(frozen=True, slots=True)
class TurnFile:
    """A file of a message, as its turn's text has it."""

    name: str
    read: bool
    """The turn has the file's text, not only its name."""
    length: int
    """Characters of the turn's text that are this file's."""
    source: str = ""
    """Distinguishes files of the same name; empty: unknown."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message as the model reads it.

    A user turn's id is the platform's own; an assistant turn's id is its job's id.
    """

    id: str
    role: Role
    author: str
    """The platform's id of the author; the bot's own name for a reply."""
    text: str
    at: float
    name: str = ""
    """The author's name in that channel, for formats that write names into the text."""
    files: tuple[TurnFile, ...] = ()
    """The files in the text, in order."""
    below: int = 0
    """Characters at the end of the text that are files: an edit of the words keeps them."""
    thought: str = ""
    """Of a reply: the thought that it ended in, or the thought before it if the model's template
    needs that."""
    quoted: bool = False
    """Not said in this thread, but quoted by the next turn."""

    @property
    def files_text(self) -> str:
        """The end of the text, which is that of the files."""
        return self.text[len(self.text) - self.below :]


def read_messages(messages: Sequence[Mapping[str, str]]) -> tuple[str | None, tuple[Turn, ...]]:
    """The system prompt, if there is one, and the turns of ``{"role", "content"}`` messages."""
    is_system = messages[0]["role"] == "system"
    turns = (
        Turn(str(place), cast("Role", message["role"]), "", message["content"], 0.0)
        for place, message in enumerate(messages[is_system:])
    )
    return messages[0]["content"] if is_system else None, tuple(turns)


@dataclass(frozen=True, slots=True)
class Job:
    """The task of replying to one addressed turn."""

    id: str
    thread: ThreadKey
    turn: str
    """The id of the turn to answer."""
    revision: str
    """The platform's edit stamp, or the number carried in the button that was pressed."""
    lane: str
    author: str
    """The person who asked: they get notices, may stop the reply, and are charged for it."""
    seed: int
    deadline: float
    replaces: str | None = None
    """The reply that this one overwrites in place."""
    resumes: bool = False
    """Continue from where the replaced reply stopped, instead of answering again."""
    counts_tokens: bool = False
    """Count the tokens of the texts in the turn instead of answering it."""
    persona: str = ""
    """A `core.place_rules.Persona` as JSON, for this job alone; empty: none."""
    truncates: bool = False
    """Read only the beginning that fits of a too long message."""
    duel: str = ""
    """The lane of the second answer; empty: there is only one."""
    is_second: bool = False
    """The second answer of a duel, after the first is written."""

    @property
    def sampling_seed(self) -> int:
        """The seed, which differs between the two answers of a duel."""
        return self.seed + self.is_second

    @staticmethod
    def id_for(thread: ThreadKey, turn: str, revision: str) -> str:
        """The job's id: the same for an event or a press that is delivered twice."""
        return hashlib.sha256(f"{thread}\n{turn}\n{revision}".encode()).hexdigest()[:24]

    @staticmethod
    def seed_for(job_id: str) -> int:
        """A sampling seed, below 2**63: the same for every attempt at one job."""
        return int(hashlib.sha256(job_id.encode()).hexdigest()[:15], 16)


@dataclass(frozen=True, slots=True)
class Usage:
    """The cost of one reply, in tokens of the model that wrote it."""

    prompt_tokens: int
    reply_tokens: int
    cached_tokens: int = 0
    """The number of the prompt's tokens that were in the engine's cache."""
    dropped_turns: int = 0
    """The number of old turns that did not fit into the prompt."""


@dataclass(frozen=True, slots=True)
class Queued:
    """The job waits; `position` 1 is next."""

    position: int


@dataclass(frozen=True, slots=True)
class Started:
    """A core took the job. An attempt above 1 empties what was streamed before it."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Delta:
    """`text` begins at character `offset` of the reply. Empty at its beginning: the model is
    thinking."""

    offset: int
    text: str
    at: float = 0.0
    """When it was published, by the store's clock; not stored."""


@dataclass(frozen=True, slots=True)
class FileRead:
    """The part of a file that the model has read, in tokens."""

    name: str
    """Empty: the words of the message, if only their beginning was read."""
    tokens: int = 0
    whole: int = 0
    """The tokens of the whole file; 0: it was only named."""


Verdict: TypeAlias = Literal["a", "tie", "b", "bad"]
"""A vote in a duel; ``bad``: both answers are bad."""
VERDICTS: tuple[Verdict, ...] = ("a", "tie", "b", "bad")
"""In the order of their buttons."""


@dataclass(frozen=True, slots=True)
class Duel:
    """Two answers to one question, as they are shown."""

    a: str
    b: str
    models: tuple[str, ...] = ()
    """The models that wrote A and B; empty until they are named."""
    votes: tuple[int, ...] = ()
    """By verdict; empty until the models are named."""


@dataclass(frozen=True, slots=True)
class Done:
    """The whole reply: it may differ from the deltas, as after a trimmed loop."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    model: str = ""
    """The model that wrote it, which depends on the channel."""
    files: tuple[FileRead, ...] = ()
    """The files of the answered messages."""
    lost: tuple[str, ...] = ()
    """Choices for the thread that are not offered there any more."""
    in_thought: bool = False
    """It ended within a thought, before any answer."""
    dropped: int = 0
    """The number of the oldest turns that no longer fit; 0 if the thread was told before."""
    duel: Duel | None = None
    """Set for one of two answers that people vote on."""
    collected: bool = False
    """Feedback on it is kept, to train a model."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The job failed. `code` names the sentence for the person; `message` is for the log."""

    code: str
    message: str = ""
    until: float = 0.0
    """When it may be asked again, in seconds since the epoch; 0: unknown."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The reply was cancelled, and nothing of it is kept."""

    by: str = ""
    """The cause: ``person``, ``reset``, ``edit`` or ``delete``."""


ReplyEvent: TypeAlias = Queued | Started | Delta | Done | Failed | Cancelled


@dataclass(frozen=True, slots=True)
class Sampling:
    """The choice of the next token, in transformers' terms. Temperature 0 is greedy."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0: all."""
    repetition_penalty: float = 1.0
    """Over prompt and reply, as transformers' RepetitionPenaltyLogitsProcessor has it."""


K = TypeVar("K")
V = TypeVar("V")


class Bounded(OrderedDict[K, V]):
    """At most `most` entries: a new entry drops the one that was set longest ago.

    `move_to_end` keeps an entry that was only used.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._most:
            self.popitem(last=False)
