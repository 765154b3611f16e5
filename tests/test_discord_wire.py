"""The Discord adapter over real sockets: what a simulation in memory has not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import discord
import pytest
from discord.gateway import DiscordWebSocket
from redis.asyncio import Redis
from structlog.testing import capture_logs

from bots.discord import setup_checks
from bots.discord.client import SESSION_EVENTS
from bots.discord.platform import DiscordPlatform
from bots.discord.shards import ShardPlan
from core.errors import OperatorError, UsageError
from core.types import ThreadKey
from storage import keys
from tests.local_discord import payloads as p
from tests.local_discord.deployment import ALICE, BOB, DiscordDeployment, discord_deployment, words
from tests.local_discord.limits import Limit
from tests.waiting import until


@pytest.fixture(params=["compressed", "plain"])
async def frames(redis: Redis, request: pytest.FixtureRequest) -> AsyncIterator[DiscordDeployment]:
    """A deployment whose gateway sends this kind of frames."""
    async with discord_deployment(redis, compressed=request.param == "compressed") as deployment:
        await deployment.start_core()
        yield deployment


async def a_channel(deployment: DiscordDeployment) -> str:
    return deployment.discord.add_channel(deployment.discord.add_guild())


async def the_reply(deployment: DiscordDeployment, channel: str, text: str) -> p.Payload:
    """The one message of the bot's in a channel, once it says this."""

    def said() -> list[p.Payload]:
        return [m for m in deployment.discord.replies(channel) if m["content"] == text]

    found: list[p.Payload] = await deployment.discord.until(said)
    assert len(found) == 1
    return found[0]


async def asks(deployment: DiscordDeployment, channel: str, text: str) -> str:
    """Alice mentions the bot and gets her answer in a new thread, whose id this is."""
    said = await deployment.discord.says(ALICE, channel, f"<@bot> {text}")
    await the_reply(deployment, said["id"], f"echo: {text}")
    return str(said["id"])


# -- the gateway --------------------------------------------------------------------------------


ENDLESS_POLL: p.Payload = {
    "question": {"text": "?"}, "answers": [], "expiry": None, "allow_multiselect": False,
}  # fmt: skip
UNREADABLE: list[p.Payload] = [
    {"poll": ENDLESS_POLL},
    {"message_reference": {"type": 0, "message_id": "1"}},
]


async def test_events_that_discord_py_cannot_parse_are_logged_once_and_passed_over(
    deployment: DiscordDeployment, general: str
) -> None:
    with capture_logs() as logs:
        for more in (*UNREADABLE, *UNREADABLE):
            await deployment.discord.says(ALICE, general, "hi", **more)
        await asks(deployment, general, "hello")
    assert not deployment.bots[0].task.done()
    assert deployment.discord.gateway.identified == 1
    warned = [line for line in logs if line["log_level"] == "warning"]
    assert [line["type"] for line in warned] == ["MESSAGE_CREATE"]


async def test_no_odd_event_of_any_type_ends_the_session(
    deployment: DiscordDeployment, general: str
) -> None:
    known = discord.Client(intents=discord.Intents.none())._connection.parsers
    names = ("id", "guild_id", "channel_id", "user_id", "message_id", "type", "name", "member")
    [session] = deployment.discord.gateway.sessions.values()
    for event in sorted(known.keys() - SESSION_EVENTS):
        for data in ({}, None, dict.fromkeys(names), dict.fromkeys(names, general)):
            await session.dispatch(event, data)
    other = await a_channel(deployment)
    guild = str(deployment.discord.world.guild_of(other))
    await session.dispatch("GUILD_CREATE", deployment.discord.guild(guild))
    await asks(deployment, other, "hello")
    assert not deployment.bots[0].task.done()
    assert deployment.discord.gateway.identified == 1


