"""A model that thinks before it answers: the real worker, store and relay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis

from bots.actions import can_continue
from bots.platform import Incoming, Status
from bots.relay import Relay, RelaySettings
from bots.slack import components as slack_components
from bots.strings import say
from core.access_policy import Permit, Quota
from core.dialogue import Dialogue
from core.engine.echo import EchoEngine
from core.engine_types import Chunk, GenerationRequest
from core.queue_types import Regeneration
from core.types import Delta, Done, FinishReason, ThreadKey, Usage
from core.worker import Worker, WorkerSettings
from storage import codec
from tests.local_discord.deployment import ALICE, discord_deployment
from tests.local_discord.deployment import LANE as DISCORD_LANE
from tests.local_slack.deployment import LANE as SLACK_LANE
from tests.local_slack.deployment import slack_deployment
from tests.open_access import EVERYBODY, OPEN_RULES
from tests.simulated_platform import Board, SimulatedPlatform
from tests.store_fixture import LANE, THREAD, StoreFixture, ends
from tests.test_chat_templates import STRIPPED, WANTED, load
from tests.waiting import until

THOUGHT = "<think>\nThey mean the city, a SECRET one.\n</think>\n\n"


@dataclass
class Thinker(EchoEngine):
    """A model that writes a given text, one token at a time, and remembers its prompts."""

    model: Dialogue
    raw: list[str]
    """What it writes, request by request."""
    pause: float = 0.0
    asked: list[GenerationRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        self.asked.append(request)
        ids = self.model.tokenizer.encode(self.raw.pop(0))
        for ident in ids[: request.max_new_tokens]:
            await asyncio.sleep(self.pause)
            yield Chunk(ids=(ident,))
        reason: FinishReason = "length" if len(ids) > request.max_new_tokens else "stop"
        yield Chunk(finish_reason=reason)

    def prompt(self, number: int) -> str:
        """The string of a prompt, control tokens written out."""
        tokenizer = self.model.tokenizer
        return "".join(
            tokenizer.pieces([ident])[0] if ident in tokenizer.controls.values()
            else tokenizer.decode([ident])
            for ident in self.asked[number].prompt
        )  # fmt: skip


@asynccontextmanager
async def thinking(
    stores: StoreFixture, engine: Thinker, pause: float = 0.01, lane: str = LANE
) -> AsyncIterator[Worker]:
    """A core at work with this model; `pause` between two signs of thinking."""
    stop = asyncio.Event()
    settings = WorkerSettings(lane, "core", idle=0.05, publish=0.01, thinking=pause)
    worker = Worker(
        stores.queue, stores.history, engine, engine.model, settings, rulebook=OPEN_RULES
    )
    working = asyncio.create_task(worker.run(stop))
    await until(partial(_serves, stores, lane))
    try:
        yield worker
    finally:
        stop.set()
        await working


async def _serves(stores: StoreFixture, lane: str) -> bool:
    return await stores.queue.cores(lane) > 0


@pytest.fixture
def stores(redis: Redis) -> StoreFixture:
    return StoreFixture.over(redis, lease=60.0)


async def go_on(stores: StoreFixture, reply: str, revision: str = "1") -> str | None:
    """Press Continue under a reply; the job."""
    wanted = Regeneration(THREAD, reply, revision, "U1", resumes=True, lane=LANE)
    receipt = await stores.queue.regenerate(wanted, "adapter")
    assert receipt.outcome == "queued"
    return receipt.job


async def words_in(redis: Any) -> str:
    """The values of every key that holds people's words."""
    found = []
    for key in await redis.keys():
        kind = await redis.type(key)
        if kind == "hash":
            found.append(repr(await redis.hgetall(key)))
        elif kind == "stream":
            found.append(repr(await redis.xrange(key)))
        elif kind == "string":
            found.append(repr(await redis.get(key)))
    return "\n".join(found)


