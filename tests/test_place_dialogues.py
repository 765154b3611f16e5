"""A place's rules in what the model is asked: sampling, reply length, system prompt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from core.access_policy import Policy
from core.dialogue import Dialogue
from core.dialogue.dialogue import MAX_DIALOGUES, PlaceDialogues, spec_with_rules
from core.engine.echo import EchoEngine
from core.engine_types import Chunk, GenerationRequest
from core.models.catalogue import CATALOGUE
from core.place_rules import Rules
from core.queue_types import Place
from core.types import Done, Sampling
from core.worker import Worker, WorkerSettings
from storage.rules import RedisRules
from tests import dialogues
from tests.store_fixture import LANE, StoreFixture
from tests.waiting import until

ECHO = CATALOGUE["echo"]


class ListeningEngine(EchoEngine):
    """The echo engine, which remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[GenerationRequest] = []

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        self.asked.append(request)
        async for chunk in super().generate(request):
            yield chunk


async def test_a_rule_holds_from_the_next_reply_on(redis: Redis) -> None:
    stores, engine = StoreFixture.over(redis), ListeningEngine()
    rulebook, stop = RedisRules(stores.store, Policy()), asyncio.Event()
    dialogue = Dialogue.load(ECHO, None)
    worker = Worker(
        stores.queue,
        stores.history,
        engine,
        dialogue,
        WorkerSettings(LANE, "core", drain=0),
        rulebook,
    )
    working = asyncio.create_task(worker.run(stop))
    try:
        await until(lambda: _served(stores))
        assert await _reply(stores, "first") == ("echo: first", "stop")
        place = Place("slack", "T1", "C1")
        await rulebook.change(place, "max_new_tokens", 9, "U9")
        await rulebook.change(place, "temperature", 0.5, "U9")
        assert await _reply(stores, "second") == ("echo: sec", "length")
        await rulebook.change(place, "max_new_tokens", None, "U9")
        assert await _reply(stores, "third") == ("echo: third", "stop")
    finally:
        stop.set()
        await working
    usual = ECHO.sampling.temperature
    assert [request.sampling.temperature for request in engine.asked] == [usual, 0.5, 0.5]
    assert engine.asked[1].max_new_tokens == 9


async def _served(stores: StoreFixture) -> bool:
    return await stores.queue.cores(LANE) > 0


async def _reply(stores: StoreFixture, text: str) -> tuple[str, str]:
    receipt = await stores.say(text)

    async def ended() -> bool:
        return isinstance((await stores.events(receipt.job))[-1], Done)

    await until(ended)
    done = (await stores.events(receipt.job))[-1]
    assert isinstance(done, Done)
    return done.text, done.finish_reason


def test_a_place_without_rules_has_the_usual_voice() -> None:
    voices = PlaceDialogues(Dialogue.load(ECHO, None))
    assert voices.of(Rules()) is voices.default
    assert voices.of(Rules(person_messages=5, follow_up="always")) is voices.default


@pytest.mark.parametrize("kind", ["rinna", "chatml"])
def test_a_system_prompt_that_leaves_no_room_is_left_out_and_said(kind: str) -> None:
    usual = dialogues.load(kind, context_length=800, max_new_tokens=100)
    voices, question = PlaceDialogues(usual), dialogues.user("m1", "hello")
    with capture_logs() as logs:
        voice = voices.of(Rules(system_prompt="短く答えて。" * 800))
    assert "system prompt" in logs[0]["event"]
    assert voice.prompt([question], low_water=0.7) == usual.prompt([question], low_water=0.7)
    brief = voices.of(Rules(system_prompt="短く"))
    assert "短く" in dialogues.rendered(brief, [question])


def test_places_with_the_same_rules_share_a_voice() -> None:
    voices = PlaceDialogues(Dialogue.load(ECHO, None))
    cool = voices.of(Rules(temperature=0.1))
    assert cool is voices.of(Rules(temperature=0.1, enabled=True))
    assert cool is not voices.default
    assert cool.fingerprint == voices.default.fingerprint  # token counts stay good
    for number in range(MAX_DIALOGUES + 1):
        voices.of(Rules(top_k=number + 1))
    assert voices.of(Rules(temperature=0.1)) is not cool


@pytest.mark.parametrize("wanted", [1, 100, 10**5])
def test_a_reply_is_never_so_long_that_no_prompt_fits(wanted: int) -> None:
    spec = spec_with_rules(ECHO, Rules(max_new_tokens=wanted))
    assert 1 <= spec.max_new_tokens <= wanted
    assert spec.prompt_budget >= ECHO.context_length // 2 or wanted <= ECHO.max_new_tokens


def test_sampling_changes_what_it_names() -> None:
    spec = spec_with_rules(ECHO, Rules(temperature=0.3, repetition_penalty=1.2))
    usual = ECHO.sampling
    assert spec.sampling == Sampling(0.3, usual.top_p, usual.top_k, 1.2)
