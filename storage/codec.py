"""Our types as versioned JSON, and back. Only this module knows the stored form.

A record of an unknown version, or one that cannot be read, raises `Undecodable`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from core.errors import HenjiError
from core.place_rules import Persona
from core.queue_types import (
    Delivery,
    DuelAnswer,
    Opinion,
    PromptRoom,
    Rating,
    Sample,
    StoredDuel,
    StoredTurn,
    Trace,
)
from core.types import (
    Cancelled,
    Delta,
    Done,
    Duel,
    Failed,
    FileRead,
    FinishReason,
    Job,
    Queued,
    ReplyEvent,
    Role,
    Sampling,
    Started,
    ThreadKey,
    Turn,
    TurnFile,
    Usage,
    Verdict,
)

VERSION = 1


class Undecodable(HenjiError):
    """A stored record that this release cannot read."""


dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Compact JSON with unescaped text. One encoder, because every step of every job uses it."""

_decoder = json.JSONDecoder()


def load(text: str) -> Any:
    """Parse our JSON; Undecodable if it is invalid."""
    try:
        value, end = _decoder.raw_decode(text)  # no white space is around it
    except (ValueError, RecursionError) as error:
        raise Undecodable(f"not JSON: {error}") from error
    if end != len(text):
        raise Undecodable("not JSON alone")
    return value


def fields(record: Any) -> dict[str, Any]:
    """A frozen record of plain values as a dictionary, without the deep copies of `asdict`."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def flatten(pairs: Sequence[str]) -> dict[str, str]:
    """A hash from a script (field, value, ...) as a dictionary."""
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


# -- turns --------------------------------------------------------------------------------------


def encode_turn(
    turn: Turn, *, answers: str | None = None, finish_reason: FinishReason | None = None
) -> str:
    """All values are strings, so that a script that changes one field rounds no number."""
    record = {
        "v": str(VERSION),
        "role": turn.role,
        "author": turn.author,
        "name": turn.name,
        "text": turn.text,
        "at": repr(turn.at),
        "answers": answers,
        "finish": finish_reason,
        "thought": turn.thought or None,
        "quoted": "1" if turn.quoted else None,
        **_file_fields(turn),
    }
    return dump({name: value for name, value in record.items() if value is not None})


def _file_fields(turn: Turn) -> dict[str, str]:
    """A record's fields about files. Scripts count in bytes."""
    if not turn.files:
        return {}
    known = {"sources": encode_sources(turn.files)} if any(f.source for f in turn.files) else {}
    below = str(len(turn.files_text.encode()))
    return {"below": below, "files": encode_files(turn.files), **known}


def cut_fields(turn: Turn | None) -> Mapping[str, str] | None:
    """The changed fields of a turn's record if only its beginning was read, with its `id`."""
    if turn is None:
        return None
    return {"id": turn.id, "text": turn.text, "files": "", **_file_fields(turn)}


def unread_fields(turn: Turn, note: Mapping[str, str] | None) -> Mapping[str, str]:
    """A message's files after an edit, with the note for reading them."""
    sources = encode_sources(turn.files)
    return {"named": turn.files_text, "files": encode_files(turn.files), "sources": sources,
            "note": "" if note is None else dump(dict(note))}  # fmt: skip


def encode_files(files: Sequence[TurnFile]) -> str:
    """A turn's files as one string in its record."""
    return dump([[file.name, file.read, file.length] for file in files])


def encode_sources(files: Sequence[TurnFile]) -> str:
    """Apart from the files, because earlier releases expect three values for each."""
    return dump([file.source for file in files])


def _decode_files(files: str, sources: str) -> tuple[TurnFile, ...]:
    rows = load(files)
    known = load(sources) or [""] * len(rows)
    return tuple(
        TurnFile(name, read, length, source)
        for (name, read, length), source in zip(rows, known, strict=True)
    )


