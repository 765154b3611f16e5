"""A message that is longer than the model reads: refused with both numbers, and its beginning
answered on request."""

from __future__ import annotations

import re
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from bots import attachments
from bots.actions import Actions, Actor
from bots.attachments import ReadFile, file_of
from bots.relay import Relay
from bots.slack import components
from bots.strings import say
from core.dialogue import Dialogue, Prompt
from core.engine.echo import EchoEngine
from core.queue_types import Place
from core.types import Done, Turn
from core.window import cut, parts_read, truncate
from tests import dialogues
from tests.local_discord import payloads as p
from tests.local_discord.deployment import ALICE, BOB, DiscordDeployment, discord_deployment
from tests.local_discord.expectations import NOBODY, the_answer, told, with_its_buttons
from tests.local_slack.deployment import SlackDeployment, slack_deployment
from tests.store_fixture import LANE, THREAD, StoreFixture, at_work, ends
from tests.test_delivery import Story
from tests.waiting import until

BOT = "<@U0HENJI>"
ROOM = 4096 - 1024
"""What the echo model reads: a character is a token."""
LONG = "word " * 1000
LINE = re.compile(r"([\d,]+) of ([\d,]+) tokens")


def turn_of(words: str, *files: tuple[str, str | None]) -> Turn:
    read = [ReadFile(file_of(name), text) for name, text in files]
    return attachments.with_files(Turn("1", "user", "U1", words, 1.0), read)


# -- the room for a message ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["rinna", "chatml", "alternating", "plain", "echo"])
def test_as_much_as_fits_is_read_in_every_format(kind: str) -> None:
    dialogue = dialogues.load(kind, context_length=700, max_new_tokens=100)
    whole = turn_of("要約してください", ("a.txt", "吾輩は猫である。" * 4000), ("b.txt", "second"))
    read = truncate(whole, dialogue, 0.7)
    prompt = dialogue.prompt([read], low_water=0.7)
    assert 0.6 * 600 < len(prompt.ids) <= 0.7 * 600
    assert read.text.startswith("要約してください\n\n[file: a.txt]\n~~~\n吾輩は猫である。")
    assert read.text.endswith("…\n~~~\n\n[file: b.txt]")
    first, second = parts_read(whole, read, dialogue)
    assert 0 < first.tokens < first.whole
    assert (second.name, second.tokens) == ("b.txt", 0)
    assert second.whole > 0


def test_long_words_leave_their_files_unread() -> None:
    dialogue = dialogues.load("echo", context_length=700, max_new_tokens=100)
    whole = turn_of("word " * 1000, ("a.txt", "text"))
    read = truncate(whole, dialogue, 0.7)
    assert read.text.endswith("word…\n\n[file: a.txt]")
    words, file = parts_read(whole, read, dialogue)
    assert (words.name, file.tokens) == ("", 0)
    assert words.whole == 5001


texts = st.text(alphabet="あa~\n [].:", max_size=40)


@given(texts, st.lists(st.tuples(st.just("a.txt"), texts | st.none()), max_size=4), st.data())
def test_a_cut_turn_keeps_its_shape(
    words: str, files: list[tuple[str, str | None]], data: st.DataObject
) -> None:
    whole = turn_of(words, *files)
    read = cut(whole, data.draw(st.integers(0, len(whole.text))))
    assert [file.name for file in read.files] == [file.name for file in whole.files]
    at = len(read.text) - read.below
    for file in read.files:
        block = read.text[at : at + file.length].split("\n")
        assert block[0] == "[file: a.txt]"
        assert file.read is (len(block) > 1)
        assert not file.read or (block[1] == block[-1] and set(block[1]) == {"~"})
        at += file.length + 2
    assert cut(whole, len(whole.text)) == whole


# -- the queue ----------------------------------------------------------------------------------


@pytest.fixture
async def stores(redis: Redis) -> StoreFixture:
    return await StoreFixture.serving(redis, lease=0.5)


async def refused(stores: StoreFixture, text: str = LONG) -> tuple[str, Relay, Actions]:
    """A message that is too long; the job that refused it."""
    story = Story(stores)
    relay = story.relay()
    async with at_work(stores, EchoEngine()):
        receipt = await stores.say(text, id="m1")
        await ends(stores, receipt.job)
    await stores.queue.announce(LANE, "core", 60)
    actions = Actions(relay, stores.of_a_platform())
    return str(receipt.job), relay, actions


