"""A job that a worker has claimed: its text so far, its cost, and the state of its claim."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import Literal

from core.dialogue import Dialogue, Prompt, Reply
from core.engine_types import Chunk
from core.place_rules import ThreadRules
from core.queue_types import Claim, FenceResult
from core.types import Done, FileRead, FinishReason, Turn, Usage


@dataclass
class RunningJob:
    """A claimed job: its unpublished text, and the state of its claim."""

    claim: Claim
    dialogue: Dialogue
    published: int = 0
    spent: int = 0
    """The tokens of the prompt, and of the reply so far."""
    pending: str = ""
    fresh: asyncio.Event = field(default_factory=asyncio.Event)
    generating: asyncio.Task[FinishReason] | None = None
    end: FenceResult | Literal["release"] = "ok"
    cached_tokens: int = 0
    usage: Usage | None = None
    """The cost of the reply so far as its server counts it."""
    text_bytes: int = 0
    """Of a reply that comes as text."""
    asked: str = ""
    """The text that is answered, for a log with content."""
    cut: Turn | None = None
    """The beginning of a too long message, if only that is answered."""
    reply_ids: list[int] = field(default_factory=list)
    """The generated ids; none from a server that returns only text."""
    ended_by: FinishReason | None = None
    """The engine's finish reason; None if the text was cut before."""
    began: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    """Seconds since the claim."""
    thought_at: float = 0.0
    """When the newest empty delta was due."""
    sign_is_due: bool = False
    """An empty delta is to be published now."""

    @property
    def seconds(self) -> float:
        """Seconds since the claim."""
        return time.monotonic() - self.began

    def count(self, chunk: Chunk, prompt: Prompt, reply: Reply) -> None:
        """Add a chunk, which `reply` has taken, to the counts."""
        self.cached_tokens = chunk.cached_tokens or self.cached_tokens
        if self.first_token is None and (chunk.ids or chunk.text):
            self.first_token = self.seconds
        self.reply_ids += chunk.ids
        self.usage = chunk.usage or self.usage
        self.text_bytes += len((chunk.text or "").encode())
        if self.dialogue.counts_tokens or self.usage:
            cost = self.cost(prompt, reply)
            self.spent = cost.prompt_tokens + cost.reply_tokens
        else:  # told at the end at most: charged until then for no more than it has written
            self.spent = reply.tokens

    def cost(self, prompt: Prompt, reply: Reply) -> Usage:
        """The cost so far: as the server tells it, as it is counted here, or estimated.

        A server that tells nothing sends a token or more with each event.
        """
        if self.dialogue.counts_tokens:
            return Usage(len(prompt.ids), reply.tokens, self.cached_tokens)
        if self.usage and self.ended_by:
            return self.usage
        so_far = self.usage or self._estimated_cost(prompt)
        return replace(so_far, reply_tokens=max(so_far.reply_tokens, reply.tokens))

    def _estimated_cost(self, prompt: Prompt) -> Usage:
        of_prompt = len(self.dialogue.tokenizer.decode(prompt.ids).encode())
        return Usage(_estimated_tokens(of_prompt), _estimated_tokens(self.text_bytes))

    def done(
        self,
        prompt: Prompt,
        reply: Reply,
        reason: FinishReason,
        files: tuple[FileRead, ...],
        here: ThreadRules,
    ) -> Done:
        """The end of the reply, for the `reason` of the engine or of a stop."""
        text, finish_reason = reply.finish(reason)
        return Done(
            text,
            finish_reason,
            replace(self.cost(prompt, reply), dropped_turns=prompt.dropped),
            self.dialogue.spec.name,
            files,
            here.lost,
            in_thought=not text and bool(reply.thought) and finish_reason != "stop",
            collected=bool(here.rules.collect),
        )

    def show(self, text: str) -> None:
        self.pending += text
        if text:
            self.fresh.set()

    def show_thinking(self, pause: float) -> None:
        """Publish an empty delta, unless there was one in the last `pause` seconds."""
        if time.monotonic() - self.thought_at >= pause:
            self.thought_at = time.monotonic()
            self.sign_is_due = True
            self.fresh.set()

    def stop(self, end: FenceResult | Literal["release"]) -> None:
        """Stop this job, with the reason."""
        self.end = end
        if self.generating is not None:
            self.generating.cancel()


def _estimated_tokens(text_bytes: int) -> int:
    """The tokens of a text: four bytes each, as in English; Japanese has about as many."""
    return -(-text_bytes // 4)
