"""Messages with files: read after they are taken in, and never answered without them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest
from redis.asyncio import Redis

from bots import downloads, reading
from bots.attachments import MOST_BYTES, File, file_of
from bots.platform import Incoming, PlatformRefused
from bots.relay import Relay
from core.access_policy import Asker
from core.engine.echo import EchoEngine
from core.errors import StoreUnavailable
from core.queue_types import Claim, Receipt, Submission
from core.types import Failed, ThreadKey, Turn, TurnFile
from tests.simulated_platform import SimulatedPlatform
from tests.store_fixture import LANE, StoreFixture, at_work, job_of
from tests.test_delivery import THREAD, Story
from tests.waiting import until

T = TypeVar("T")


@pytest.fixture
async def story(redis: Redis) -> Story:
    stores = await StoreFixture.serving(redis, lease=0.3, delivery_lease=0.4)
    return Story(stores)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAUSES", (0.01,))
    monkeypatch.setattr(reading, "SECONDS", 0.5)


@dataclass
class SlowFiles:
    """A wire on which files come only when they are let through; those asked for while it is not
    slow come at once."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    let: asyncio.Event = field(default_factory=asyncio.Event)
    is_slow: bool = True

    async def __call__(self, name: str, effect: Callable[[], Awaitable[T]]) -> T:
        if name == "fetch" and self.is_slow:
            self.asked.set()
            await self.let.wait()
        return await effect()


async def send(
    story: Story,
    relay: Relay,
    text: str,
    files: Sequence[File],
    *,
    id_: str = "m1",
    addressed: bool = True,
    thread: ThreadKey = THREAD,
    has_past: bool = False,
) -> Receipt:
    turn = story.board.say(thread, id_, "U1", text)
    return await relay.submit(
        Incoming(thread, turn, addressed=addressed, files=tuple(files), has_past=has_past)
    )


def put(story: Story, name: str, content: bytes, size: int | None = None) -> File:
    """A file on the platform's own host."""
    address = f"https://files.example.com/{name}"
    story.board.files[address] = content
    return file_of(name, "", len(content) if size is None else size, address)


async def ended(story: Story) -> list[str]:
    """What the board shows once every delivery is over."""

    async def over() -> bool:
        return bool(story.board.shown()) and not await story.stores.redis.exists(
            "henji:{0}:deliveries:stand-in"
        )

    await until(over, 5)
    return story.board.shown()


async def test_a_question_about_a_paste_is_answered_with_the_paste(story: Story) -> None:
    paste = put(story, "message.txt", "売上は三割増。".encode("shift_jis"))
    async with story.running() as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "要約して", [paste])
        shown = await ended(story)
    assert shown == [
        "echo: 要約して\n\n[file: message.txt]\n~~~\n売上は三割増。\n~~~"
        " | `message.txt`: 35 of 35 tokens"
    ]
    assert (await story.stores.texts(THREAD))[
        0
    ] == "要約して\n\n[file: message.txt]\n~~~\n売上は三割増。\n~~~"


async def test_pictures_are_named_to_the_model_and_the_person_is_told_in_the_reply(
    story: Story,
) -> None:
    async with story.running() as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "What is this?", [file_of("plan.png")])
        assert await ended(story) == [
            "echo: What is this?\n\n[image: plan.png] | `plan.png`: not read"
        ]


@pytest.mark.parametrize(
    ("name", "content", "size", "told"),
    [
        ("notes.txt", b"PK\x03\x04\x00\x01", None, "`notes.txt` is not text"),
        ("notes.txt", b"", None, "`notes.txt` is empty"),
        ("notes.txt", b"x" * (MOST_BYTES + 1), None, "at most 256 KB"),
        ("liar.txt", b"x" * (MOST_BYTES + 1), 10, "at most 256 KB"),
    ],
)
async def test_an_unreadable_file_is_named_in_one_sentence_and_not_answered(
    story: Story, name: str, content: bytes, size: int | None, told: str
) -> None:
    file = put(story, name, content, size)
    async with story.running() as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "Summarise", [file])
        (shown,) = await ended(story)
    assert told in shown
    assert "echo" not in shown
    assert await story.stores.texts(THREAD) == []


