"""Who may ask, how much and how: against a real Valkey, as the bots and the cores see it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from redis.asyncio import Redis

from bots import strings
from bots.access import Access
from core.access_policy import Asker, Permit, Policy, Quota
from core.place_rules import DAY, Rules
from core.queue_types import Commit, Place, Receipt, Regeneration
from core.types import Done, Failed, ThreadKey, Usage
from storage import queue
from storage.rules import RedisAudit, RedisRules
from tests.store_fixture import LANE, THREAD, StoreFixture

CHANNEL = Place("slack", "T1", "C1")
SPACE = Place("slack", "T1")
TOKYO = ZoneInfo("Asia/Tokyo")


class Company:
    """A workspace with rules: people's messages and admins' settings."""

    def __init__(self, redis: Redis, policy: Policy) -> None:
        self.stores = StoreFixture.over(redis, max_attempts=1)
        self.rulebook = RedisRules(self.stores.store, policy)
        self.audit = RedisAudit(self.stores.store)
        self.access = Access(self.rulebook, self.audit, policy, self.stores.queue.cores)

    async def say(self, text: str, author: str = "U1", thread: ThreadKey = THREAD) -> Receipt:
        admission = await self.access.admit(Asker(thread, author), LANE)
        changes = {"permit": admission.permit, "lane": admission.lane, "alone": True}
        return await self.stores.say(text, thread, author, **changes)

    async def config(self, words: str, place: Place = CHANNEL, locale: str = "en") -> str:
        return await self.access.configure(place, words, "admin", locale)


@pytest.fixture
async def company(redis: Redis) -> Company:
    company = Company(redis, Policy(zone=TOKYO))
    await company.stores.queue.announce(LANE, "core", 60)
    return company


def in_thread(number: int) -> ThreadKey:
    return ThreadKey("slack", "T1", "C1", f"{number}.0")


# -- rights -------------------------------------------------------------------------------------


async def test_a_person_without_access_gets_one_sentence_and_is_not_remembered(
    company: Company,
) -> None:
    await company.config("deny_people U1")
    receipt = await company.say("hello")
    assert (receipt.outcome, receipt.code) == ("refused", "not_allowed")
    assert await company.stores.events(receipt.job) == [Failed("not_allowed")]
    assert await company.stores.texts() == []
    assert (await company.say("hello", "U2")).outcome == "queued"


async def test_unaddressed_messages_of_a_person_without_access_are_not_kept_either(
    company: Company,
) -> None:
    await company.say("hello", "U2")
    await company.config("deny_people U1")
    admission = await company.access.admit(Asker(THREAD, "U1"), LANE)
    receipt = await company.stores.say("psst", addressed=False, permit=admission.permit)
    assert receipt.outcome == "ignored"
    assert await company.stores.texts() == ["hello"]


async def test_a_closed_space_is_opened_for_one_channel(company: Company) -> None:
    await company.config("enabled off", SPACE)
    assert (await company.say("hello")).code == "not_allowed"
    await company.config("enabled on", CHANNEL)
    assert (await company.say("hello")).outcome == "queued"
    elsewhere = ThreadKey("slack", "T1", "C2", "1.0")
    assert (await company.say("hello", thread=elsewhere)).code == "not_allowed"


# -- how much -----------------------------------------------------------------------------------


async def test_a_quota_is_never_passed_by_messages_that_come_at_once(company: Company) -> None:
    await company.config("person_messages 5")
    said = [company.say("hello", thread=in_thread(number)) for number in range(20)]
    outcomes = [receipt.outcome for receipt in await asyncio.gather(*said)]
    assert outcomes.count("queued") == 5
    assert outcomes.count("refused") == 15


async def test_the_end_of_a_quota_is_told_in_the_companys_own_time(company: Company) -> None:
    await company.config("person_messages 1")
    await company.say("first")
    receipt = await company.say("second")
    assert (receipt.outcome, receipt.code) == ("refused", "quota")
    midnight = datetime.now(TOKYO).replace(hour=0, minute=0, second=0, microsecond=0)
    assert receipt.until == (midnight + timedelta(days=1)).timestamp()
    (event,) = await company.stores.events(receipt.job)
    assert event == Failed("quota", "used up", receipt.until)
    assert isinstance(event, Failed)
    assert "00:00 (JST)" in strings.failure(event.code, "en", event.until, TOKYO)
    assert "00:00 (JST)" in strings.failure(event.code, "ja", event.until, TOKYO)


async def test_a_quota_is_each_persons_own_and_a_channels_is_for_all(company: Company) -> None:
    await company.config("person_messages 1")
    assert (await company.say("one", "U1")).outcome == "queued"
    assert (await company.say("two", "U2")).outcome == "queued"
    await company.config("channel_messages 2")
    assert (await company.say("three", "U3")).code == "quota_channel"
    elsewhere = ThreadKey("slack", "T1", "C2", "1.0")
    assert (await company.say("three", "U3", elsewhere)).outcome == "queued"


async def test_a_message_that_comes_twice_counts_once(company: Company) -> None:
    await company.config("person_messages 2")
    admission = await company.access.admit(Asker(THREAD, "U1"), LANE)
    for _ in range(3):
        await company.stores.say("hello", id="m1", permit=admission.permit)
    assert (await company.say("another")).outcome == "queued"


async def test_messages_that_are_answered_together_count_each(company: Company) -> None:
    quota = Permit(quota=Quota(person_messages=2))
    first = await company.stores.say("are you there?", permit=quota)
    second = await company.stores.say("I have a question", permit=quota)
    assert second.job == first.job
    assert (await company.stores.say("and one more", permit=quota)).code == "quota"


async def test_a_message_that_got_no_answer_is_given_back(company: Company) -> None:
    await company.config("person_messages 1")
    await company.say("hello")
    claim = await company.stores.claim()
    await company.stores.queue.fail(claim, "internal", "boom", retry=True)
    assert (await company.say("hello again")).outcome == "queued"
    assert (await company.say("once more")).code == "quota"


async def test_tokens_count_when_they_were_spent(company: Company) -> None:
    await company.config("person_tokens 100")
    await company.say("a long question")
    claim = await company.stores.claim()
    done = Done("a long answer", "stop", Usage(prompt_tokens=90, reply_tokens=20))
    await company.stores.queue.commit(claim, Commit(done, None, "chars"))
    assert (await company.say("more")).code == "quota"
    assert (await company.say("more", "U2")).outcome == "queued"


async def test_quotas_restart_with_a_new_day(company: Company) -> None:
    hours_ahead = 24 * 3600 * 1000
    today = Permit(quota=Quota(person_messages=1))
    tomorrow = Permit(quota=Quota(person_messages=1, offset_ms=hours_ahead))
    await company.stores.say("hello", permit=today)
    assert (await company.stores.say("again", permit=today)).code == "quota"
    assert (await company.stores.say("good morning", permit=tomorrow)).outcome == "queued"


async def test_an_edit_that_asks_again_is_within_the_quota(company: Company) -> None:
    quota = Permit(quota=Quota(person_messages=1))
    await company.stores.say("hello", id="m1", permit=quota)
    await company.stores.reply(await company.stores.claim(), "hi")
    receipt = await company.stores.queue.edit(THREAD, "m1", "hello!", "2", LANE, "adapter", quota)
    assert (receipt.outcome, receipt.code) == ("refused", "quota")
    assert receipt.until > datetime.now(UTC).timestamp()


# -- how ----------------------------------------------------------------------------------------


async def test_a_rule_holds_at_once_and_until_it_is_taken_back(company: Company) -> None:
    assert await company.config("temperature 0.1") == "From now on, here: temperature = 0.1."
    assert (await company.rulebook.rules(THREAD)).temperature == 0.1
    assert await company.config("") == "Set here:\ntemperature = 0.1"
    assert await company.config("temperature") == "Set here:\ntemperature = 0.1"
    assert "not set here any more" in await company.config("temperature default")
    assert "thinking = default" in await company.config("thinking default")
    assert "thinking is not set" in await company.config("thinking unset")
    assert "thinking = default" in await company.config("persona quick thinking default")
    assert "persona quick is not set" in await company.config("persona quick unset")
    assert (await company.rulebook.rules(THREAD)).temperature is None
    assert "temperature" in await company.config("")


@pytest.mark.parametrize("locale", ["en", "ja"])
@pytest.mark.parametrize(
    "words", ["temprature 1", "temperature hot", "colour", "colour default", "top_p 3", "enabled x"]
)
async def test_a_wrong_command_says_so_and_changes_nothing(
    company: Company, words: str, locale: str
) -> None:
    said = await company.config(words, locale=locale)
    assert said.startswith(strings.say("config_wrong", locale, reason="").strip())
    assert await company.rulebook.set_here(CHANNEL) == Rules()
    assert await company.audit.entries(CHANNEL, 10) == []


async def test_a_channel_is_answered_by_its_own_model(company: Company) -> None:
    assert "No core serves rinna-ppo now" in await company.config("model rinna-ppo")
    assert (await company.say("hello")).code == "no_core"
    await company.stores.queue.announce("rinna-ppo", "another core", 60)
    receipt = await company.say("hello")
    assert receipt.outcome == "queued"
    assert await company.stores.queue.claim(LANE, "core", 1) == []
    (claim,) = await company.stores.queue.claim("rinna-ppo", "another core", 1)
    assert claim.job.id == receipt.job
    assert "\n" not in await company.config("model rinna-ppo")


async def test_an_unreadable_stored_rule_is_left_out(company: Company) -> None:
    await company.config("temperature 0.1")
    name = "henji:{0}:rules:slack:T1:C1"
    await company.stores.redis.hset(name, mapping={"from_the_future": "1", "top_k": "not json"})
    assert await company.rulebook.rules(THREAD) == Rules(temperature=0.1)


# -- how long -----------------------------------------------------------------------------------


async def test_a_place_keeps_its_threads_for_its_own_retention_time(company: Company) -> None:
    await company.config("retention_days 2")
    await company.say("hello")
    await company.stores.reply(await company.stores.claim(), "hi")
    names = [name async for name in company.stores.redis.scan_iter("henji:{0}:thread:*")]
    assert len(names) >= 4
    for name in names:
        if not name.endswith(":jobs"):
            assert 0 < await company.stores.redis.ttl(name) <= 2 * DAY


async def test_a_shorter_retention_applies_to_existing_threads(company: Company) -> None:
    elsewhere = ThreadKey("slack", "T1", "C2", "1.0")
    await company.say("hello")
    await company.say("hello", thread=elsewhere)
    await company.config("retention_days 2", SPACE)
    await company.config("retention_days 9", Place("slack", "T1", "C2"))
    name = "henji:{0}:thread:%s:turns"
    assert 1 * DAY < await company.stores.redis.ttl(name % THREAD) <= 2 * DAY
    assert 8 * DAY < await company.stores.redis.ttl(name % elsewhere) <= 9 * DAY


async def test_a_shorter_retention_applies_to_records_of_messages(company: Company) -> None:
    receipt = await company.say("hello")
    await company.stores.reply(await company.stores.claim(), "hi")
    delivery = await company.stores.deliveries.get(THREAD, receipt.job or "")
    assert delivery is not None
    await company.stores.deliveries.close(delivery, ("1.1", "1.2"))
    await company.config("retention_days 2")
    names = [name async for name in company.stores.redis.scan_iter("henji:{0}:message:*")]
    names += [name async for name in company.stores.redis.scan_iter("henji:{0}:delivery:*")]
    assert len(names) == 4  # of the question, of the reply (two), and of its delivery
    for name in names:
        assert 1 * DAY < await company.stores.redis.ttl(name) <= 2 * DAY, name


# -- the audit log ------------------------------------------------------------------------------


async def test_a_flood_of_resets_does_not_fill_the_memory(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "AUDITED", 100)
    for number in range(500):
        await company.audit.append(CHANNEL, "U1", "reset", f"{number}")
    await company.stores.queue.sweep()
    entries = await company.audit.entries(CHANNEL, 1000)
    assert 100 <= len(entries) <= 200
    assert entries[0].detail == "499"


async def test_resets_and_deletions_are_in_the_audit_log(company: Company) -> None:
    await company.say("hello")
    await company.config("temperature 0.1")
    await company.stores.history.reset(THREAD, "U7")
    await company.stores.history.reset_place(SPACE, "U8")
    await company.stores.history.forget(SPACE, "U1", "U9")
    await company.stores.history.forget(SPACE, "U1")
    entries = await company.audit.entries(SPACE, 10)
    assert [(entry.by, entry.act, entry.place, entry.detail) for entry in reversed(entries)] == [
        ("admin", "config", "slack:T1:C1", "temperature 0.1"),
        ("U7", "reset", str(THREAD), ""),
        ("U8", "reset", "slack:T1", ""),
        ("U9", "forget", "slack:T1", "U1"),
        ("U1", "forget", "slack:T1", "U1"),
    ]
    assert [entry.act for entry in await company.audit.entries(CHANNEL, 10)] == ["reset", "config"]
    assert await company.audit.entries(Place("slack", "T2"), 10) == []


async def test_reading_the_audit_log_is_written_there(company: Company) -> None:
    assert "Nothing" in await company.access.audited(SPACE, "U7", "en")
    said = await company.access.audited(SPACE, "U8", "en")
    assert "U7 · read · slack:T1 · audit" in said


async def test_the_audit_log_has_its_own_retention_time(redis: Redis) -> None:
    stores = StoreFixture.over(redis, audit=5 * DAY)
    audit = RedisAudit(stores.store)
    await audit.append(SPACE, "U1", "read")
    assert 4 * DAY < await redis.ttl("henji:{0}:audit") <= 5 * DAY
    await redis.delete("henji:{0}:audit")
    for day in (20, 10):
        long_ago = datetime.now(UTC) - timedelta(days=day)
        entry: dict[Any, Any] = {"by": "U1", "act": "read", "place": "slack:T1", "detail": ""}
        await redis.xadd("henji:{0}:audit", entry, f"{round(long_ago.timestamp() * 1000)}-0")
    await audit.append(SPACE, "U2", "read")
    assert [entry.by for entry in await audit.entries(SPACE, 1000)] == ["U2"]


async def test_a_press_over_the_quota_is_told_until_when(company: Company) -> None:
    await company.config("person_messages 1")
    receipt = await company.say("hello")
    await company.stores.reply(await company.stores.claim(), "hi")
    permit = (await company.access.admit(Asker(THREAD, "U1"), LANE)).permit
    assert receipt.job is not None
    pressed = await company.stores.queue.regenerate(
        Regeneration(THREAD, receipt.job, "press", "U1", lane=LANE, permit=permit), "adapter"
    )
    assert (pressed.outcome, pressed.code) == ("refused", "quota")
    sentence = strings.failure(pressed.code, "en", pressed.until, TOKYO)
    assert "00:00 (JST)" in sentence
