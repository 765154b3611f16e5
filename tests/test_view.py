"""What a person sees of a reply, by its events."""

from __future__ import annotations

from datetime import UTC

import pytest

from bots.platform import Status
from bots.strings import failure, say
from bots.view import View
from core.types import (
    Cancelled,
    Delta,
    Done,
    Duel,
    Failed,
    FileRead,
    FinishReason,
    Queued,
    ReplyEvent,
    Started,
    Usage,
)

USAGE = Usage(1, 2)


def seen(*events: ReplyEvent) -> View:
    view = View()
    for event in events:
        view = view.after(event)
    return view


def words(*events: ReplyEvent) -> tuple[str, str]:
    return seen(*events).words("en", UTC)


def test_a_reply_grows_and_starts_over() -> None:
    assert seen(Queued(3)).status == Status("queued", 3)
    assert seen(Queued(3), Started(1)) == View(status=Status("thinking"))
    assert seen(Started(1), Delta(0, "he"), Delta(2, "y")) == View("hey")
    assert seen(Delta(0, "hey"), Delta(1, "i")) == View("hi")
    assert seen(Delta(0, "hey"), Started(2)) == View(status=Status("thinking"))
    assert seen(Delta(0, "he"), done := Done("hey", "stop", USAGE)) == View("hey", end=done)


def test_a_thought_tells_its_seconds_since_its_first_sign() -> None:
    view = seen(Started(1), Delta(0, "", at=100.0), Delta(0, "", at=107.2))
    assert view == View(status=Status("thinking", seconds=7), thinks_since=100.0)
    assert view.after(Delta(0, "so", at=108.0)) == View("so")


@pytest.mark.parametrize(
    ("finish", "text", "in_thought", "key"),
    [
        ("stop", "", True, "thought_over"), ("length", "", True, "thought_cut"),
        ("cancelled", "", True, "stopped"), ("stop", "", False, "nothing_said"),
        ("length", "hey", False, "cut_short"), ("repetition", "hey", False, "repeated"),
        ("cancelled", "hey", False, "stopped"), ("cancelled", "", False, "stopped"),
    ],
)  # fmt: skip
def test_an_end_is_told(finish: FinishReason, text: str, in_thought: bool, key: str) -> None:
    told = say(key, "en")
    done = Done(text, finish, USAGE, in_thought=in_thought)
    assert words(done) == ((text, told) if text else (told, ""))


def test_an_end_without_an_answer_keeps_what_was_shown() -> None:
    stopped = say("stopped", "en")
    assert words(Delta(0, "hey"), Cancelled("person")) == ("hey", stopped)
    assert words(Cancelled("person")) == (stopped, "")
    assert words(Cancelled("reset")) == (say("ended_by_reset", "en"), "")
    assert words(Delta(0, "hey"), Failed("too_long", "9")) == words(Failed("too_long", "9"))
    assert words(Failed("busy", "7")) == (failure("busy", "en", waiting=7), "")
    assert words(Failed("busy", "some")) == (failure("busy", "en"), "")
    assert words(Failed("file_gone", "a.txt")) == (say("file_gone", "en", name="a.txt"), "")


def test_the_note_names_what_was_dropped_and_read() -> None:
    files = tuple(FileRead(f"{n}.txt", 10, 10) for n in range(5))
    done = Done("hey", "stop", USAGE, dropped=1, files=files, lost=("pirate",), collected=True)
    said, note = words(done)
    lines = note.split(" · ")
    assert said == "hey"
    assert lines[0] == say("turn_dropped", "en", turns=1)
    assert [name in note for name in ("0.txt", "2.txt", "3.txt")] == [True, True, False]
    assert lines[4:] == [
        say("files_more", "en", files=2), say("choice_lost", "en", name="pirate"),
        say("collects", "en"),
    ]  # fmt: skip
    assert words(Done("hey", "stop", USAGE, dropped=2))[1] == say("turns_dropped", "en", turns=2)
    assert words(Done("hey", "stop", USAGE, files=files[:3]))[1].count(" · ") == 2
    assert say("files_more", "en", files=1) in words(Done("hey", "stop", USAGE, files=files[:4]))[1]


def test_a_duel_asks_for_votes_in_the_persons_language() -> None:
    duel = Done("", "stop", USAGE, duel=Duel("one", "two"), dropped=2)
    said, note = seen(duel).words("ja", UTC)
    assert "one" in said
    assert "two" in said
    assert note == f"{say('duel_asks', 'ja')} · {say('turns_dropped', 'ja', turns=2)}"