async def test_a_message_that_cannot_be_parsed_hides_no_others_in_the_past_or_after_a_gap(
    deployment: DiscordDeployment,
) -> None:
    general = await a_channel(deployment)
    thread = deployment.discord.add_thread(general)
    await deployment.start_core()
    bot = await deployment.start_bot()
    world, guild = deployment.discord.world, str(deployment.discord.world.guild_of(general))

    def keep(text: str, **more: Any) -> None:
        world.keep(p.message(p.snowflake(), thread, ALICE, text, guild_id=guild, **more))

    keep("before")
    keep("lunch?", poll=ENDLESS_POLL)
    keep("after")
    await deployment.discord.says(ALICE, thread, "<@bot> hello")
    await the_reply(deployment, thread, "echo: hello")
    key = ThreadKey("discord", guild, general, thread)
    assert (await deployment.stores.texts(key))[:3] == ["before", "after", "hello"]
    await bot.end()
    keep("dinner?", poll=ENDLESS_POLL)
    await deployment.discord.says(ALICE, thread, "<@bot> more")
    await deployment.start_bot("the next")
    await the_reply(deployment, thread, "echo: more")


async def test_a_message_of_a_guild_that_is_not_known_is_no_direct_message(
    deployment: DiscordDeployment, general: str
) -> None:
    strange = p.message(p.snowflake(), "5", ALICE, "hello", guild_id="7")
    await deployment.discord.gateway.dispatch("MESSAGE_CREATE", strange, None, 0)
    edited = {**strange, "content": "bye", "edited_timestamp": p.when(p.snowflake())}
    await deployment.discord.gateway.dispatch("MESSAGE_UPDATE", edited, None, 0)
    thread = await asks(deployment, general, "hello")
    posts = {r.path for r in deployment.discord.rest.requests if r.kind == "post"}
    assert posts == {f"/channels/{thread}/messages"}