async def test_a_thought_is_neither_shown_nor_kept(stores: StoreFixture) -> None:
    engine = Thinker(load(STRIPPED), [THOUGHT + "Paris.", "Yes."])
    async with thinking(stores, engine):
        first = await stores.say("where?")
        done = await ends(stores, first.job)
        assert isinstance(done, Done)
        assert (done.text, done.finish_reason, done.in_thought) == ("Paris.", "stop", False)
        assert done.usage.reply_tokens > 20
        await ends(stores, (await stores.say("sure?")).job)
    assert await stores.texts() == ["where?", "Paris.", "sure?", "Yes."]
    assert "SECRET" not in await words_in(stores.redis)
    assert engine.prompt(1).count("<think>") == 0
    shown = [event for event in await stores.events(first.job) if isinstance(event, Delta)]
    assert shown[0] == Delta(0, "")  # a sign of thinking
    assert "Paris.".startswith("".join(event.text for event in shown))


async def test_the_tokens_of_a_turn_are_the_answer_s_alone(stores: StoreFixture) -> None:
    engine = Thinker(load(STRIPPED), [THOUGHT + "Paris.", "Yes."])
    async with thinking(stores, engine):
        await ends(stores, (await stores.say("where?")).job)
        await ends(stores, (await stores.say("sure?")).job)
    _, answer, *_ = await stores.history.turns(THREAD)
    assert answer.tokens is not None
    assert answer.tokens < 15


async def test_thoughts_count_as_tokens(stores: StoreFixture) -> None:
    engine = Thinker(load(STRIPPED), [THOUGHT + "Paris."])
    quota = Permit(quota=Quota(person_tokens=10_000))
    async with thinking(stores, engine):
        first = await stores.say("where?", permit=quota)
        done = await ends(stores, first.job)
    assert isinstance(done, Done)
    (used,) = [await stores.redis.hgetall(key) for key in await stores.redis.keys("*used*")]
    spent = done.usage.prompt_tokens + done.usage.reply_tokens
    assert {int(used[name]) for name in used if name.startswith("tokens")} == {spent}


async def test_a_cut_thought_is_continued(stores: StoreFixture) -> None:
    model = load(STRIPPED, max_thinking_tokens=12)
    engine = Thinker(model, [THOUGHT + "Paris.", " city.\n</think>\n\nParis."])
    async with thinking(stores, engine):
        first = await stores.say("where?")
        done = await ends(stores, first.job)
        assert isinstance(done, Done)
        assert (done.text, done.finish_reason, done.in_thought) == ("", "length", True)
        assert can_continue(done)
        assert first.job
        kept = (await stores.history.turns(THREAD))[-1].turn
        assert kept.text == ""
        assert kept.thought
        again = await ends(stores, await go_on(stores, first.job))
        assert isinstance(again, Done)
        assert again.text == "Paris."
    assert engine.prompt(1).endswith(f"<|im_start|>assistant\n<think>\n{kept.thought}")
    assert await stores.texts() == ["where?", "Paris."]
    assert kept.thought not in await words_in(stores.redis)


async def test_a_thought_that_is_cut_again_is_kept_whole(stores: StoreFixture) -> None:
    model = load(STRIPPED, max_thinking_tokens=10)
    engine = Thinker(model, ["<think>one two three four five six", " seven eight nine ten eleven"])
    async with thinking(stores, engine):
        first = await stores.say("where?")
        await ends(stores, first.job)
        before = (await stores.history.turns(THREAD))[-1].turn.thought
        assert first.job
        done = await ends(stores, await go_on(stores, first.job))
    assert isinstance(done, Done)
    assert done.in_thought
    after = (await stores.history.turns(THREAD))[-1].turn.thought
    assert after.startswith(before)
    assert len(after) > len(before)


async def test_another_question_is_answered_without_the_cut_thought(stores: StoreFixture) -> None:
    model = load(STRIPPED, max_thinking_tokens=10)
    engine = Thinker(model, [THOUGHT, "Yes."])
    async with thinking(stores, engine):
        await ends(stores, (await stores.say("where?")).job)
        await ends(stores, (await stores.say("sure?")).job)
    assert engine.prompt(1).count("assistant") == 1
    assert await stores.texts() == ["where?", "", "sure?", "Yes."]


