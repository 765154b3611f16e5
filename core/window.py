"""The turns of a thread's window that a job reads, counts and evicts; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from core.dialogue import Dialogue, Prompt
from core.errors import PromptUnavailable
from core.place_rules import Rules, read_persona
from core.queue_types import StoredTurn, Window
from core.types import BETWEEN_FILES, FileRead, Job, Turn


def turns_to_read(job: Job, window: Window) -> list[Turn]:
    """The conversation up to the turn that is to be answered, oldest first.

    PromptUnavailable where that turn is not kept any more.
    """
    turns = [stored.turn for stored in window.history if not _is_unsaid(stored.turn)]
    if job.replaces is None and window.mailbox:
        return turns + [stored.turn for stored in window.mailbox]
    for at in range(len(turns) - 1, -1, -1):
        if turns[at].id == job.turn:
            return turns[: at + 1]
    raise PromptUnavailable(f"the turn {job.turn} is not kept any more")


def rules_of(job: Job, rules: Rules) -> Rules:
    """The rules of a place, with the job's own terms over them."""
    return read_persona(job.terms).over_rules(rules) if job.terms else rules


def measure(dialogue: Dialogue, texts: str) -> str:
    """The tokens of a JSON list of texts, and the model's context length: a JSON list."""
    counts = [len(dialogue.encode_text(text)) for text in json.loads(texts)]
    return json.dumps([dialogue.spec.context_length, *counts])


def _is_unsaid(turn: Turn) -> bool:
    """Whether a reply ended within a thought."""
    return turn.role == "assistant" and not turn.text


def files_read(
    job: Job, turns: Sequence[Turn], window: Window, dialogue: Dialogue
) -> tuple[FileRead, ...]:
    """The files of the messages that a reply answers, with their tokens."""
    new = {stored.turn.id for stored in window.mailbox} | {job.turn}
    asked = (turn for turn in turns if turn.files and turn.id in new)
    return tuple(read for turn in asked for read in _files_of(turn, dialogue))


def _files_of(turn: Turn, dialogue: Dialogue) -> Iterator[FileRead]:
    at = len(turn.text) - turn.below
    for file in turn.files:
        tokens = len(dialogue.encode_text(turn.text[at : at + file.length])) if file.read else 0
        yield FileRead(file.name, tokens, tokens)
        at += file.length + len(BETWEEN_FILES)


def reply_to_resume(job: Job, window: Window) -> tuple[str, str]:
    """The text that a reply goes on from, or the thought; both empty where it begins anew."""
    if not job.resumes:
        return "", ""
    replies = (stored.turn for stored in window.history if stored.turn.id == job.replaces)
    before = next(replies, None)
    if before is None:
        return "", ""
    return before.text, "" if before.text else before.thought


def missing_counts(window: Window, prompt: Prompt, fingerprint: str) -> dict[str, int]:
    """The new counts of this prompt, of turns that had none or another tokenizer's."""
    kept: Sequence[StoredTurn] = [*window.history, *window.mailbox]
    known = {s.turn.id for s in kept if s.tokens is not None and s.fingerprint == fingerprint}
    return {id_: count for id_, count in prompt.counts.items() if id_ not in known}


def turns_to_evict(window: Window, number: int) -> Sequence[str]:
    """The ids of the oldest turns, which did not fit."""
    turns = [stored.turn.id for stored in window.history] + [s.turn.id for s in window.mailbox]
    return turns[:number]
