"""Task cards above a streamed reply: how long the person waited for it, and why. Pure.

They are chunks of a stream. A stream that began with chunks takes no `markdown_text`, and its
display mode is that of its start (github NousResearch/hermes-agent pull 104173 and app-vitals/
shipwright pull 3057, 2026-09). A task with a known id is updated in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from bots.strings import say
from core.types import Done, ReplyEvent

Chunk: TypeAlias = dict[str, Any]
Step: TypeAlias = tuple[str, float]
"""The kind of a status, and when it began."""

DISPLAY_MODE = "plan"
"""All tasks in one block that people can fold."""
SECONDS = 3.0
"""A reply that comes sooner needs no explanation."""
SHORTEST = 1.0
"""A step that took less is left out."""
KINDS = ("queued", "thinking")
WRITING = "writing"


def text_chunk(text: str) -> Chunk:
    """A piece of the reply."""
    return {"type": "markdown_text", "text": text}


def opening(steps: Sequence[Step], now: float, locale: str) -> list[Chunk]:
    """The cards that a stream begins with; none where the reply came soon."""
    if not steps or now - steps[0][1] < SECONDS:
        return []
    took = _seconds(steps, now)
    waits = [
        _task(kind, say(f"task_{kind}", locale, seconds=round(took[kind])), "complete")
        for kind in KINDS
        if took[kind] >= SHORTEST
    ]
    return [
        {"type": "plan_update", "title": say("task_plan", locale)},
        *waits,
        _task(WRITING, say("task_writing", locale), "in_progress"),
    ]


def ending(end: ReplyEvent | None, locale: str) -> list[Chunk]:
    """The last state of the cards: none may go on when their stream ends."""
    is_whole = end is None or isinstance(end, Done)
    done = "complete" if is_whole else "error"
    return [_task(WRITING, say("task_writing", locale), done)]


def _seconds(steps: Sequence[Step], now: float) -> dict[str, float]:
    """How long each kind of status lasted."""
    took = dict.fromkeys(KINDS, 0.0)
    ends = [at for _, at in steps[1:]] + [now]
    for (kind, began), ended in zip(steps, ends, strict=True):
        took[kind] += ended - began
    return took


def _task(id_: str, title: str, status: str) -> Chunk:
    return {"type": "task_update", "id": id_, "title": title, "status": status}