async def test_a_connection_that_fails_in_the_library_is_opened_again(
    deployment: DiscordDeployment, general: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [ValueError("a defect")]

    async def poll(socket: DiscordWebSocket) -> None:
        if failures:
            raise failures.pop()
        await received(socket)

    received = DiscordWebSocket.poll_event
    monkeypatch.setattr(DiscordWebSocket, "poll_event", poll)
    await deployment.discord.says(ALICE, general, "something, for the gateway to be read once more")
    await deployment.discord.until(lambda: deployment.discord.gateway.identified == 2)
    await asks(deployment, general, "hello")


async def test_a_token_that_is_revoked_meanwhile_ends_the_bot_with_a_sentence(
    deployment: DiscordDeployment, general: str
) -> None:
    deployment.discord.rest.token = "another"
    await deployment.discord.says(ALICE, general, "<@bot> hello")
    async with asyncio.timeout(60):
        with pytest.raises(OperatorError) as ended:
            await deployment.bots[0].task
    assert str(ended.value) == setup_checks.WRONG_TOKEN


async def test_a_mention_opens_a_thread_and_is_answered_in_it(frames: DiscordDeployment) -> None:
    general = await a_channel(frames)
    await frames.start_bot()
    await asks(frames, general, "hello")
    assert frames.discord.gateway.heartbeats >= 1
    assert frames.discord.faults == []


async def test_a_resumed_session_loses_no_message_and_repeats_none(
    frames: DiscordDeployment,
) -> None:
    general = await a_channel(frames)
    await frames.start_bot()
    before = await asks(frames, general, "one")
    await frames.discord.gateway.drop(resumable=True)
    await asks(frames, general, "two")
    assert (frames.discord.gateway.identified, frames.discord.gateway.resumed) == (1, 1)
    assert len(frames.discord.replies(before)) == 1


async def test_a_conversation_that_a_resume_brings_at_once_keeps_its_order(
    deployment: DiscordDeployment,
) -> None:
    general = deployment.discord.add_channel(deployment.discord.add_guild())
    talk = deployment.discord.add_thread(general)
    await deployment.start_core()
    await deployment.start_bot()
    await deployment.discord.says(ALICE, talk, "<@bot> first")
    await the_reply(deployment, talk, "echo: first")
    await deployment.discord.gateway.drop(resumable=True)
    texts = [f"<@bot> {n}" if n % 3 else f"aside {n}" for n in range(12)]
    for number, text in enumerate(texts):
        person = p.user(f"70000000000000020{number:02}", f"P{number}")
        await deployment.discord.says(person, talk, text)
    await deployment.discord.until(lambda: deployment.discord.gateway.resumed == 1)
    for number in range(1, 12):
        if number % 3:
            await the_reply(deployment, talk, f"echo: {number}")
    guild = str(deployment.discord.world.guild_of(general))
    thread = ThreadKey("discord", guild, general, talk)
    said = [text for text in await deployment.stores.texts(thread) if not text.startswith("echo")]
    assert said == ["first", *(text.removeprefix("<@bot> ") for text in texts)]


async def test_discord_may_ask_to_reconnect(deployment: DiscordDeployment, general: str) -> None:
    await deployment.discord.gateway.ask_to_reconnect()
    await deployment.discord.until(lambda: deployment.discord.gateway.resumed == 1)
    await asks(deployment, general, "hello")


async def test_after_a_session_that_is_lost_its_threads_are_caught_up(
    deployment: DiscordDeployment, general: str
) -> None:
    thread = await asks(deployment, general, "one")
    await deployment.discord.gateway.drop(resumable=False)
    await deployment.discord.says(ALICE, thread, "two")
    await the_reply(deployment, thread, "echo: two")
    assert deployment.discord.gateway.identified == 2
    assert len(deployment.discord.replies(thread)) == 2


async def test_a_starting_bot_catches_up_with_the_messages_it_missed(
    deployment: DiscordDeployment, general: str
) -> None:
    thread = await asks(deployment, general, "one")
    await deployment.bots[0].end()
    await deployment.discord.says(ALICE, thread, "two")
    await deployment.start_bot("the next")
    await the_reply(deployment, thread, "echo: two")


async def test_missed_messages_are_found_although_a_newer_one_was_stored_first(
    deployment: DiscordDeployment, general: str
) -> None:
    thread = await asks(deployment, general, "one")
    await deployment.discord.gateway.drop(resumable=False)
    await deployment.discord.says(ALICE, thread, "two")
    await deployment.discord.until(lambda: deployment.discord.gateway.identified == 2)
    await deployment.discord.says(ALICE, thread, "three")
    await the_reply(deployment, thread, "echo: three")
    await the_reply(deployment, thread, "echo: two")
    assert len(deployment.discord.replies(thread)) == 3


async def test_a_thread_that_was_reset_is_caught_up_from_its_reset_on(
    deployment: DiscordDeployment, general: str
) -> None:
    thread = await asks(deployment, general, "one")
    used = await deployment.discord.uses(ALICE, thread, "reset")
    await deployment.discord.until(lambda: used.answer)
    await deployment.bots[0].end()
    await deployment.discord.says(ALICE, thread, "two")
    await deployment.start_bot("the next")
    await the_reply(deployment, thread, "echo: two")
    texts = [reply["content"] for reply in deployment.discord.replies(thread)]
    assert texts.count("echo: one") == 1


async def test_a_lost_session_repeats_no_sentence(
    deployment: DiscordDeployment, general: str
) -> None:
    thread = await asks(deployment, general, "one")
    await deployment.discord.says(ALICE, thread, "<@bot>")
    await deployment.discord.until(lambda: len(deployment.discord.replies(thread)) == 2)
    deployment.discord.world.nonces.clear()  # Discord remembers them for minutes only
    await deployment.discord.gateway.drop(resumable=False)
    await deployment.discord.says(ALICE, thread, "two")
    await the_reply(deployment, thread, "echo: two")
    assert len(deployment.discord.replies(thread)) == 3


@pytest.mark.parametrize("code", [4004, 4010, 4011, 4012, 4013, 4014])
async def test_a_fatal_close_says_what_to_change_and_ends_the_bot(
    deployment: DiscordDeployment, code: int
) -> None:
    await a_channel(deployment)
    deployment.discord.gateway.refuse_with = code
    with pytest.raises((OperatorError, UsageError)) as told:
        await deployment.start_bot()
    assert str(told.value) == setup_checks.CLOSE_CODES[code]


async def test_a_wrong_token_is_reported_before_anything_starts(
    deployment: DiscordDeployment,
) -> None:
    with pytest.raises(UsageError, match="Reset Token"):
        await setup_checks.check_account("wrong")


async def test_a_missing_intent_is_told_where_it_was_asked_for(redis: Redis) -> None:
    async with discord_deployment(redis, message_content=False) as deployment:
        assert not (await setup_checks.check_account(deployment.discord.gateway.token)).reads
        with pytest.raises(UsageError, match="Message Content Intent"):
            await setup_checks.check_account(deployment.discord.gateway.token, "on")


# -- shards -------------------------------------------------------------------------------------


async def test_each_shard_gets_the_events_of_its_guilds(deployment: DiscordDeployment) -> None:
    guilds = [deployment.discord.add_guild(shard_of=shard, shards=2) for shard in range(2)]
    channels = [deployment.discord.add_channel(guild) for guild in guilds]
    await deployment.start_core()
    await deployment.start_bot(plan=ShardPlan(2, 2, "bot", lease=1.0, identify=0.05))
    for channel in channels:
        await asks(deployment, channel, "hello")
    shards = {session.shard for session in deployment.discord.gateway.sessions.values()}
    assert shards == {(0, 2), (1, 2)}


async def test_a_second_process_waits_for_the_shard_and_takes_over_when_it_is_free(
    deployment: DiscordDeployment,
) -> None:
    general = await a_channel(deployment)
    await deployment.start_core()
    first = await deployment.start_bot("first")
    await deployment.start_bot("second", connections=0)
    await asks(deployment, general, "one")
    assert deployment.discord.gateway.identified == 1
    await first.kill()
    await deployment.discord.until(lambda: deployment.discord.gateway.identified == 2)
    await asks(deployment, general, "two")


SHARD_LEASE = keys.key("lease", 0, "discord shard 0")


async def test_while_the_lease_cannot_be_renewed_the_connection_stays(
    deployment: DiscordDeployment,
) -> None:
    general = await a_channel(deployment)
    await deployment.start_core()
    await deployment.start_bot(plan=ShardPlan(1, 1, "bot", lease=0.3, identify=0.05))
    await deployment.stores.redis.delete(SHARD_LEASE)
    await deployment.stores.redis.hset(SHARD_LEASE, "not", "what is expected there")
    ends = time.monotonic() + 3 * 0.3

    async def has_long_ended() -> bool:
        return time.monotonic() > ends

    await until(has_long_ended)
    await deployment.stores.redis.delete(SHARD_LEASE)
    await asks(deployment, general, "hello")
    assert deployment.discord.gateway.identified == 1


async def test_a_process_that_lost_the_lease_disconnects(deployment: DiscordDeployment) -> None:
    await a_channel(deployment)
    await deployment.start_bot(plan=ShardPlan(1, 1, "bot", lease=0.3, identify=0.05))
    await deployment.stores.redis.set(SHARD_LEASE, "another", px=600)
    [session] = deployment.discord.gateway.sessions.values()
    await deployment.discord.until(lambda: deployment.discord.gateway.identified == 2)
    assert session.socket is not None
    assert session.socket.closed


# -- the REST -----------------------------------------------------------------------------------


async def test_a_long_reply_is_cut_where_discord_ends_a_message(
    deployment: DiscordDeployment, general: str
) -> None:
    text = "。".join(f"{number}番目の長い文" for number in range(200))[:1950]
    more = await deployment.discord.says(ALICE, general, f"<@bot> {text}")
    await deployment.discord.until(lambda: len(deployment.discord.replies(more["id"])) == 2)
    await deployment.discord.until(lambda: deployment.discord.replies(more["id"])[1]["components"])
    parts = [reply["content"] for reply in deployment.discord.replies(more["id"])]
    assert "".join(parts) == f"echo: {text}"
    assert not deployment.discord.replies(more["id"])[0]["components"]


async def test_edits_keep_to_the_headers_and_the_final_text_arrives(
    deployment: DiscordDeployment,
) -> None:
    general = await deployment.ready(tokens_per_second=200)
    text = words(100)
    await asks(deployment, general, text)
    assert deployment.discord.throttled() == []
    assert 1 <= len(deployment.discord.sent("edit")) <= 5


async def test_a_429_is_waited_out_and_the_reply_is_complete(deployment: DiscordDeployment) -> None:
    general = await deployment.ready(tokens_per_second=200)
    deployment.discord.make_trouble("edit", retry_after=0.3)
    deployment.discord.make_trouble("post", retry_after=0.3)
    await asks(deployment, general, words(60))
    assert len(deployment.discord.throttled()) == 2


async def test_a_slow_api_gets_only_the_newest_text(
    deployment: DiscordDeployment,
) -> None:
    general = await deployment.ready(tokens_per_second=300)
    deployment.discord.make_trouble("edit", times=100, seconds=0.4)
    await asks(deployment, general, words(100))
    texts = [str(request.body["content"]) for request in deployment.discord.sent("edit")]
    assert texts == sorted(texts, key=len)
    assert len(texts) <= 6


async def test_a_connection_that_breaks_while_a_reply_streams_does_not_stop_it(
    deployment: DiscordDeployment,
) -> None:
    general = await deployment.ready(tokens_per_second=150)
    said = await deployment.discord.says(ALICE, general, f"<@bot> {words(60)}")
    await deployment.discord.until(lambda: deployment.discord.replies(said["id"]))
    await deployment.discord.gateway.drop()
    await the_reply(deployment, said["id"], f"echo: {words(60)}")
    assert len(deployment.discord.replies(said["id"])) == 1


async def test_a_message_whose_answer_was_lost_is_not_sent_twice(
    deployment: DiscordDeployment,
) -> None:
    general = await a_channel(deployment)
    await deployment.start_core()
    first = await deployment.start_bot("first")
    deployment.discord.make_trouble("post", seconds=30.0, after=True)
    said = await deployment.discord.says(ALICE, general, "<@bot> hello")
    await deployment.discord.until(lambda: deployment.discord.replies(said["id"]))
    await first.kill()  # the message is posted, and not recorded
    await deployment.start_bot("second")
    await the_reply(deployment, said["id"], "echo: hello")
    await deployment.discord.until(lambda: deployment.discord.sent("edit"))
    assert len(deployment.discord.replies(said["id"])) == 1


async def test_a_message_sent_twice_past_its_nonce_is_deleted_once(
    deployment: DiscordDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DiscordPlatform, "call_seconds", 1.0)
    general = await a_channel(deployment)
    await deployment.start_core()
    first = await deployment.start_bot("first")
    deployment.discord.make_trouble("post", seconds=30.0, after=True)
    said = await deployment.discord.says(ALICE, general, "<@bot> hello")
    [sent] = await deployment.discord.until(lambda: deployment.discord.replies(said["id"]))
    await first.kill()
    deployment.discord.world.keep({**sent, "id": p.snowflake()})  # of a process that was stopped
    await deployment.start_bot("second")
    await deployment.discord.until(lambda: deployment.discord.sent("remove", status=204))
    await the_reply(deployment, said["id"], "echo: hello")


async def test_replies_in_a_thread_keep_their_order_where_a_post_fails(
    deployment: DiscordDeployment, general: str
) -> None:
    thread = await asks(deployment, general, "hello")
    deployment.discord.make_trouble("post", times=1, status=500)
    for person, text in ((ALICE, "one"), (BOB, "two")):
        await deployment.discord.says(person, thread, f"<@bot> {text}")
    await deployment.discord.until(lambda: len(deployment.discord.replies(thread)) == 3)
    texts = [message["content"] for message in deployment.discord.replies(thread)]
    assert texts == ["echo: hello", "echo: one", "echo: two"]


async def test_a_server_error_is_tried_again(deployment: DiscordDeployment, general: str) -> None:
    deployment.discord.make_trouble("post", status=502)
    await asks(deployment, general, "hello")


async def test_replies_in_one_channel_share_its_limit(deployment: DiscordDeployment) -> None:
    general = await a_channel(deployment)
    deployment.discord.rest.limits.limits = {
        **deployment.discord.rest.limits.limits,
        "edit": Limit(3, 1.0),
    }
    await deployment.start_core(tokens_per_second=400)
    await deployment.start_bot(discord_answers="reply")
    texts = [f"{number} {words(20)}" for number in range(6)]
    for number, text in enumerate(texts):
        person = p.user(f"70000000000000010{number}", f"P{number}")
        await deployment.discord.says(person, general, f"<@bot> {text}")
    for text in texts:
        await the_reply(deployment, general, f"echo: {text}")
    assert deployment.discord.throttled() == []