async def test_a_file_that_is_gone_is_said_to_be(story: Story) -> None:
    async with story.running() as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "Summarise", [file_of("a.txt", "", 3, "https://gone")])
        assert (await ended(story))[0].startswith("`a.txt` was deleted")


async def test_a_host_that_does_not_answer_ends_in_a_sentence(story: Story) -> None:
    paste = put(story, "a.txt", b"text")
    async with story.running(wire=SlowFiles()) as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "Summarise", [paste])
        assert (await ended(story))[0].startswith("`a.txt` could not be loaded")


async def test_a_line_of_the_maximum_length_is_read_completely(story: Story) -> None:
    line = b"x" * (MOST_BYTES - 1)
    async with story.running() as relay:
        receipt = await send(story, relay, "Count", [put(story, "a.txt", line)])
        claims: list[Claim] = []

        async def claimed() -> bool:
            claims.extend(await story.stores.queue.claim(LANE, "core", 1))
            return bool(claims)

        await until(claimed, 5)
        (claim,) = claims
        assert claim.job.id == receipt.job
        window = await story.stores.history.window(claim)
        assert line.decode() in window.mailbox[0].turn.text


async def test_nothing_is_answered_before_its_file_is_there(story: Story) -> None:
    wire = SlowFiles()
    paste = put(story, "a.txt", b"text")
    async with story.running(wire=wire) as relay:
        await send(story, relay, "Summarise", [paste])
        await wire.asked.wait()
        assert await story.stores.nothing_to_do()
        await send(story, relay, "and this?", [], id_="m2")  # waits for its turn behind it
        assert await story.stores.nothing_to_do()
        wire.let.set()
        async with at_work(story.stores, EchoEngine()):
            shown = await ended(story)
            await until(lambda: _both(story), 5)
        assert shown[0].startswith("echo: Summarise\n\n[file: a.txt]")


async def _both(story: Story) -> bool:
    return len(story.board.shown()) == 2


async def test_a_process_that_dies_while_it_reads_loses_nothing(story: Story) -> None:
    stuck, paste = SlowFiles(), put(story, "a.txt", b"the text")
    dying = story.relay("one", stuck)
    await send(story, dying, "Summarise", [paste])
    await stuck.asked.wait()
    for task in dying._tasks:
        task.cancel()
    async with story.running("two"), at_work(story.stores, EchoEngine()):
        (shown,) = await ended(story)
    assert "the text" in shown


async def test_an_edit_of_the_words_leaves_the_file(story: Story) -> None:
    async with story.running() as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "Summarise", [put(story, "a.txt", b"the text")])
        await ended(story)
        await relay.edited(
            Asker(THREAD, "U1"), "m1", "Translate", "2", [put(story, "a.txt", b"the text")]
        )
        await until(lambda: _remembers(story, "Translate\n\n[file: a.txt]\n~~~\nthe text\n~~~"), 5)


async def test_an_edit_that_comes_before_the_file_is_read_keeps_both(story: Story) -> None:
    wire = SlowFiles()
    async with story.running(wire=wire) as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "Summarise", [put(story, "a.txt", b"the text")])
        await wire.asked.wait()
        await relay.edited(Asker(THREAD, "U1"), "m1", "", "2", [put(story, "a.txt", b"the text")])
        wire.let.set()
        (shown,) = await ended(story)
    assert shown.startswith("echo: [file: a.txt]\n~~~\nthe text\n~~~")


async def _remembers(story: Story, text: str) -> bool:
    return text in await story.stores.texts(THREAD)