def decode_turn(id_: str, record: str, count: str | None = None) -> StoredTurn:
    """The turn of a stored record, with its token count."""
    data = load(record)
    try:
        if data["v"] != str(VERSION):
            raise Undecodable(f"a turn of version {data['v']}")
        turn = Turn(
            id=id_,
            role=cast("Role", data["role"]),
            author=data["author"],
            text=data["text"],
            at=float(data["at"]),
            name=data["name"],
            files=_decode_files(data["files"], data.get("sources", "[]"))
            if "files" in data
            else (),
            below=_characters(data["text"], int(data["below"])) if "below" in data else 0,
            thought=data.get("thought", ""),
            quoted="quoted" in data,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Undecodable(f"not a turn: {error!r}") from error
    tokens, fingerprint = decode_count(count)
    return StoredTurn(turn, tokens, fingerprint, data.get("answers"), data.get("finish"))


def _characters(text: str, last: int) -> int:
    """The number of characters in the last bytes of a text."""
    return len(text.encode(errors="surrogatepass")[-last:].decode()) if last else 0


def encode_count(tokens: int, fingerprint: str) -> str:
    return f"{tokens} {fingerprint}"


def decode_count(count: str | None) -> tuple[int | None, str]:
    if not count:
        return None, ""
    tokens, _, fingerprint = count.partition(" ")
    return int(tokens), fingerprint


def encode_prompt_room(room: PromptRoom | None) -> str:
    return dump(fields(room)) if room else ""


def decode_prompt_room(text: str | None) -> PromptRoom | None:
    """None without one, and for an unreadable one: it is only shown."""
    try:
        return PromptRoom(**load(text)) if text else None
    except (TypeError, Undecodable):
        return None


# -- jobs and deliveries ------------------------------------------------------------------------


def decode_job(id_: str, fields: Mapping[str, str]) -> Job:
    """The job of a stored hash."""
    try:
        if fields["v"] != str(VERSION):
            raise Undecodable(f"a job of version {fields['v']}")
        return Job(
            id=id_,
            thread=ThreadKey.parse(fields["thread"]),
            turn=fields["turn"],
            revision=fields["revision"],
            lane=fields["lane"],
            author=fields["author"],
            seed=int(fields["seed"]),
            deadline=int(fields["deadline"]) / 1000,
            replaces=fields.get("replaces"),
            resumes="resumes" in fields,
            counts_tokens="measures" in fields,
            persona=fields.get("terms", ""),
            truncates="begins" in fields,
            duel=fields.get("duel", ""),
            is_second="first" in fields,
        )
    except (KeyError, ValueError) as error:
        raise Undecodable(f"not a job: {error!r}") from error


def encode_persona(persona: Persona | None) -> str:
    """The persona of one job; empty: none."""
    return "" if persona is None else dump(persona.set_here())


def decode_delivery(id_: str, fields: Mapping[str, str]) -> Delivery:
    """The delivery of a stored hash."""
    try:
        if fields["v"] != str(VERSION):
            raise Undecodable(f"a delivery of version {fields['v']}")
        posting = fields.get("posting", "")
        return Delivery(
            job=id_,
            thread=ThreadKey.parse(fields["thread"]),
            turn=fields["turn"],
            author=fields["author"],
            token=int(fields["token"]),
            messages=tuple(load(fields.get("messages", "[]"))),
            posting=int(posting) if posting else None,
            note=load(fields.get("note", "{}")),
            replaces=fields.get("after") or None,
            asker=fields.get("asker", ""),
        )
    except (KeyError, ValueError) as error:
        raise Undecodable(f"not a delivery: {error!r}") from error


# -- feedback -----------------------------------------------------------------------------------


def encode_made(model: str, sampling: Sampling | None, seed: int) -> str:
    """The model and sampling of a reply; empty if unknown."""
    if sampling is None:
        return ""
    return dump({"model": model, "sampling": fields(sampling), "seed": str(seed)})


def decode_opinion(id_: str, fields: Mapping[str, str]) -> Opinion:
    """The entry of the stream of feedback."""
    try:
        made = load(fields["made"]) if fields["made"] else {}
        return Opinion(
            at=int(id_.split("-")[0]) / 1000,
            by=fields["by"],
            rating=cast("Rating", fields["verdict"]),
            reason=fields["reason"],
            thread=ThreadKey.parse(fields["thread"]),
            job=fields["job"],
            model=made.get("model", ""),
            sampling=Sampling(**made["sampling"]) if made else None,
            seed=int(made["seed"]) if made else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Undecodable(f"not an opinion: {error!r}") from error


# -- samples and duels --------------------------------------------------------------------------


def trace_fields(trace: Trace | None) -> dict[str, Any]:
    """A trace for commit.lua: its turns, its authors, and the record."""
    if trace is None:
        return {}
    authors = dict.fromkeys(turn.author for turn in trace.turns if turn.role == "user")
    turns = [turn.id for turn in trace.turns]
    return {"trace": {"turns": turns, "authors": list(authors), "record": encode_trace(trace)}}


def encode_trace(trace: Trace) -> str:
    turns = [[turn.id, turn.role, turn.author, turn.text] for turn in trace.turns]
    told = fields(trace) | {"turns": turns, "sampling": fields(trace.sampling)}
    return dump({"v": str(VERSION), **told, "seed": str(trace.seed)})


def decode_trace(record: str) -> Trace:
    data = load(record)
    try:
        if data.pop("v") != str(VERSION):
            raise Undecodable("a trace of another version")
        turns = (
            Turn(id_, role, author, text, 0.0) for id_, role, author, text in data.pop("turns")
        )
        ids = {name: tuple(data[name]) for name in ("prompt_ids", "reply_ids")}
        made = {"sampling": Sampling(**data["sampling"]), "seed": int(data["seed"])}
        return Trace(**{**data, "turns": tuple(turns), **ids, **made})
    except (KeyError, TypeError, ValueError) as error:
        raise Undecodable(f"not a trace: {error!r}") from error


def decode_sample(thread: ThreadKey, job: str, entry: str, fields: Mapping[str, str]) -> Sample:
    """The sample of a reply that people have judged; `entry`: from its thread's list."""
    holds = load(entry)
    try:
        return Sample(
            thread=thread,
            job=job,
            asker=holds["asker"],
            authors=tuple(holds["authors"]),
            traces=tuple(decode_trace(fields[name]) for name in ("1", "2") if name in fields),
            votes=_votes(fields),
            replaced=fields.get("replaced", ""),
        )
    except (KeyError, TypeError) as error:
        raise Undecodable(f"not a sample: {error!r}") from error


def decode_duel(thread: ThreadKey, job: str, fields: Mapping[str, str]) -> StoredDuel:
    """A duel, open or decided."""
    try:
        one, two = (_answer(fields[number]) for number in fields["order"])
        votes = cast("dict[str, Verdict]", _votes(fields))
        return StoredDuel(thread, job, fields["asker"], fields["question"], (one, two), votes)
    except (KeyError, TypeError, ValueError) as error:
        raise Undecodable(f"not a duel: {error!r}") from error


def _answer(record: str) -> DuelAnswer:
    data = load(record)
    return DuelAnswer(data["model"], load(data["record"])["text"])


def _votes(fields: Mapping[str, str]) -> dict[str, str]:
    found = ((name.partition(" "), verdict) for name, verdict in fields.items())
    return {person: verdict for (kind, _, person), verdict in found if kind == "vote"}


def _duel(data: Mapping[str, Any]) -> Duel:
    models, votes = data.get("models", ()), data.get("votes", ())
    return Duel(data["a"], data["b"], tuple(models), tuple(votes))


# -- reply events -------------------------------------------------------------------------------


def encode_event(event: ReplyEvent) -> str:
    return dump(_event_fields(event))


def _event_fields(event: ReplyEvent) -> dict[str, Any]:
    match event:
        case Queued(position):
            return {"t": "queued", "position": position}
        case Started(attempt):
            return {"t": "started", "attempt": attempt}
        case Delta(offset, text):  # a release before this one takes no other fields
            return {"t": "delta", "offset": offset, "text": text}
        case Done(text, finish_reason, usage, model, files, lost, in_thought, dropped):
            end = {"finish_reason": finish_reason, "usage": fields(usage), "model": model}
            read = {"files": [list(fields(file).values()) for file in files]} if files else {}
            gone: dict[str, Any] = {"lost": list(lost)} if lost else {}
            gone |= {"dropped": dropped} if dropped else {}
            thinking = {"in_thought": True} if in_thought else {}
            kept = {"c": 1} if event.collected else {}
            return {"t": "done", "text": text, **end, **read, **gone, **thinking, **kept}
        case Failed(code, message, until):
            return {"t": "failed", "code": code, "message": message, "until": until}
        case Cancelled(by):
            return {"t": "cancelled", "by": by}


def decode_event(text: str, entry: str = "") -> ReplyEvent:
    """An event; `entry` is its id in a stream, which says when it was published."""
    data = load(text)
    try:
        match data.pop("t"):
            case "queued":
                return Queued(**data)
            case "started":
                return Started(**data)
            case "delta":
                return Delta(**data, at=int(entry.partition("-")[0] or 0) / 1000)
            case "done":
                usage = Usage(**data["usage"])
                files = tuple(FileRead(*row) for row in data.get("files", ()))
                model, lost = data.get("model", ""), tuple(data.get("lost", ()))
                in_thought, dropped = data.get("in_thought", False), data.get("dropped", 0)
                end = data["finish_reason"]
                duel, collected = _duel(data["duel"]) if "duel" in data else None, "c" in data
                more = lost, in_thought, dropped, duel, collected
                return Done(data["text"], end, usage, model, files, *more)
            case "failed":
                return Failed(**data)
            case "cancelled":
                return Cancelled(**data)
            case other:
                raise Undecodable(f"an event called {other}")
    except (KeyError, TypeError, AttributeError) as error:
        raise Undecodable(f"not an event: {error!r}") from error