async def test_a_press_twice_reads_it_once_and_only_the_beginning_stays(
    stores: StoreFixture,
) -> None:
    job, _, actions = await refused(stores)
    assert await stores.texts() == []
    first = await actions.regenerate(Actor("U1"), THREAD, job, "p1", truncates=True)
    again = await actions.regenerate(Actor("U1"), THREAD, job, "p1", truncates=True)
    other = await actions.regenerate(Actor("U1"), THREAD, job, "p2", truncates=True)
    assert [o.receipt.outcome for o in (first, again, other) if o.receipt] == [
        "queued", "duplicate", "duplicate",
    ]  # fmt: skip
    async with at_work(stores, EchoEngine()):
        end = await ends(stores, first.receipt.job if first.receipt else "")
    assert isinstance(end, Done)
    question, reply = await stores.texts()
    assert len(question) <= 0.7 * ROOM
    assert reply == f"echo: {question}"[: len(reply)]
    late = await actions.regenerate(Actor("U1"), THREAD, job, "p3", truncates=True)
    assert late.sentence("en") == say("prompt_gone", "en")


@dataclass
class Built:
    """The turns of each prompt that is built, and whether it is built on the event loop."""

    turns: list[list[str]] = field(default_factory=list)
    on_loop: list[bool] = field(default_factory=list)


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Built:
    prompt, built = Dialogue.prompt, Built()

    def noted(dialogue: Dialogue, turns: Sequence[Turn], **options: Any) -> Prompt:
        built.turns.append([turn.text for turn in turns])
        built.on_loop.append(threading.current_thread() is threading.main_thread())
        return prompt(dialogue, turns, **options)

    monkeypatch.setattr(Dialogue, "prompt", noted)
    return built


async def test_the_beginning_is_read_with_what_was_said_before(
    stores: StoreFixture, built: Built
) -> None:
    async with at_work(stores, EchoEngine()):
        await ends(stores, (await stores.say("hi", id="m0")).job)
    await stores.queue.announce(LANE, "core", 60)
    job, _, actions = await refused(stores)
    pressed = await actions.regenerate(Actor("U1"), THREAD, job, "p1", truncates=True)
    async with at_work(stores, EchoEngine()):
        await ends(stores, pressed.receipt.job if pressed.receipt else "")
    assert built.turns[-1][:-1] == ["hi", "echo: hi"]


async def test_only_a_short_prompt_is_built_on_the_event_loop(
    stores: StoreFixture, built: Built
) -> None:
    async with at_work(stores, EchoEngine()):
        for number, text in enumerate(("hi", "hey", "word " * 100, "you")):
            await ends(stores, (await stores.say(text, id=f"m{number}")).job)
    assert built.on_loop[1:] == [True, False, False]


async def test_a_reset_a_deletion_and_a_forget_take_it_away(stores: StoreFixture) -> None:
    for forget in (
        lambda: stores.history.reset(THREAD, "U1"),
        lambda: stores.queue.delete(THREAD, "m1"),
        lambda: stores.history.forget(Place("slack", "T1"), "U1"),
    ):
        job, _, actions = await refused(stores)
        exported = [s.turn.text async for _, s in stores.history.export(Place("slack", "T1"), "U1")]
        assert exported == [LONG]
        await forget()
        left = [name for name in await stores.redis.keys("henji:*") if "aside" in name]
        assert left == []
        outcome = await actions.regenerate(Actor("U1"), THREAD, job, "p1", truncates=True)
        assert not outcome.done
        await stores.redis.flushall()
        await stores.queue.announce(LANE, "core", 60)


async def test_a_reset_while_the_beginning_is_answered_leaves_nothing_of_it(
    stores: StoreFixture,
) -> None:
    job, _, actions = await refused(stores)
    outcome = await actions.regenerate(Actor("U1"), THREAD, job, "p1", truncates=True)
    assert outcome.done
    claim = await stores.claim()
    await stores.history.reset(THREAD, "U1")
    await stores.reply(claim, "echo")
    assert await stores.texts() == []
    left = [name for name in await stores.redis.keys("henji:*") if "aside" in name]
    assert left == []


async def test_a_shortened_message_is_answered_in_the_place_of_the_refusal(
    stores: StoreFixture,
) -> None:
    job, _, _ = await refused(stores)
    receipt = await stores.queue.edit(THREAD, "m1", "short", "5", LANE, "adapter")
    assert receipt.outcome == "queued"
    assert (await stores.delivery(receipt.job)).replaces == job
    async with at_work(stores, EchoEngine()):
        await ends(stores, receipt.job)
    assert await stores.texts() == ["short", "echo: short"]