async def test_stopping_resetting_and_deleting_end_it_while_it_is_read(story: Story) -> None:
    wire = SlowFiles()
    async with story.running(wire=wire) as relay:
        receipt = await send(story, relay, "Summarise", [put(story, "a.txt", b"the text")])
        await wire.asked.wait()
        assert await relay.stop(THREAD, str(receipt.job))
        wire.let.set()
        assert await ended(story) == ["Stopped."]
        await relay.reset(THREAD, "U1")
        assert await story.stores.texts(THREAD) == []


async def test_a_file_that_nobody_asks_about_is_read_too(story: Story) -> None:
    async with story.running() as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "hello", [])
        await ended(story)
        await send(story, relay, "", [put(story, "a.txt", b"the text")], id_="m2", addressed=False)
        await until(lambda: _remembers(story, "[file: a.txt]\n~~~\nthe text\n~~~"), 5)


async def test_a_flood_of_files_that_nobody_asks_about_holds_nobody_up(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SECONDS", 60)
    wire = SlowFiles()
    async with story.running(wire=wire) as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "hello", [])
        await ended(story)
        for number in range(10):
            file, id_ = put(story, f"chatter{number}.txt", b"chatter"), f"chatter{number}"
            await send(story, relay, "", [file], id_=id_, addressed=False)
        await wire.asked.wait()
        wire.is_slow = False
        await send(story, relay, "Summarise", [put(story, "a.txt", b"the text")], id_="m2")
        await until(lambda: _remembers(story, "Summarise\n\n[file: a.txt]\n~~~\nthe text\n~~~"), 5)
        wire.let.set()


async def test_a_job_without_its_files_ends_at_its_deadline(redis: Redis) -> None:
    stores = await StoreFixture.serving(redis, lease=0.3, delivery_lease=0.4, deadline=0.1)
    receipt = await stores.say("Summarise", unread=True)
    await asyncio.sleep(0.15)
    await stores.queue.sweep()
    assert Failed("deadline") in await stores.events(receipt.job)
    assert await stores.nothing_to_do()


@pytest.mark.parametrize(("sources", "ends"), [(["old"], False), (["new"], True), ([], True)])
async def test_only_a_fault_of_the_files_that_a_message_has_ends_its_job(
    redis: Redis, sources: list[str], ends: bool
) -> None:
    """An edit may have taken away the files that were being read."""
    stores = await StoreFixture.serving(redis)
    file = TurnFile("a.txt", read=False, length=0, source="new")
    turn = Turn("m1", "user", "U1", "Summarise", 0.0, files=(file,))
    asked = Submission(THREAD, turn, addressed=True, lane=LANE, unread=True)
    job = job_of(await stores.queue.submit(asked, "adapter"))
    assert await stores.queue.turn_away(THREAD, job, "unreadable", "", sources) == ends
    assert (Failed("unreadable") in await stores.events(job)) == ends
    assert await stores.queue.attach(THREAD, turn, job) != ends


async def test_only_the_platform_s_own_hosts_are_asked() -> None:
    for address in (
        "https://example.com/a.txt",
        "http://cdn.example.com/a.txt",
        "https://cdn.example.com.evil.org/a.txt",
        "https://user@cdn.example.com/a.txt",
        "file:///etc/passwd",
        "https://[cdn.example.com/a.txt",
    ):
        with pytest.raises(PlatformRefused):
            await downloads.download(address, 10, frozenset({"https://cdn.example.com"}))


