"""The turns of a thread's window that a job reads, counts and evicts; pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

from core.dialogue import Dialogue, Prompt
from core.dialogue.dialogue import oldest_that_fits
from core.errors import PromptUnavailable
from core.place_rules import Rules, read_persona
from core.queue_types import PromptRoom, StoredTurn, Trace, Window
from core.types import BETWEEN_FILES, Done, FileRead, Job, Turn, TurnFile


def turns_to_read(job: Job, window: Window) -> list[Turn]:
    """The conversation up to the turn to answer, oldest first.

    PromptUnavailable if that turn is not kept any more.
    """
    turns = [stored.turn for stored in window.history if not _is_unsaid(stored.turn)]
    if job.replaces is None and window.mailbox:
        return turns + [stored.turn for stored in window.mailbox]
    for at in range(len(turns) - 1, -1, -1):
        if turns[at].id == job.turn:
            return turns[: at + 1]
    raise PromptUnavailable(f"the turn {job.turn} is not kept any more")


def rules_of(job: Job, rules: Rules) -> Rules:
    """The rules of a place, overridden by the job's persona."""
    return read_persona(job.persona).over_rules(rules) if job.persona else rules


def count_tokens(dialogue: Dialogue, texts: str) -> str:
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
    for file, block in zip(turn.files, _blocks(turn), strict=True):
        tokens = len(dialogue.encode_text(block)) if file.read else 0
        yield FileRead(file.name, tokens, tokens)


def _blocks(turn: Turn) -> Iterator[str]:
    """The text of each of a turn's files."""
    at = len(turn.text) - turn.below
    for file in turn.files:
        yield turn.text[at : at + file.length]
        at += file.length + len(BETWEEN_FILES)


def reply_to_resume(job: Job, window: Window) -> tuple[str, str]:
    """The text or the thought that a reply continues; both empty for a new reply."""
    if not job.resumes:
        return "", ""
    replies = (stored.turn for stored in window.history if stored.turn.id == job.replaces)
    before = next(replies, None)
    if before is None:
        return "", ""
    return before.text, "" if before.text else before.thought


def traced(
    job: Job, dialogue: Dialogue, turns: Sequence[Turn], prompt: Prompt, done: Done
) -> Trace:
    """The trace of a reply, with the turns of its prompt."""
    spec = dialogue.spec
    return Trace(
        turns=tuple(turns),
        text=done.text,
        model=spec.name,
        system=dialogue.system_prompt,
        prompt_ids=prompt.ids,
        revision=spec.revision or "",
        adapter=spec.adapter or "",
        fingerprint=dialogue.fingerprint,
        sampling=spec.sampling,
        seed=job.sampling_seed,
    )


def missing_counts(window: Window, prompt: Prompt, fingerprint: str) -> dict[str, int]:
    """The prompt's counts of turns that had none, or another tokenizer's."""
    kept: Sequence[StoredTurn] = [*window.history, *window.mailbox]
    known = {s.turn.id for s in kept if s.tokens is not None and s.fingerprint == fingerprint}
    return {id_: count for id_, count in prompt.counts.items() if id_ not in known}


def turns_to_evict(window: Window, number: int) -> Sequence[str]:
    """The ids of the oldest turns, which did not fit."""
    turns = [stored.turn.id for stored in window.history] + [s.turn.id for s in window.mailbox]
    return turns[:number]


# -- what would be read now ---------------------------------------------------------------------


def read_now(turns: Sequence[StoredTurn], prompt: PromptRoom | None) -> list[bool | None]:
    """Whether each turn would be read if the newest one were answered now, as `Dialogue.prompt`
    decides; None if that depends on a turn that no core has counted."""
    if prompt is None:
        return [None] * len(turns)
    counts = [_count(stored, prompt) for stored in turns]
    known = [count for count in counts if count is not None]
    over = sum(known) - len(known) > prompt.room  # beside others, a turn may take one token less
    sure = over or len(known) == len(counts)
    start = 0 if sure and not over else oldest_that_fits(reversed(counts), len(counts), prompt.low)
    older = None if not sure or (start and counts[start - 1] is None) else False
    read: list[bool | None] = [True if at >= start else older for at in range(len(turns))]
    for at in range(start, len(turns) - 1):
        if not (sure and prompt.user_first and turns[at].turn.role == "assistant"):
            break
        read[at] = False
    return read


def _count(stored: StoredTurn, prompt: PromptRoom) -> int | None:
    return stored.tokens if stored.fingerprint == prompt.fingerprint else None


# -- a message that is too long -----------------------------------------------------------------


def truncate(turn: Turn, dialogue: Dialogue, low_water: float) -> Turn:
    """The longest beginning of a turn that `Dialogue.fits`; its other files are only named."""
    least, most = 0, len(turn.text)
    while least < most:  # `fits` refuses a far too long try by its length alone
        middle = (least + most + 1) // 2
        if dialogue.fits(cut(turn, middle), low_water):
            least = middle
        else:
            most = middle - 1
    return cut(turn, least)


def cut(turn: Turn, length: int) -> Turn:
    """About the first `length` characters of a turn, with the fences of files closed."""
    if length >= len(turn.text):
        return turn
    words = turn.text[: len(turn.text) - turn.below].removesuffix(BETWEEN_FILES)
    room = length - len(words)
    blocks: list[str] = []
    files: list[TurnFile] = []
    for file, block in zip(turn.files, _blocks(turn), strict=True):
        kept = _cut_file(block, room) if file.read else block
        room -= len(block) + len(BETWEEN_FILES)
        blocks.append(kept)
        read = file.read and "\n" in kept
        files.append(replace(file, read=read, length=len(kept)))
    below = BETWEEN_FILES.join(blocks)
    words = words if length >= len(words) else f"{words[:length].rstrip()}…"
    text = BETWEEN_FILES.join(filter(None, (words, below)))
    return replace(turn, text=text, files=tuple(files), below=len(below))


def _cut_file(block: str, room: int) -> str:
    """A file's name and the beginning of its text in its fence; the name alone without room."""
    if len(block) <= room:
        return block
    name, fence, rest = block.split("\n", 2)
    text = rest[: max(room - len(name) - 2 * len(fence) - 5, 0)].rstrip()
    return f"{name}\n{fence}\n{text}…\n{fence}" if text else name


def parts_read(whole: Turn, read: Turn, dialogue: Dialogue) -> tuple[FileRead, ...]:
    """The part of a turn that was read: of each file, and of its words if they were cut."""
    files = zip(_files_of(whole, dialogue), _files_of(read, dialogue), strict=True)
    parts = tuple(replace(of_read, whole=of_whole.whole) for of_whole, of_read in files)
    all_, kept = (turn.text[: len(turn.text) - turn.below] for turn in (whole, read))
    if len(kept) >= len(all_):
        return parts
    return (FileRead("", *(len(dialogue.encode_text(text)) for text in (kept, all_))), *parts)
