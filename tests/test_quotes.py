"""The quoted message: a turn before the reply, a pointer, or part of its text."""

from __future__ import annotations

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from bots.access import Access
from bots.platform import Incoming
from bots.quotes import Quote, image, quote_of
from bots.relay import Relay, RelaySettings
from core.access_policy import Asker, Policy
from core.queue_types import Place, QuotedTurn
from core.types import ThreadKey, Turn
from storage import keys
from storage.rules import RedisAudit, RedisRules
from tests.simulated_platform import Board, SimulatedPlatform
from tests.store_fixture import LANE, StoreFixture, job_of

THREAD = ThreadKey("stand-in", "T1", "C1", "1.0")
OTHER = replace(THREAD, thread="2.0")
SAID = Turn("q1", "user", "U2", "I restarted it", 5.0, "Bob", quoted=True)


@pytest.fixture
async def stores(redis: Redis) -> StoreFixture:
    return await StoreFixture.serving(redis)


def relay_over(stores: StoreFixture, board: Board | None = None) -> Relay:
    rulebook = RedisRules(stores.store, Policy())
    access = Access(rulebook, RedisAudit(stores.store), Policy(), stores.queue.cores)
    settings = RelaySettings(LANE, "one", access=access)
    return Relay(SimulatedPlatform(board or Board()), stores.of_a_platform(), settings)


def quote(turn: Turn | None = SAID) -> Quote:
    return replace(quote_of("q1", "Bob", SAID.text), turn=turn)


async def ask(
    stores: StoreFixture, words: str = "why?", *, thread: ThreadKey = THREAD, **more: object
) -> list[str]:
    """A reply to the quoted message; what the thread remembers."""
    found = quote()
    text = f"{found.whole}\n\n{words}".strip()
    turn = Turn(f"m{next(stores.numbers)}", "user", "U1", text, 9.0)
    incoming = Incoming(thread, turn, addressed=True, quote=found, alone=True)
    await relay_over(stores).submit(replace(incoming, **more))  # type: ignore[arg-type]
    return await stores.texts(thread)


INLINE = "[in reply to Bob]\n> I restarted it"


async def test_it_is_a_turn_once_and_then_a_pointer(stores: StoreFixture) -> None:
    assert await ask(stores) == ["I restarted it", "why?"]
    assert (await ask(stores, "and then?"))[2:] == [f"{INLINE}\n\nand then?"]


async def test_a_thread_that_quotes_another_ones_turn_points_to_its_own_copy(
    stores: StoreFixture,
) -> None:
    await ask(stores)
    assert await ask(stores, thread=OTHER) == ["I restarted it", "why?"]
    assert (await ask(stores, "and then?", thread=OTHER))[2:] == [f"{INLINE}\n\nand then?"]
    channel = f"{THREAD.platform}:{THREAD.space}:{THREAD.channel}"
    known = await stores.redis.get(keys.key("message", 0, channel, "q1"))
    assert known == f"{THREAD}\nq1"


async def test_a_quoted_message_that_comes_later_is_known(stores: StoreFixture) -> None:
    await ask(stores)
    for addressed, outcome in ((False, "duplicate"), (True, "queued")):
        late = await stores.say(SAID.text, THREAD, "U2", id="q1", addressed=addressed)
        assert late.outcome == outcome
    assert await stores.texts(THREAD) == ["I restarted it", "why?"]


async def test_the_keys_of_a_quote_have_a_lifetime(stores: StoreFixture) -> None:
    for thread in (THREAD, OTHER):
        await ask(stores, thread=thread)
    await stores.queue.sweep()
    await stores.deliveries.take_over(THREAD.platform, "one")
    names = await stores.redis.keys()
    assert [name for name in names if await stores.redis.ttl(name) < 0] == []


async def test_a_quote_goes_with_a_question_whose_files_cannot_be_read(
    stores: StoreFixture,
) -> None:
    quoted = QuotedTurn("q1", SAID, "why?", f"{INLINE}\n\nwhy?")
    receipt = await stores.say("why?", THREAD, quote=quoted, unread=True)
    assert await stores.texts(THREAD) == ["I restarted it", "why?"]
    assert await stores.queue.turn_away(THREAD, job_of(receipt), "unreadable", "", quoted="q1")
    assert await stores.texts(THREAD) == []


async def test_without_words_and_without_a_question_it_stays_among_the_words(
    stores: StoreFixture,
) -> None:
    assert await ask(stores, "") == [INLINE]
    assert (await ask(stores, "hm", addressed=False))[1:] == [f"{INLINE}\n\nhm"]


async def test_a_quote_of_a_denied_person_belongs_to_the_quoter(stores: StoreFixture) -> None:
    rulebook = RedisRules(stores.store, Policy())
    await rulebook.change(Place("stand-in", "T1"), "deny_people", ["U2"], "admin")
    assert await ask(stores) == [f"{INLINE}\n\nwhy?"]


async def test_a_forgotten_persons_turn_stays_deleted(stores: StoreFixture) -> None:
    await ask(stores)
    await ask(stores, thread=OTHER)
    assert await stores.history.forget(Place("stand-in", "T1"), "U2") == 2
    assert await stores.texts(THREAD) == ["why?"]
    assert await stores.texts(OTHER) == ["why?"]
    assert (await ask(stores, "again"))[1:] == [f"{INLINE}\n\nagain"]


async def test_an_edit_and_a_deletion_reach_every_copy(stores: StoreFixture) -> None:
    await ask(stores)
    await ask(stores, thread=OTHER)
    relay = relay_over(stores)
    await relay.edited(Asker(THREAD, "U2"), "q1", "I stopped it", "7")
    assert [(await stores.texts(key))[0] for key in (THREAD, OTHER)] == ["I stopped it"] * 2
    await relay.deleted(THREAD, "q1")
    assert [await stores.texts(key) for key in (THREAD, OTHER)] == [["why?"]] * 2


async def test_an_edit_of_the_question_keeps_the_quote_apart(stores: StoreFixture) -> None:
    await ask(stores)
    (_, question) = await stores.history.turns(THREAD)
    text = f"{INLINE}\n\nwhere?"
    await relay_over(stores).edited(Asker(THREAD, "U1"), question.turn.id, text, "7", (), quote())
    assert await stores.texts(THREAD) == ["I restarted it", "where?"]


def test_a_picture_of_any_address_is_named() -> None:
    assert image("", "https://cdn/a/b.png?x=1") == "[image: b.png]"
    assert image("", "https://[x/b.png") == "[image: b.png]"
