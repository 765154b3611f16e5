"""Turns that the model no longer reads: announced once a thread, and marked for the operator."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import pytest
from click.testing import CliRunner
from redis.asyncio import Redis

from bots.cli.commands import henji as henji_command
from bots.strings import say
from core.engine.echo import EchoEngine
from core.queue_types import PromptRoom, StoredTurn
from core.types import Done, Turn
from core.window import read_now
from tests import dialogues
from tests.local_discord.deployment import ALICE, discord_deployment
from tests.local_discord.expectations import with_its_buttons
from tests.local_discord.server import LocalDiscord
from tests.local_slack.deployment import slack_deployment
from tests.store_fixture import LANE, THREAD, StoreFixture, at_work, ends

BOT = "<@U0HENJI>"
REACH = PromptRoom(room=100, low=70, fingerprint="me")


def stored(tokens: int | None, role: Any = "user", whose: str = "me") -> StoredTurn:
    return StoredTurn(Turn("1", role, "U1", "text", 1.0), tokens, whose)


@pytest.mark.parametrize(
    ("counts", "read"),
    [
        ([30, 30, 30], [True, True, True]),
        ([30, 40, 40], [False, False, True]),
        ([90, 30, 30], [False, True, True]),
        ([30, None], [None, True]),
        ([30, None, 30], [None, None, True]),
        ([None, 80, 30, 30], [False, False, True, True]),
        ([200], [True]),
        ([], []),
    ],
)  # fmt: skip
def test_what_would_be_read_now(counts: list[int | None], read: list[bool | None]) -> None:
    assert read_now([stored(count) for count in counts], REACH) == read


def test_a_count_of_another_tokenizer_and_a_thread_of_an_earlier_version_say_nothing() -> None:
    assert read_now([stored(5, whose="other"), stored(5)], REACH) == [None, True]
    assert read_now([stored(5)], None) == [None]


def test_a_format_that_begins_with_a_person_skips_a_reply() -> None:
    turns = [stored(90), stored(30, "assistant"), stored(30), stored(1)]
    first = PromptRoom(100, 70, "me", user_first=True)
    assert read_now(turns, first) == [False, False, True, True]


@pytest.mark.parametrize("kind", ["rinna", "chatml", "alternating", "plain", "echo"])
def test_the_marks_are_what_the_next_prompt_reads(kind: str) -> None:
    turns = [
        Turn(str(at), "assistant" if at % 2 else "user", "U1", "発言です" * (at % 3 + 1), 1.0)
        for at in range(25)
    ]
    for number in (3, 9, 15, 25):
        dialogue = dialogues.load(kind, context_length=320, max_new_tokens=60)
        asked = turns[:number]
        kept = [StoredTurn(turn, dialogue.count(turn), dialogue.fingerprint) for turn in asked]
        read = read_now(kept, dialogue.prompt_room(0.7))
        dropped = dialogue.prompt(asked, low_water=0.7).dropped
        assert read == [at >= dropped for at in range(number)]


# -- said once ----------------------------------------------------------------------------------


@pytest.fixture
async def stores(redis: Redis) -> StoreFixture:
    stores = StoreFixture.over(redis)
    await stores.queue.announce(LANE, "other core", 60)
    return stores


async def done(stores: StoreFixture, text: str) -> Done:
    end = await ends(stores, (await stores.say(text)).job)
    assert isinstance(end, Done)
    return end


async def test_a_thread_is_told_once_and_again_after_a_reset(stores: StoreFixture) -> None:
    async with at_work(stores, EchoEngine()):
        for _ in range(2):
            said = [(await done(stores, "x" * 700)).dropped for _ in range(8)]
            assert len(list(filter(None, said))) == 1
            assert said[0] == 0
            await stores.history.reset(THREAD, "U1")


def shown(redis_url: str, *words: str) -> list[str]:
    ran = CliRunner().invoke(
        henji_command, ["admin", "show", str(THREAD), *words], env={"REDIS_URL": redis_url}
    )
    assert ran.exit_code == 0, ran.output
    return ran.stdout.splitlines()


async def test_admin_show_marks_it(stores: StoreFixture, redis_url: str) -> None:
    async with at_work(stores, EchoEngine()):
        await done(stores, "a" * 900)
        await done(stores, "b" * 900)
    lines = await asyncio.to_thread(shown, redis_url)
    assert [line[0] for line in lines] == ["-", "-", "+", "+"]
    rows = [json.loads(line) for line in await asyncio.to_thread(shown, redis_url, "--json")]
    assert [row["read"] for row in rows] == [False] * 2 + [True] * 2


# -- as people see it ---------------------------------------------------------------------------


async def test_in_slack_the_line_stands_under_one_reply(redis: Redis) -> None:
    async with slack_deployment(redis) as deployment:
        await deployment.core(tokens=200)
        await deployment.adapter()
        root = await deployment.slack.say("C1", "U1", f"{BOT} {'a' * 1500}")
        line = say("turns_dropped", "ja", turns=2)[:6]

        def finished(number: int) -> bool:
            said = deployment.slack.replies("C1", root)
            return len(said) == number and all(m.buttons() for m in said)

        for number in range(1, 7):
            await deployment.slack.until(lambda n=number: finished(n), 20)
            if number < 6:
                await deployment.slack.say("C1", "U1", "b" * 1500, thread=root)
        replies = deployment.slack.replies("C1", root)
        assert sum(line in str(m.blocks) for m in replies) == 1
        await deployment.at_rest()


async def test_in_discord_the_line_stands_under_one_reply(redis: Redis) -> None:
    async with discord_deployment(redis) as deployment:
        here = deployment.discord
        thread = here.add_thread(here.add_channel(here.add_guild()))
        await deployment.start_core(context_length=2000)
        await deployment.start_bot()
        for number in range(1, 6):
            await here.says(ALICE, thread, f"<@bot> {'a' * 400}")
            await here.until(partial(_said, here, thread, number))
            replies = here.replies(thread)
            await with_its_buttons(deployment, replies[-1])
        notes = [m["content"] for m in here.replies(thread) if "no longer fit" in m["content"]]
        assert len(notes) == 1
        assert notes[0].endswith(say("turns_dropped", "en", turns=2))


def _said(discord: LocalDiscord, channel: str, number: int) -> bool:
    return len(discord.replies(channel)) == number