async def test_a_thought_with_no_room_left_ends(stores: StoreFixture) -> None:
    model = load(STRIPPED, context_length=120, max_new_tokens=20, max_thinking_tokens=50)
    engine = Thinker(model, ["<think>" + "one two three four five six " * 20])
    async with thinking(stores, engine):
        first = await stores.say("where?")
        await ends(stores, first.job)
        assert first.job
        done = await ends(stores, await go_on(stores, first.job))
    assert isinstance(done, Done)
    assert (done.text, done.finish_reason, done.in_thought) == ("", "stop", True)
    assert not can_continue(done)
    assert len(engine.asked) == 1


async def test_a_reply_that_is_stopped_in_its_thought_can_go_on(stores: StoreFixture) -> None:
    model = load(STRIPPED)
    engine = Thinker(model, ["<think>" + "one two three " * 30, "four</think>Paris."], pause=0.05)
    async with thinking(stores, engine):
        first = await stores.say("where?")
        assert first.job
        await until(lambda: _signs(stores, first.job, 3))
        await stores.queue.cancel(THREAD, first.job)
        done = await ends(stores, first.job)
        assert isinstance(done, Done)
        assert (done.finish_reason, done.in_thought) == ("cancelled", True)
        assert can_continue(done)
        again = await ends(stores, await go_on(stores, first.job))
    assert isinstance(again, Done)
    assert again.text == "Paris."


async def _signs(stores: StoreFixture, job: str | None, number: int) -> bool:
    events = await stores.events(job)
    return sum(event == Delta(0, "") for event in events) >= number


async def test_a_template_that_wants_thoughts_back_gets_them(stores: StoreFixture) -> None:
    engine = Thinker(load(WANTED), [THOUGHT + "Paris.", "Yes."])
    async with thinking(stores, engine):
        await ends(stores, (await stores.say("where?")).job)
        await ends(stores, (await stores.say("sure?")).job)
    assert "<think>They mean the city, a SECRET one.</think>Paris.<|im_end|>" in engine.prompt(1)


async def test_a_deleted_question_takes_its_cut_thought_along(stores: StoreFixture) -> None:
    engine = Thinker(load(STRIPPED, max_thinking_tokens=25), [THOUGHT])
    async with thinking(stores, engine):
        await ends(stores, (await stores.say("where?", id="q")).job)
        assert "SECRET" in await words_in(stores.redis)
        await stores.queue.delete(THREAD, "q")
    assert "SECRET" not in await words_in(stores.redis)


# -- the view of a person -----------------------------------------------------------------------

PLACE = ThreadKey("stand-in", "T1", "C1", "1.0")


@asynccontextmanager
async def relayed(stores: StoreFixture, board: Board) -> AsyncIterator[Relay]:
    relay = Relay(
        SimulatedPlatform(board, part_length=400),
        stores.of_a_platform(),
        RelaySettings(LANE, "one", take_over=0.05, access=EVERYBODY),
    )
    stop = asyncio.Event()
    work = asyncio.create_task(relay.run(stop))
    try:
        yield relay
    finally:
        stop.set()
        await work


async def shows(board: Board, *texts: str) -> None:
    """Wait until the board has one message, which says one of these."""

    async def so() -> bool:
        return len(board.shown()) == 1 and board.shown()[0] in texts

    await until(so)


async def test_a_person_sees_the_seconds_of_thinking(stores: StoreFixture) -> None:
    board, engine = Board(), Thinker(load(STRIPPED), [THOUGHT + "Paris."], pause=0.1)
    async with thinking(stores, engine, pause=0.5), relayed(stores, board) as relay:
        turn = board.say(PLACE, "q", "U1", "where?")
        await relay.submit(Incoming(PLACE, turn, addressed=True))
        await shows(board, "Paris.")
    seconds = [status.seconds for _, status in board.statuses if status.kind == "thinking"]
    assert seconds == sorted(seconds)
    assert seconds[0] == 0
    assert seconds[-1] >= 1
    assert Status("thinking", seconds=12).sentence("en") == "Thinking… 12 s"
    assert Status("thinking", seconds=12).sentence("ja") == "考えています… 12秒"