async def test_a_store_that_is_away_while_a_file_was_read_is_waited_for(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach, failures = story.stores.queue.attach, [1, 2]

    async def flaky(*arguments: object) -> bool:
        if failures:
            failures.pop()
            raise StoreUnavailable("away")
        return await attach(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(story.stores.queue, "attach", flaky)
    async with story.running() as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "Summarise", [put(story, "a.txt", b"the text")])
        assert "the text" in (await ended(story))[0]


# -- other files by an edit ---------------------------------------------------------------------


async def answered(story: Story, start: str) -> list[str]:
    """What the board shows, once a reply begins so and every delivery is over."""

    async def so() -> bool:
        over = not await story.stores.redis.exists("henji:{0}:deliveries:stand-in")
        return over and any(text.startswith(start) for text in story.board.shown())

    await until(so, 10)
    return story.board.shown()


async def edit(story: Story, relay: Relay, text: str, *files: File, id_: str = "m1") -> Receipt:
    story.number += 1
    revision = str(story.number)
    return await relay.edited(Asker(THREAD, "U1"), id_, text, revision, files)


async def test_a_file_that_an_edit_adds_changes_or_removes_is_read_and_answered_again(
    story: Story,
) -> None:
    first, second = put(story, "a.txt", b"one"), put(story, "b.txt", b"two")
    async with story.running() as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "Summarise", [])
        await answered(story, "echo: Summarise")
        for files, read in (
            ([first], "[file: a.txt]\n~~~\none\n~~~"),
            ([second], "[file: b.txt]\n~~~\ntwo\n~~~"),
            ([second, first], "[file: b.txt]\n~~~\ntwo\n~~~\n\n[file: a.txt]\n~~~\none\n~~~"),
        ):
            await edit(story, relay, "Summarise", *files)
            (shown,) = await answered(story, f"echo: Summarise\n\n{read}")
            assert f"`{files[0].name}`: " in shown
            assert (await story.stores.texts(THREAD))[0] == f"Summarise\n\n{read}"
        await edit(story, relay, "Summarise")
        await story.shows("echo: Summarise")
        assert await story.stores.texts(THREAD) == ["Summarise", "echo: Summarise"]


async def test_a_file_of_the_same_name_with_another_text_is_read_anew(story: Story) -> None:
    async with story.running() as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "Summarise", [put(story, "1/a.txt", b"one")])
        await answered(story, "echo: Summarise")
        old = story.board.shown()
        await edit(story, relay, "Summarise", put(story, "1/a.txt?signed=anew", b"one"))
        assert story.board.shown() == old
        await edit(story, relay, "Summarise", put(story, "2/a.txt", b"two"))
        await answered(story, "echo: Summarise\n\n[file: 2/a.txt]\n~~~\ntwo")


async def test_an_edit_while_the_old_file_is_loaded_is_answered_with_the_new_one(
    story: Story,
) -> None:
    wire = SlowFiles()
    async with story.running(wire=wire) as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "Summarise", [put(story, "a.txt", b"one")])
        await wire.asked.wait()
        receipt = await edit(story, relay, "Summarise", put(story, "b.txt", b"two"))
        assert receipt.unread
        assert await story.stores.nothing_to_do()
        wire.let.set()
        (shown,) = await answered(story, "echo")
    assert shown.startswith("echo: Summarise\n\n[file: b.txt]\n~~~\ntwo\n~~~")
    assert "one" not in shown


async def test_a_reset_while_an_edit_s_file_is_loaded_leaves_nothing_of_it(story: Story) -> None:
    wire = SlowFiles()
    async with story.running(wire=wire) as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "Summarise", [])
        await answered(story, "echo: Summarise")
        await edit(story, relay, "Summarise", put(story, "b.txt", b"two"))
        await wire.asked.wait()
        await relay.reset(THREAD, "U1")
        wire.let.set()
        await ended(story)
        assert await story.stores.texts(THREAD) == []
        assert not any("two" in shown for shown in story.board.shown())


async def test_a_file_removed_while_it_is_loaded_holds_nothing_up(story: Story) -> None:
    wire = SlowFiles()
    async with story.running(wire=wire) as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "Summarise", [put(story, "a.txt", b"one")])
        await wire.asked.wait()
        await edit(story, relay, "Say hello")
        await answered(story, "echo: Say hello")
        wire.let.set()
    assert await story.stores.texts(THREAD) == ["Say hello", "echo: Say hello"]


