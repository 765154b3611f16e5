"""People's actions on replies and conversations, on every platform."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from bots.access import Access
from bots.actions import Actions, Actor, Scope, can_continue
from bots.relay import Relay, RelaySettings
from bots.strings import guess, locale_for
from core.access_policy import Policy
from core.queue_types import Place
from core.types import Cancelled, Done, FinishReason, ThreadKey, Usage
from storage.rules import RedisAudit, RedisRules
from tests.simulated_platform import Board, SimulatedPlatform
from tests.store_fixture import LANE, THREAD, StoreFixture

ASKER, OTHER = Actor("U1"), Actor("U2")


async def is_admin_of_the_workspace() -> bool:
    return True


ADMIN = Actor("U9", manages=is_admin_of_the_workspace)
HERE = Scope.of_thread(THREAD)
CHANNEL = Scope("channel", Place("slack", "T1", "C1"))


class Office:
    """A workspace in which one thread is talked in."""

    def __init__(self, redis: Redis, policy: Policy) -> None:
        self.stores = StoreFixture.over(redis)
        access = Access(
            RedisRules(self.stores.store, policy),
            RedisAudit(self.stores.store),
            policy,
            self.stores.queue.cores,
        )
        settings = RelaySettings(LANE, "bot", access=access)
        stores = self.stores.of_a_platform()
        relay = Relay(SimulatedPlatform(Board(), "slack"), stores, settings)
        self.actions = Actions(relay, stores)

    async def answered(self, text: str = "question", author: str = "U1") -> str:
        """The id of a finished reply."""
        await self.stores.say(text, author=author)
        claim = await self.stores.claim()
        assert await self.stores.reply(claim, "answer") == "ok"
        return claim.job.id

    async def under_way(self, author: str = "U1", thread: ThreadKey = THREAD) -> str:
        """The id of a reply that is being written."""
        await self.stores.say("question", thread, author)
        return (await self.stores.claim()).job.id


@pytest.fixture
async def office(redis: Redis) -> Office:
    office = Office(redis, Policy(admins=("boss", "slack:chief")))
    await office.stores.queue.announce(LANE, "core", 60)
    return office


# -- stop ---------------------------------------------------------------------------------------


async def test_the_person_who_asked_and_admins_may_stop_a_reply(office: Office) -> None:
    for actor in (ASKER, ADMIN, Actor("boss"), Actor("U5", roles=("chief",))):
        job = await office.under_way()
        assert (await office.actions.stop(OTHER, THREAD, job)).key == "not_yours"
        assert (await office.actions.stop(actor, THREAD, job)).done
        await office.stores.history.reset(THREAD, "test")


async def test_a_reply_that_has_ended_cannot_be_stopped(office: Office) -> None:
    job = await office.answered()
    assert (await office.actions.stop(ASKER, THREAD, job)).key == "too_late"


async def test_stop_without_a_reply_named_stops_all_of_ones_own(office: Office) -> None:
    apart = ThreadKey("slack", "T1", "C1", "!U1")
    await office.under_way("U2")
    await office.stores.say("and this?", apart, "U1")
    await office.stores.say("and this?", author="U1")
    assert (await office.actions.stop_here(ASKER, [THREAD, apart])).done
    assert (await office.actions.stop_here(ASKER, [THREAD, apart])).key == "not_yours"
    assert list((await office.stores.queue.open_jobs(THREAD)).values()) == ["U2"]


async def test_an_admin_stops_the_oldest_reply_where_none_is_theirs(office: Office) -> None:
    await office.under_way("U1")
    assert (await office.actions.stop_here(OTHER, [THREAD])).key == "not_yours"
    assert (await office.actions.stop_here(ADMIN, [THREAD])).done


async def test_stop_says_so_where_nothing_is_being_written(office: Office) -> None:
    await office.answered()
    outcome = await office.actions.stop_here(ASKER, [THREAD])
    assert (outcome.done, outcome.key) == (False, "nothing_to_stop")


# -- regenerate and continue --------------------------------------------------------------------


async def test_a_bystander_cannot_regenerate(office: Office) -> None:
    reply = await office.answered()
    outcome = await office.actions.regenerate(OTHER, THREAD, reply, "press")
    assert outcome.key == "not_yours"
    assert await office.stores.nothing_to_do()


async def test_the_asker_still_governs_a_reply_that_an_admin_regenerated(office: Office) -> None:
    reply = await office.answered()
    assert (await office.actions.regenerate(ADMIN, THREAD, reply, "press")).done
    claim = await office.stores.claim()
    assert claim.job.author == "U9"  # the person whose quota it counts against
    assert await office.stores.queue.open_jobs(THREAD) == {claim.job.id: "U1"}
    assert (await office.actions.stop(OTHER, THREAD, claim.job.id)).key == "not_yours"
    assert (await office.actions.stop(ASKER, THREAD, claim.job.id)).done
    assert await office.stores.reply(claim, "ans", "cancelled") == "ok"
    went_on = await office.actions.regenerate(ASKER, THREAD, claim.job.id, "again", resumes=True)
    assert went_on.done


async def test_a_former_admin_does_not_govern_a_reply_that_they_regenerated(
    office: Office,
) -> None:
    reply = await office.answered()
    await office.actions.regenerate(ADMIN, THREAD, reply, "press")
    job = (await office.stores.claim()).job.id
    assert (await office.actions.stop(Actor("U9"), THREAD, job)).key == "not_yours"


async def test_each_press_regenerates_again(office: Office) -> None:
    reply = await office.answered()
    for press in ("first", "second"):
        assert (await office.actions.regenerate(ASKER, THREAD, reply, press)).done
        (waiting,) = await office.stores.queue.open_jobs(THREAD)
        assert (await office.actions.stop(ASKER, THREAD, waiting)).done


async def test_a_refusal_is_the_sentence_of_the_queue(office: Office) -> None:
    reply = await office.answered()
    await office.stores.queue.withdraw(LANE, "core")
    outcome = await office.actions.regenerate(ASKER, THREAD, reply, "press")
    assert not outcome.done
    assert "No language model" in outcome.sentence("en")


async def test_a_reply_that_is_forgotten_cannot_be_regenerated(office: Office) -> None:
    outcome = await office.actions.regenerate(ASKER, THREAD, "no such reply", "press")
    assert outcome.key == "prompt_gone"


@pytest.mark.parametrize(
    ("finish", "offered"),
    [("length", True), ("cancelled", True), ("stop", False), ("repetition", False)],
)
def test_continue_is_offered_where_more_would_have_come(
    finish: FinishReason, offered: bool
) -> None:
    assert can_continue(Done("text", finish, Usage(1, 1))) is offered
    assert not can_continue(Done("", finish, Usage(1, 1)))


# -- reset --------------------------------------------------------------------------------------


async def test_a_reset_does_not_end_another_persons_reply(office: Office) -> None:
    job = await office.under_way("U1")
    outcome = await office.actions.reset(OTHER, HERE)
    assert (outcome.done, outcome.key) == (False, "reset_not_yours")
    assert list(await office.stores.queue.open_jobs(THREAD)) == [job]
    assert await office.stores.texts() == ["question"]


async def test_a_person_alone_in_a_thread_resets_it_with_their_reply(office: Office) -> None:
    job = await office.under_way("U1")
    assert (await office.actions.reset(ASKER, HERE)).key == "reset_done"
    assert (await office.stores.events(job))[-1] == Cancelled("reset")
    assert (await office.actions.reset(ASKER, HERE)).key == "reset_nothing"


async def test_an_admin_resets_a_thread_with_everybodys_replies(office: Office) -> None:
    await office.under_way("U1")
    assert (await office.actions.reset(ADMIN, HERE)).done
    assert await office.stores.queue.open_jobs(THREAD) == {}


async def test_only_admins_reset_more_than_a_thread(office: Office) -> None:
    await office.answered()
    refused = await office.actions.reset(OTHER, CHANNEL)
    assert refused.sentence("en") == "Only admins can reset this channel."
    assert await office.stores.texts() != []
    assert (await office.actions.reset(ADMIN, CHANNEL)).sentence("en") == "Forgotten: this channel."
    assert await office.stores.texts() == []


async def test_everybody_may_have_their_own_words_forgotten(office: Office) -> None:
    await office.answered("mine", "U1")
    await office.answered("theirs", "U2")
    outcome = await office.actions.reset(ASKER, Scope("mine", Place("slack", "T1")))
    assert (outcome.done, outcome.turns) == (True, 2)
    assert await office.stores.texts() == ["theirs", "answer"]


async def test_resetting_ones_own_words_ends_a_reply_that_an_admin_regenerated(
    office: Office,
) -> None:
    reply = await office.answered()
    await office.actions.regenerate(ADMIN, THREAD, reply, "press")
    job = (await office.stores.claim()).job.id
    await office.actions.reset(ASKER, Scope("mine", Place("slack", "T1")))
    assert (await office.stores.events(job))[-1] == Cancelled("reset")


# -- languages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("(・∀・) hi", "en"),
        ("OK ー", "en"),
        ("a・b", "en"),
        (r"whatever ¯\_(ツ)_/¯", "en"),
        ("ｶﾀｶﾅ", "ja"),
        ("カタカナ", "ja"),
        ("はい", "ja"),
        ("日本", "ja"),
        ("please translate 猫", "ja"),
        ("", "en"),
    ],
)
def test_a_text_is_taken_for_the_language_of_its_letters(text: str, language: str) -> None:
    assert guess(text) == language


def test_a_language_comes_from_the_setting_then_the_platform_then_a_guess() -> None:
    assert locale_for("en", "ja-JP", "はい") == "en"
    assert locale_for("auto", "en-GB", "はい") == "en"
    assert locale_for("auto", "", "はい") == "ja"