async def test_a_cut_thought_has_a_notice_and_the_answer_replaces_it(
    stores: StoreFixture,
) -> None:
    model = load(STRIPPED, max_thinking_tokens=12)
    board, engine = Board(), Thinker(model, [THOUGHT, "</think>Paris."])
    async with thinking(stores, engine), relayed(stores, board) as relay:
        turn = board.say(PLACE, "q", "U1", "where?")
        receipt = await relay.submit(Incoming(PLACE, turn, addressed=True))
        assert receipt.job
        await shows(board, say("thought_cut", "en"), say("thought_cut", "ja"))
        part = next(iter(board.messages.values())).part
        assert isinstance(part.end, Done)
        assert can_continue(part.end)
        wanted = Regeneration(PLACE, receipt.job, "1", "U1", resumes=True, lane=LANE)
        await until(lambda: stores.deliveries.closed(PLACE, receipt.job or ""))
        await relay.regenerate(wanted)
        await shows(board, "Paris.")
    assert len(board.messages) == 1


# -- the store ----------------------------------------------------------------------------------


def test_a_release_before_this_one_reads_the_events() -> None:
    """It gives a delta's fields to its own `Delta`, and takes those of `Done` by name."""
    assert json.loads(codec.encode_event(Delta(0, "", at=3.0))).keys() == {"t", "offset", "text"}
    done = Done("", "length", Usage(1, 2), in_thought=True)
    assert codec.decode_event(codec.encode_event(done)) == done
    assert "in_thought" not in codec.encode_event(replace(done, in_thought=False))
    assert json.loads(codec.encode_event(done))["finish_reason"] in ("stop", "length")


def test_an_event_says_when_it_was_published() -> None:
    text = codec.encode_event(Delta(0, ""))
    assert codec.decode_event(text, "1700000000123-0") == Delta(0, "", at=1_700_000_000.123)


# -- in Slack and Discord -----------------------------------------------------------------------


async def test_slack_shows_the_seconds_and_offers_to_go_on(redis: Redis) -> None:
    model = load(STRIPPED, max_thinking_tokens=30)
    engine = Thinker(model, ["<think>" + "one two " * 40, "</think>Paris."], pause=0.1)
    async with slack_deployment(redis) as deployment:
        slack = deployment.slack
        async with thinking(deployment.stores(), engine, pause=0.5, lane=SLACK_LANE):
            await deployment.adapter()
            ts = await slack.say("C1", "U2", "<@U0HENJI> where?")
            await slack.until(
                lambda: any(said == "Thinking… 2 s" for _, _, said, _ in slack.workspace.statuses)
            )
            cut = await deployment.answered("C1", ts, say("thought_cut", "en"))
            slack.press("U2", cut, slack_components.CONTINUE)
            await deployment.answered("C1", ts, "Paris.")
            assert len(slack.replies("C1", ts)) == 1
            await deployment.at_rest()


async def test_discord_shows_the_seconds_and_offers_to_go_on(redis: Redis) -> None:
    model = load(STRIPPED, max_thinking_tokens=30)
    engine = Thinker(model, ["<think>" + "one two " * 40, "</think>Paris."], pause=0.1)
    async with discord_deployment(redis) as deployment:
        discord = deployment.discord
        async with thinking(deployment.stores, engine, pause=0.5, lane=DISCORD_LANE):
            general = discord.add_channel(discord.add_guild())
            await deployment.start_bot()
            said = await discord.says(ALICE, general, "<@bot> where?")
            seen: list[str] = []

            def shown(text: str) -> bool:
                seen.extend(m["content"] for m in discord.replies(said["id"]))
                return seen[-1:] == [text]

            await discord.until(lambda: shown(say("thought_cut", "en")), 30)
            assert "Thinking… 2 s" in seen
            [message] = discord.replies(said["id"])
            await discord.until(lambda: len(message["components"][0]["components"]) == 4)
            await discord.presses(ALICE, message, 1)
            await discord.until(lambda: shown("Paris."))
            assert len(discord.replies(said["id"])) == 1
