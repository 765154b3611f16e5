"""Quotas count what is spent: whatever the person does with the reply, and in all their spaces."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from bots.access import Access
from core.access_policy import AccessLists, Allowance, Asker, Permit, Policy, Quota
from core.errors import UsageError
from core.place_rules import Rules
from core.queue_types import Claim, DailyTotal, Place, Regeneration
from core.settings import Settings
from core.types import Delta, Failed, ThreadKey
from storage import keys
from storage.history import purge
from storage.rules import RedisAudit, RedisRules
from storage.usage import RedisUsage
from tests.store_fixture import LANE, THREAD, StoreFixture

QUOTA = Quota(person_messages=100)
COUNTED = Permit(quota=QUOTA)


@pytest.fixture
async def stores(redis: Redis) -> StoreFixture:
    return await StoreFixture.serving(redis, max_attempts=2, backoff=0.0)


async def used(stores: StoreFixture, kind: str, who: str = "person slack:T1:U1") -> int:
    (name,) = await stores.redis.keys(f"{keys.base(0)}used:*") or [""]
    return int(await stores.redis.hget(name, f"{kind} {who}") or 0) if name else 0


async def streamed(stores: StoreFixture, text: str = "half a reply", spent: int = 9) -> Claim:
    """A reply that is being written, of which `spent` tokens are used."""
    claim = await stores.claim()
    assert await stores.queue.publish(claim, Delta(0, text), spent) == "ok"
    return claim


# -- tokens -------------------------------------------------------------------------------------


async def test_tokens_count_as_they_are_published_and_once(stores: StoreFixture) -> None:
    await stores.say("hello", permit=COUNTED)
    claim = await streamed(stores, "ab", 5)
    assert await used(stores, "tokens") == 5
    await stores.queue.publish(claim, Delta(2, "cd"), 9)
    await stores.queue.publish(claim, Delta(2, "cd"), 9)  # sent twice
    assert await used(stores, "tokens") == 9
    await stores.reply(claim, "abcd efgh ijkl")
    assert await used(stores, "tokens") == 14


async def test_a_deleted_question_is_charged_for_the_written_tokens(stores: StoreFixture) -> None:
    await stores.say("hello", id="m1", permit=COUNTED)
    await streamed(stores)
    await stores.queue.delete(THREAD, "m1")
    assert (await used(stores, "tokens"), await used(stores, "messages")) == (9, 1)


async def test_a_reset_does_not_give_tokens_back(stores: StoreFixture) -> None:
    await stores.say("hello", permit=COUNTED)
    await streamed(stores)
    await stores.history.reset(THREAD, "U1")
    assert await used(stores, "tokens") == 9


async def test_an_edit_during_the_reply_is_a_message_more_and_keeps_the_tokens(
    stores: StoreFixture,
) -> None:
    await stores.say("hello", id="m1", permit=COUNTED)
    for revision in ("1", "2", "3"):
        await streamed(stores)
        receipt = await stores.queue.edit(
            THREAD, "m1", f"hello {revision}", revision, LANE, "adapter", COUNTED
        )
        assert receipt.outcome == "queued"
    assert (await used(stores, "messages"), await used(stores, "tokens")) == (4, 27)


async def test_an_edit_over_the_quota_ends_the_reply_with_its_sentence(
    stores: StoreFixture,
) -> None:
    permit = Permit(quota=Quota(person_messages=2))
    job = (await stores.say("hello", id="m1", permit=permit)).job
    for revision, outcome in (("1", "queued"), ("2", "refused")):
        await streamed(stores)
        receipt = await stores.queue.edit(
            THREAD, "m1", f"hello {revision}", revision, LANE, "adapter", permit
        )
        assert receipt.outcome == outcome
    end = (await stores.events(job))[-1]
    assert isinstance(end, Failed)
    assert end.code == "quota"
    assert await used(stores, "messages") == 2


async def test_an_edit_while_another_regenerates_is_charged_to_the_editor(
    stores: StoreFixture,
) -> None:
    """The reply to U1 is written again for an admin, as U1 edits the question."""
    await stores.say("hello", id="m1", permit=COUNTED)
    reply = await stores.reply(await stores.claim(), "hi")  # two tokens
    assert reply == "ok"
    (turn,) = (await stores.history.turns(THREAD))[1:]
    wanted = Regeneration(THREAD, turn.turn.id, "1", "ADMIN", lane=LANE, permit=COUNTED)
    again = await stores.queue.regenerate(wanted, "adapter")
    permit = Permit(quota=Quota(person_messages=2))
    for revision, spent, outcome in (("1", 9, "queued"), ("2", 4, "refused")):
        await streamed(stores, spent=spent)
        receipt = await stores.queue.edit(
            THREAD, "m1", f"hello {revision}", revision, LANE, "adapter", permit
        )
        assert receipt.outcome == outcome
    (*_, told) = await stores.events(again.job)
    assert told == Failed("quota", "used up", receipt.until)
    assert receipt.until > time.time()
    admin = "person slack:T1:ADMIN"
    assert (await used(stores, "messages", admin), await used(stores, "tokens", admin)) == (1, 9)
    assert (await used(stores, "messages"), await used(stores, "tokens")) == (2, 2 + 4)
    assert not await stores.redis.exists(keys.key("open", 0))


async def test_an_attempt_that_a_core_lost_is_not_charged(stores: StoreFixture) -> None:
    await stores.say("hello", permit=COUNTED)
    await streamed(stores)
    await stores.redis.zadd(keys.key("leases", 0), {str(THREAD): 1})  # it went away
    await stores.queue.sweep()
    claim = await streamed(stores, spent=4)
    assert await used(stores, "tokens") == 4
    await stores.queue.fail(claim, "internal", "a fault", retry=True)
    await stores.queue.fail(claim, "internal", "a fault", retry=True)
    assert await used(stores, "messages") == 0
    assert await used(stores, "tokens") == 0


# -- midnight -----------------------------------------------------------------------------------

TOMORROW = replace(QUOTA, person_messages=1, offset_ms=24 * 3600 * 1000)


async def test_a_message_after_midnight_counts_on_its_own_day(stores: StoreFixture) -> None:
    """The message before it waits for a core still, and both could be answered together."""
    before = await stores.say("one", permit=Permit(quota=replace(TOMORROW, offset_ms=0)))
    after = await stores.say("two", permit=Permit(quota=TOMORROW))
    again = await stores.say("three", permit=Permit(quota=TOMORROW))
    assert (before.outcome, after.outcome, again.outcome) == ("queued", "queued", "refused")
    assert sorted(await messages_by_day(stores)) == ["1", "1"]


async def test_an_edit_after_midnight_counts_on_its_own_day(stores: StoreFixture) -> None:
    await stores.say("hello", id="m1", permit=Permit(quota=replace(TOMORROW, offset_ms=0)))
    for revision, outcome in (("1", "queued"), ("2", "refused")):
        await streamed(stores)
        receipt = await stores.queue.edit(
            THREAD, "m1", f"hello {revision}", revision, LANE, "adapter", Permit(quota=TOMORROW)
        )
        assert receipt.outcome == outcome
    assert sorted(await messages_by_day(stores)) == ["1", "1"]


async def messages_by_day(stores: StoreFixture) -> list[str]:
    names = await stores.redis.keys(f"{keys.base(0)}used:*")
    return [await stores.redis.hget(name, "messages person slack:T1:U1") for name in names]


# -- all spaces ---------------------------------------------------------------------------------


async def test_a_person_has_one_quota_over_all_their_spaces(stores: StoreFixture) -> None:
    permit = Permit(quota=Quota(person_messages=5, all_messages=3))
    outcomes = [
        await stores.say("hello", ThreadKey("slack", f"T{number}", "C1", "1.0"), permit=permit)
        for number in range(4)
    ]
    assert [receipt.outcome for receipt in outcomes] == [*["queued"] * 3, "refused"]
    assert outcomes[-1].code == "quota"
    other = await stores.say("hello", ThreadKey("slack", "T9", "C1", "1.0"), "U2", permit=permit)
    assert other.outcome == "queued"


async def test_the_quota_over_all_spaces_counts_in_every_bucket(redis: Redis) -> None:
    stores = await StoreFixture.serving(redis, buckets=4)
    permit = Permit(quota=Quota(all_messages=3))
    threads = [ThreadKey("slack", f"T{number}", "C1", "1.0") for number in range(8)]
    assert len({stores.store.bucket(thread) for thread in threads}) > 1
    said = [await stores.say("hello", thread, permit=permit) for thread in threads]
    assert [receipt.outcome for receipt in said] == [*["queued"] * 3, *["refused"] * 5]


async def test_an_edit_is_held_to_the_quota_over_all_spaces(redis: Redis) -> None:
    stores = await StoreFixture.serving(redis, buckets=4)
    permit = Permit(quota=Quota(all_messages=2))
    elsewhere = next(
        thread
        for thread in (ThreadKey("slack", f"T{number}", "C1", "1.0") for number in range(2, 99))
        if stores.store.bucket(thread) != stores.store.bucket(THREAD)
    )
    await stores.say("hello", id="m1", permit=permit)
    await stores.reply(await stores.claim(), "hi")
    await stores.say("hello", elsewhere, permit=permit)
    edit = THREAD, "m1", "hello again", "1", LANE, "adapter", permit
    assert (await stores.queue.edit(*edit, author="U1")).code == "quota"


def test_the_quota_over_all_spaces_is_the_hosts() -> None:
    policy = Settings(person_quota=Allowance(messages=7, tokens=900)).policy
    quota = policy.permit(Rules(), Asker(THREAD, "U1")).quota
    assert (quota.all_messages, quota.all_tokens) == (7, 900)


# -- ceilings -----------------------------------------------------------------------------------

CEILINGS = Rules(person_messages=50, max_new_tokens=256, retention_days=7.0)


@pytest.mark.parametrize(
    ("name", "told", "holds"),
    [
        ("person_messages", 10, 10),
        ("person_messages", 500, 50),
        ("person_messages", 0, 50),
        ("person_messages", None, 50),
        ("max_new_tokens", 4096, 256),
        ("max_new_tokens", 100, 100),
        ("max_new_tokens", None, None),
        ("retention_days", 30.0, 7.0),
    ],
)
def test_no_place_lifts_a_ceiling_of_the_host(
    name: str, told: float | None, holds: float | None
) -> None:
    of_channel = Rules.model_validate({name: told})
    rules = Policy(ceilings=CEILINGS).rules(THREAD, Rules(), of_channel)
    assert getattr(rules, name) == holds


async def test_an_admin_gets_a_sentence_about_a_ceiling(stores: StoreFixture) -> None:
    policy = Policy(ceilings=CEILINGS)
    rulebook = RedisRules(stores.store, policy)
    access = Access(rulebook, RedisAudit(stores.store), policy, stores.queue.cores)
    place = Place("slack", "T1", "C1")
    said = await access.configure(place, "max_new_tokens 4096", "U9", "en")
    assert "at most 256" in said
    assert (await rulebook.set_here(place)).max_new_tokens is None
    assert "512" not in await access.configure(place, "max_new_tokens 200", "U9", "en")


def test_only_limits_have_a_ceiling() -> None:
    with pytest.raises(UsageError, match="ceilings"):
        Settings.model_validate({"ceilings": {"temperature": 1.0}})


# -- direct messages ----------------------------------------------------------------------------

DIRECT = ThreadKey("discord", "dm", "U1", "1")


class Server:
    """A bot in several servers, which tell it the roles of a person."""

    def __init__(self, stores: StoreFixture, policy: Policy) -> None:
        rulebook, audit = RedisRules(stores.store, policy), RedisAudit(stores.store)
        self.access = Access(rulebook, audit, policy, stores.queue.cores)

    async def hears(self, server: str, *roles: str) -> None:
        thread = ThreadKey("discord", server, "1", "2")
        await self.access.remember_roles(Asker(thread, "U1", roles))

    async def permit(self) -> Permit:
        return (await self.access.admit(Asker(DIRECT, "U1"), LANE)).permit


async def test_a_role_that_is_denied_is_denied_in_direct_messages(stores: StoreFixture) -> None:
    server = Server(stores, Policy(access=AccessLists(deny_roles=("banned",))))
    assert (await server.permit()).refuse == ""
    await server.hears("G1", "friend")
    await server.hears("G2", "banned")
    assert (await server.permit()).refuse == "not_allowed"
    await server.hears("G2")  # the role was taken away
    assert (await server.permit()).refuse == ""


async def test_in_direct_messages_the_strictest_quota_of_a_persons_spaces_holds(
    stores: StoreFixture,
) -> None:
    policy = Policy(
        everywhere=Rules(person_messages=20),
        roles={"trial": Allowance(messages=3), "staff": Allowance(messages=0)},
    )
    server = Server(stores, policy)
    assert (await server.permit()).quota.person_messages == 20  # no space of theirs is known
    await server.hears("G1", "staff")
    assert (await server.permit()).quota.person_messages == 0
    await server.hears("G2", "trial")
    assert (await server.permit()).quota.person_messages == 3


# -- the use of a day ---------------------------------------------------------------------------


async def test_what_is_left_is_read_from_the_counts_of_the_quotas(redis: Redis) -> None:
    stores = await StoreFixture.serving(redis, buckets=4)
    elsewhere = next(
        thread
        for thread in (ThreadKey("slack", f"T{number}", "C1", "1.0") for number in range(2, 99))
        if stores.store.bucket(thread) != stores.store.bucket(THREAD)
    )
    for thread in (THREAD, THREAD, elsewhere):
        await stores.say("hello", thread, permit=COUNTED)
    await stores.say("hello", author="U2", permit=COUNTED)
    tokyo = Quota(offset_ms=9 * 3600 * 1000)
    spent = await stores.queue.spent(THREAD, "U1", QUOTA)
    assert (spent.person_messages, spent.all_messages, spent.channel_messages) == (2, 3, 3)
    assert spent.until % (24 * 3600) == 0
    assert (await stores.queue.spent(THREAD, "U1", tokyo)).until % (24 * 3600) == 15 * 3600


async def test_totals_are_by_person_channel_and_model_and_day(stores: StoreFixture) -> None:
    await stores.say("hello", permit=COUNTED)
    await streamed(stores, spent=9)
    await stores.say("hello", ThreadKey("slack", "T1", "C2", "1.0"), "U2", permit=COUNTED)
    usage = RedisUsage(stores.store)
    today = datetime.now(UTC).date().isoformat()
    assert await usage.totals("person", 30, 0) == [
        DailyTotal(today, "slack:T1:U1", 1, 9),
        DailyTotal(today, "slack:T1:U2", 1, 0),
    ]
    assert [total.who for total in await usage.totals("channel", 30, 0)] == [
        "slack:T1:C1", "slack:T1:C2",
    ]  # fmt: skip
    assert await usage.totals("model", 1, 0) == [DailyTotal(today, LANE, 2, 9)]


async def days_ago(stores: StoreFixture, days: int, **counts: int) -> str:
    """Counts of an earlier day, as that day left them."""
    name = keys.key("used", 0, str(int(time.time() // keys.DAY) - days))
    for field, count in counts.items():
        await stores.redis.hset(name, field.replace("_", " "), count)
    await stores.redis.expire(name, 10 * keys.DAY)
    return name


async def test_forgetting_takes_the_counts_of_a_person_and_renews_no_quota(
    stores: StoreFixture,
) -> None:
    permit = Permit(quota=Quota(person_messages=2, all_messages=5))
    await stores.say("hello", permit=permit)
    await stores.reply(await stores.claim(), "hi")
    await stores.say("hello", ThreadKey("slack", "T2", "C1", "1.0"), permit=permit)
    old = await days_ago(stores, 20, **{
        "messages_person_slack:T1:U1": 4, "messages_everywhere_slack:U1": 7,
        "messages_person_slack:T1:U12": 1, "tokens_channel_slack:T1:C1": 50,
    })  # fmt: skip
    await stores.history.forget(Place("slack", "T1"), "U1")
    assert await stores.redis.hgetall(old) == {
        "messages everywhere slack:U1": "3",
        "messages person slack:T1:U12": "1",
        "tokens channel slack:T1:C1": "50",
    }
    usage = RedisUsage(stores.store)
    assert [t.who for t in await usage.totals("person", 30, 0)] == ["slack:T1:U12", "slack:T2:U1"]
    spent = await stores.queue.spent(THREAD, "U1", permit.quota)
    assert (spent.person_messages, spent.all_messages) == (1, 2)
    assert (await stores.say("hello", permit=permit)).outcome == "queued"
    assert (await stores.say("hello", permit=permit)).outcome == "refused"
    await stores.history.forget(Place("slack", "T1"), "U1")  # a second time, with a job under way
    assert (await stores.say("hello", permit=permit)).outcome == "refused"
    for name in await stores.redis.keys("*spent:*"):
        assert await stores.redis.ttl(name) > 2 * keys.DAY
    kept = [await stores.redis.hkeys(name) for name in await stores.redis.keys("*used:*")]
    assert not [field for fields in kept for field in fields if field.endswith("T1:U1")]


async def test_of_the_counts_of_a_forgotten_person_only_those_of_a_day_that_goes_on_are_kept(
    stores: StoreFixture,
) -> None:
    """Yesterday goes on in the west."""
    counts = {"messages_person_slack:T1:U1": 4, "messages_everywhere_slack:U1": 4}
    for days in (1, 2):
        await days_ago(stores, days, **counts)
    await stores.history.forget(Place("slack", "T1"), "U1")
    (kept,) = await stores.redis.keys("*spent:*")
    assert kept == keys.key("spent", 0, str(int(time.time() // keys.DAY) - 1))
    fields = {"messages person slack:T1:U1": "4", "messages everywhere slack:U1": "4"}
    assert await stores.redis.hgetall(kept) == fields


async def test_what_is_used_while_a_person_is_being_forgotten_is_forgotten_at_the_end(
    stores: StoreFixture,
) -> None:
    await stores.say("hello", permit=Permit(quota=Quota(person_messages=2)))
    await purge(stores.store, 0, "person slack:T1:U1")
    fields = [field for name in await stores.redis.keys("*used:*")
              for field in await stores.redis.hkeys(name)]  # fmt: skip
    assert not [field for field in fields if "U1" in field]


async def test_counts_of_one_persons_direct_messages_go_with_the_person(
    stores: StoreFixture,
) -> None:
    direct = ThreadKey("discord", "dm", "U1", "7")
    await stores.say("hello", direct, permit=COUNTED)
    old = await days_ago(stores, 3, **{
        "messages_channel_discord:dm:U1": 2, "messages_person_discord:dm:U1": 2,
    })  # fmt: skip
    await stores.history.forget(Place("discord", "dm", "U1"), "U1")
    assert await stores.redis.hgetall(old) == {}
    assert await RedisUsage(stores.store).totals("channel", 30, 0) == []


async def test_the_counts_of_a_day_are_kept_for_thirty(stores: StoreFixture) -> None:
    await stores.say("hello", permit=COUNTED)
    (name,) = await stores.redis.keys("*used:*")
    assert 29 * keys.DAY < await stores.redis.ttl(name) <= 30 * keys.DAY


async def test_the_lane_says_how_much_its_model_reads(stores: StoreFixture) -> None:
    assert await stores.queue.reads(LANE) == 0  # a core of an earlier release does not report it
    await stores.queue.announce(LANE, "core", 60, 4096)
    assert await stores.queue.reads(LANE) == 4096
    await stores.queue.announce(LANE, "core", 60)
    assert await stores.queue.reads(LANE) == 4096