async def test_a_file_removed_while_it_cannot_be_loaded_refuses_nothing(story: Story) -> None:
    wire = SlowFiles()
    async with story.running(wire=wire) as relay:
        await send(story, relay, "Summarise", [put(story, "a.txt", b"")])
        await wire.asked.wait()
        await edit(story, relay, "Summarise", put(story, "b.txt", b"two"))
        wire.let.set()
        async with at_work(story.stores, EchoEngine()):
            (shown,) = await answered(story, "echo")
    assert "two" in shown


async def test_an_edit_of_an_older_message_changes_its_turn_alone(story: Story) -> None:
    async with story.running() as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "first", [])
        await answered(story, "echo: first")
        await send(story, relay, "second", [], id_="m2")
        await answered(story, "echo: second")
        await edit(story, relay, "first", put(story, "a.txt", b"one"))
        await until(lambda: _remembers(story, "first\n\n[file: a.txt]\n~~~\none\n~~~"), 5)
        assert sorted(story.board.shown()) == ["echo: first", "echo: second"]


async def test_a_file_that_an_edit_adds_and_that_cannot_be_read_is_said_in_the_reply_s_place(
    story: Story,
) -> None:
    async with story.running() as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "Summarise", [])
        await answered(story, "echo")
        await edit(story, relay, "Summarise", put(story, "a.txt", b"PK\x03\x04\x00"))
        await answered(story, "`a.txt` is not text")
    assert await story.stores.texts(THREAD) == []


async def test_an_edit_that_makes_a_long_file_short_asks_again(story: Story) -> None:
    async with story.running() as relay, at_work(story.stores, EchoEngine()):
        await send(story, relay, "Summarise", [put(story, "a.txt", b"x" * 9000)])
        await answered(story, "This message is longer")
        await edit(story, relay, "Summarise", put(story, "b.txt", b"short"))
        await answered(story, "echo: Summarise\n\n[file: b.txt]\n~~~\nshort")
        assert len(story.board.shown()) == 1


async def test_a_process_that_dies_while_it_reads_an_edit_s_file_loses_nothing(
    story: Story,
) -> None:
    stuck = SlowFiles()
    async with at_work(story.stores, EchoEngine()):
        async with story.running() as relay:
            await send(story, relay, "Summarise", [])
            await answered(story, "echo")
        dying = story.relay("two", stuck)
        await edit(story, dying, "Summarise", put(story, "a.txt", b"the text"))
        await stuck.asked.wait()
        for task in dying._tasks:
            task.cancel()
        async with story.running("three"):
            await answered(story, "echo: Summarise\n\n[file: a.txt]\n~~~\nthe text")


async def test_a_flood_of_files_by_one_person_holds_up_nobody_elses(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message whose file cannot be read costs no quota, so that nothing else limits them."""
    let = asyncio.Event()
    load = SimulatedPlatform.fetch

    async def fetch(board: SimulatedPlatform, thread: ThreadKey, file: File, most: int) -> bytes:
        if file.name != "mine.txt":
            await let.wait()
        return await load(board, thread, file, most)

    monkeypatch.setattr(reading, "SECONDS", 60.0)
    monkeypatch.setattr(SimulatedPlatform, "fetch", fetch)
    async with story.running() as relay, at_work(story.stores, EchoEngine()):
        for number in range(2 * reading.AT_ONCE):
            file = put(story, f"{number}.txt", b"one of many")
            here = replace(THREAD, thread=f"flood-{number}")
            await send(story, relay, "and this?", [file], id_=f"f{number}", thread=here)
        other = replace(THREAD, thread="other")
        turn = replace(story.board.say(other, "o1", "U2", "and mine?"), author="U2")
        file = put(story, "mine.txt", b"words")
        await relay.submit(Incoming(other, turn, addressed=True, files=(file,)))

        async def is_answered() -> bool:
            return any("words" in text for text in story.board.shown())

        await until(is_answered)
        let.set()