async def test_another_core_takes_over_the_beginning_from_a_dead_one(stores: StoreFixture) -> None:
    job, _, actions = await refused(stores)
    outcome = await actions.regenerate(Actor("U1"), THREAD, job, "p1", truncates=True)
    await stores.claim()  # and the core dies

    async def taken_over() -> bool:
        return (await stores.queue.sweep()).taken_over > 0

    await until(taken_over, 5)
    async with at_work(stores, EchoEngine()):
        end = await ends(stores, outcome.receipt.job if outcome.receipt else "")
    assert isinstance(end, Done)
    assert end.files[0].whole == len(LONG)


# -- in Slack -----------------------------------------------------------------------------------


@pytest.fixture
async def slack(redis: Redis) -> AsyncIterator[SlackDeployment]:
    async with slack_deployment(redis) as deployment:
        await deployment.core(tokens=1024)
        await deployment.adapter()
        yield deployment
        await deployment.at_rest()


async def test_in_slack_a_long_file_is_refused_with_both_numbers_and_begun_by_the_button(
    slack: SlackDeployment,
) -> None:
    people = slack.slack
    file = people.upload("log.txt", b"line of a log\n" * 2000)
    ts = await people.say("C1", "U2", f"{BOT} Summarise", files=[file])

    def button() -> bool:
        return any(components.BEGIN in m.buttons() for m in people.replies("C1", ts))

    await people.until(button)
    [refusal] = people.replies("C1", ts)
    assert re.search(r"28,0\d\d tokens, and 5,\d\d\d is the most", refusal.shown)
    people.press("U1", refusal, components.BEGIN)
    await people.until(lambda: people.whispers("U1"))
    assert people.whispers("U1")[0].text == say("not_yours", "ja")
    assert components.BEGIN in refusal.buttons()
    await slack.stop("adapter")
    await slack.adapter("another")
    people.press("U2", refusal, components.BEGIN)
    await people.until(lambda: components.FEEDBACK in refusal.buttons())
    assert refusal.shown.startswith("echo: Summarise\n\n[file: log.txt]\n~~~\nline of a log")
    assert people.replies("C1", ts) == [refusal]
    found = LINE.search(str(refusal.blocks))
    assert found
    assert found[2] == "28,023"


# -- in Discord ---------------------------------------------------------------------------------


@pytest.fixture
async def discord(redis: Redis) -> AsyncIterator[DiscordDeployment]:
    async with discord_deployment(redis) as deployment:
        deployment.discord.add_channel(deployment.discord.add_guild())
        await deployment.start_core(context_length=4000)
        yield deployment
        assert deployment.discord.faults == []


async def with_a_button(deployment: DiscordDeployment, message: p.Payload) -> p.Payload:
    await deployment.discord.until(lambda: message["components"])
    return message


async def test_in_discord_a_long_paste_is_begun_by_the_button_after_a_restart(
    discord: DiscordDeployment,
) -> None:
    here = discord.discord
    general = next(iter(here.world.channels))
    bot = await discord.start_bot()
    paste = here.add_file(general, "message.txt", b"A line.\n" * 1000)
    asked = await here.says(ALICE, general, "<@bot> Summarise", attachments=[paste])
    [refusal] = await here.until(lambda: here.replies(asked["id"]))
    await with_a_button(discord, refusal)
    assert "8,040 tokens, and 2,000 is the most" in refusal["content"]
    await bot.kill()
    await discord.start_bot("another")
    pressed = await here.presses(BOB, refusal, 0, permissions=NOBODY)
    assert await told(discord, pressed) == say("not_yours", "en")
    await here.presses(ALICE, refusal, 0)
    await with_its_buttons(discord, refusal)
    assert refusal["content"].startswith("echo: Summarise\n\n[file: message.txt]\n```\nA line.")
    assert LINE.search(refusal["content"])
    assert len(here.replies(asked["id"])) == 1


async def test_in_discord_a_command_s_long_question_is_begun_too(
    discord: DiscordDeployment,
) -> None:
    here = discord.discord
    general = next(iter(here.world.channels))
    await discord.start_bot()
    used = await here.uses(ALICE, general, "ask", {"prompt": "word " * 500, "private": True})
    sentence = say("too_long_by", "en", tokens=2501, limit=2000)
    refusal = await the_answer(discord, used, sentence)
    await with_a_button(discord, refusal)
    await here.presses(ALICE, refusal, 0)
    await here.until(lambda: refusal["content"].startswith("echo: word word"))
    await with_its_buttons(discord, refusal)
    assert "your message: 1,39" in refusal["content"]
