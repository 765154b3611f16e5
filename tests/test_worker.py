"""A core at work: the real worker and the echo engine, on a real Valkey."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from statistics import median
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from core import worker
from core.access_policy import Permit, Quota
from core.background import cancel
from core.dialogue import Dialogue, Prompt
from core.engine.echo import EchoEngine
from core.engine_types import Chunk, EngineStats, GenerationRequest
from core.errors import EngineError, EngineRefused, TurnTooLong
from core.models.catalogue import CATALOGUE, find_model
from core.ports import Engine
from core.queue_types import Claim, FenceResult, Regeneration, Sweep
from core.running_job import RunningJob
from core.settings import Settings
from core.types import Delta, Done, Failed, Started, Turn, Usage
from core.worker import Worker, WorkerSettings
from storage import keys
from storage.queue import RedisQueue
from storage.store import Store
from tests.open_access import OPEN_RULES
from tests.store_fixture import LANE, THREAD, StoreFixture, at_work, ends, shows
from tests.waiting import until

SLOW = 20.0
"""Tokens a second: a long text is not through before the test is."""

TEXT = "a question that takes a while to echo " * 5
OTHER = replace(THREAD, thread="2.0")


@pytest.fixture
async def stores(redis: Redis) -> AsyncIterator[StoreFixture]:
    stores = StoreFixture.over(redis, lease=60.0, backoff=0.01, max_attempts=2)
    await stores.queue.announce(LANE, "another core", 60)
    async with aclosing(stores.queue):
        yield stores


# -- the end of a core --------------------------------------------------------------------------


async def test_a_stopping_core_finishes_its_jobs(stores: StoreFixture) -> None:
    async with at_work(stores, EchoEngine(200), drain=20):
        receipt = await stores.say("hello, and good-bye")
        await until(lambda: shows(stores, receipt.job))
    assert isinstance((await stores.events(receipt.job))[-1], Done)


async def test_a_stopping_core_hands_unfinished_jobs_back_at_the_head_of_their_threads(
    stores: StoreFixture,
) -> None:
    async with at_work(stores, EchoEngine(SLOW), drain=0.01):
        first = await stores.say(TEXT, author="U1")
        await until(lambda: shows(stores, first.job))
        await stores.say("behind it", author="U2")
    claim = await stores.claim()
    assert claim.job.id == first.job
    assert claim.attempt == 2  # the shown text is removed
    assert await stores.redis.hget(keys.key("job", 0, claim.job.id), "attempts") == "1"


async def test_a_stopping_core_claims_nothing_more(stores: StoreFixture) -> None:
    class Counting(RedisQueue):
        claims = 0

        async def claim(self, lane: str, core: str, most: int) -> Sequence[Claim]:
            self.claims += 1
            return await super().claim(lane, core, most)

    stores.queue = queue = Counting(stores.store)
    stop = asyncio.Event()
    eager = core(stores, EchoEngine(SLOW), "core", idle=0.01, drain=0.3)
    working = asyncio.create_task(eager.run(stop))
    receipt = await stores.say(TEXT)
    await until(lambda: shows(stores, receipt.job))
    stop.set()
    before = queue.claims
    await working
    assert queue.claims <= before + 1  # one may have been on its way


async def test_an_engine_that_hangs_keeps_no_core_from_stopping(stores: StoreFixture) -> None:
    class Deaf(EchoEngine):
        async def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
            try:
                yield Chunk(ids=(65,))
                await asyncio.Event().wait()
            finally:
                await hanging.wait()

    hanging = asyncio.Event()
    async with asyncio.timeout(60):
        async with at_work(stores, Deaf(), drain=0.01, lease=0.05):
            receipt = await stores.say("hello")
            await until(lambda: shows(stores, receipt.job))
    hanging.set()


async def test_a_core_that_stopped_is_in_no_lane(stores: StoreFixture) -> None:
    async with at_work(stores, EchoEngine()):
        await until(lambda: _serve(stores, 2))
    assert await stores.queue.cores(LANE) == 1  # the test's own


async def test_a_core_that_stopped_leaves_no_task_behind(stores: StoreFixture) -> None:
    before = asyncio.all_tasks()
    async with at_work(stores, EchoEngine(200)):
        receipt = await stores.say("hello")
        await ends(stores, receipt.job)
    left = {str(task.get_coro()) for task in asyncio.all_tasks() - before}
    assert [coro for coro in left if "RedisQueue._watch" not in coro] == []


async def test_a_continued_reply_shows_at_once_what_it_continues(stores: StoreFixture) -> None:
    begun = await stores.say(TEXT)
    await stores.reply(await stores.claim(), "echo: a question", "length")
    wanted = Regeneration(THREAD, begun.job or "", "1", "U1", resumes=True, lane=LANE)
    continued = await stores.queue.regenerate(wanted, "adapter")
    async with at_work(stores, EchoEngine(SLOW)):
        await until(lambda: shows(stores, continued.job))
    shown = [event for event in await stores.events(continued.job) if isinstance(event, Delta)]
    assert shown[0].text.startswith("echo: a question")


async def _serve(stores: StoreFixture, cores: int) -> bool:
    return await stores.queue.cores(LANE) == cores


async def test_a_sick_core_does_not_announce_itself_again(
    stores: StoreFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = core(stores, EchoEngine(), "sick")
    worker._settings = replace(worker._settings, announced_for=0.03)
    announce, announced = stores.queue.announce, []

    async def counted(*words: Any) -> None:
        announced.append(words)
        await announce(*words)

    async def finish() -> None:
        announced.clear()
        await asyncio.sleep(0.1)  # a reply under way is handed back

    monkeypatch.setattr(stores.queue, "announce", counted)
    monkeypatch.setattr(worker, "_finish", finish)
    worker._is_sick.set()
    await worker.run(asyncio.Event())
    assert announced == [(LANE, "sick", 0)]  # it withdraws once more at its end


async def test_a_stop_ends_a_reply_at_its_next_words(stores: StoreFixture) -> None:
    async with at_work(stores, EchoEngine(3.0), renew=600.0):
        receipt = await stores.say(TEXT * 10)  # its whole reply takes minutes
        await until(lambda: shows(stores, receipt.job))
        await stores.queue.cancel(THREAD, str(receipt.job))
        async with asyncio.timeout(30):  # before its lease ends
            end = await ends(stores, receipt.job)
    assert isinstance(end, Done)
    assert end.finish_reason == "cancelled"


async def test_texts_are_counted_at_no_cost(stores: StoreFixture) -> None:
    async with at_work(stores, EchoEngine()):
        receipt = await stores.say('["abc"]', counts_tokens=True)
        end = await ends(stores, receipt.job)
    assert isinstance(end, Done)
    assert (end.text, end.usage) == (f"[{CATALOGUE['echo'].context_length}, 3]", Usage(0, 0))


class OneSlot(EchoEngine):
    def stats(self) -> EngineStats:
        return replace(super().stats(), slots=1 - super().stats().running)


async def test_a_core_with_one_slot_answers_one_after_the_other(stores: StoreFixture) -> None:
    async with at_work(stores, OneSlot(200)):
        jobs = [(key, (await stores.say("hello", key)).job) for key in (THREAD, OTHER)]
        for thread, job in jobs:
            assert isinstance(await ends(stores, job, thread), Done)


async def test_a_job_that_is_claimed_again_here_ends_its_first_claim(stores: StoreFixture) -> None:
    worker = core(stores, EchoEngine(), "core")
    await stores.say("hello")
    claim = await stores.claim()
    first = RunningJob(claim, worker._dialogues.default)
    worker._running[claim.job.id] = first
    worker._start_job(claim)
    assert first.end == "fenced"
    await cancel(*worker._tasks)


async def test_a_reply_whose_lease_was_lost_at_its_end_is_left_to_others(
    stores: StoreFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def commit(*words: Any) -> FenceResult:
        return "fenced"

    monkeypatch.setattr(stores.queue, "commit", commit)
    with capture_logs() as logs:
        async with at_work(stores, EchoEngine(), renew=600.0):
            await stores.say("hello")
            await until(lambda: _logged(logs, "left to others"))
    assert [line["why"] for line in logs if line["event"] == "left to others"] == ["fenced"]


async def test_what_an_engine_refuses_ends_with_a_sentence(stores: StoreFixture) -> None:
    class Refusing(EchoEngine):
        async def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
            raise EngineRefused("the server knows no such model")
            yield

    async with at_work(stores, Refusing()):
        receipt = await stores.say("hello")
        assert await ends(stores, receipt.job) == Failed(
            "internal", "the server knows no such model"
        )


async def test_a_reply_is_logged_with_its_cost(stores: StoreFixture) -> None:
    with capture_logs() as logs:
        async with at_work(stores, EchoEngine()):
            receipt = await stores.say("hello")
            end = await ends(stores, receipt.job)
            await until(lambda: _logged(logs, "replied"))
    assert isinstance(end, Done)
    assert end.usage.cached_tokens == 0
    (line,) = [line for line in logs if line["event"] == "replied"]
    assert 0 <= line["first_token"] <= line["seconds"]
    assert line["reply_tokens"] == end.usage.reply_tokens


async def _logged(logs: Sequence[Mapping[str, Any]], event: str) -> bool:
    return any(line["event"] == event for line in logs)


def test_a_long_message_is_counted_for_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    dialogue, turn = Dialogue.load(CATALOGUE["echo"], None), Turn("m1", "user", "U1", "x" * 20, 1.0)
    bound = TurnTooLong(12, 10)
    assert worker._counted(bound, turn, dialogue).tokens == dialogue.count(turn) > 12
    monkeypatch.setattr(worker, "_COUNTED", 19)
    assert worker._counted(bound, turn, dialogue) is bound


# -- prompts that take long ----------------------------------------------------------------------


async def test_a_prompt_that_takes_long_does_not_stop_the_event_loop(stores: StoreFixture) -> None:
    class SlowDialogue(Dialogue):
        def prompt(self, *arguments: Any, **named: Any) -> Prompt:
            time.sleep(0.5)
            return super().prompt(*arguments, **named)

    slow = SlowDialogue.load(CATALOGUE["echo"], None)
    settings = WorkerSettings(LANE, "core")
    worker = Worker(stores.queue, stores.history, EchoEngine(), slow, settings, rulebook=OPEN_RULES)
    stop = asyncio.Event()
    serving = asyncio.create_task(worker.run(stop))
    receipt = await stores.say("a long one. " * 200)
    end = asyncio.create_task(ends(stores, receipt.job))
    lags = [0.0]
    async with asyncio.timeout(60):
        while not end.done():
            before = time.monotonic()
            await asyncio.sleep(0.01)
            lags.append(time.monotonic() - before)
    stop.set()
    await serving
    assert max(lags) < 0.3


# -- replies that are not wanted ----------------------------------------------------------------


async def test_a_reply_is_stopped_within_200_milliseconds(stores: StoreFixture) -> None:
    """From the press in one process to the end that another is told."""
    took = []
    adapter = StoreFixture(stores.redis, stores.store)
    async with at_work(stores, EchoEngine(SLOW), publish=0.15):
        for number in range(5):
            receipt = await adapter.say(TEXT, thread=replace(THREAD, thread=f"{number}"))
            thread = replace(THREAD, thread=f"{number}")
            assert receipt.job
            await until(lambda: shows(stores, receipt.job))  # noqa: B023 - awaited at once
            began = time.monotonic()
            await adapter.queue.cancel(thread, receipt.job)
            end = await ends(adapter, receipt.job, thread)
            took.append(time.monotonic() - began)
            assert isinstance(end, Done)
            assert end.finish_reason == "cancelled"
            assert f"echo: {TEXT}".startswith(end.text)
            assert (await adapter.texts(thread))[1:] == [end.text]
    assert median(took) < 0.2


class LateNews(RedisQueue):
    """The results of renewals come late; it claims again meanwhile."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.free_to_claim, self.fenced, self.told = (asyncio.Event() for _ in range(3))

    async def renew(self, claims: Sequence[Claim]) -> Mapping[str, FenceResult]:
        verdicts = await super().renew(claims)
        if "fenced" in verdicts.values():
            self.fenced.set()
            await self.told.wait()
        return verdicts

    async def claim(self, lane: str, core: str, most: int) -> Sequence[Claim]:
        await self.free_to_claim.wait()
        return await super().claim(lane, core, most)


async def test_a_claim_that_was_lost_takes_no_newer_one_with_it(stores: StoreFixture) -> None:
    """An edit starts a reply over: the same core holds the same job again."""
    stores.queue = queue = LateNews(stores.store)
    queue.free_to_claim.set()
    async with aclosing(queue), at_work(stores, EchoEngine(SLOW), renew=0.001, publish=60):
        receipt = await stores.say(TEXT, id="m1")
        await until(lambda: _started(stores, receipt.job, 1))
        queue.free_to_claim.clear()
        await queue.edit(THREAD, "m1", "short", "1", LANE, "adapter")
        await queue.fenced.wait()
        queue.free_to_claim.set()
        await until(lambda: _started(stores, receipt.job, 2))
        queue.told.set()
        end = await ends(stores, receipt.job)
    assert isinstance(end, Done)
    assert end.text == "echo: short"


async def _started(stores: StoreFixture, job: str | None, attempt: int) -> bool:
    return Started(attempt) in await stores.events(job)


async def test_a_core_whose_clock_is_wrong_answers_all_the_same(
    stores: StoreFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for year in (1990, 2090):
        monkeypatch.setattr(time, "time", lambda: (year - 1970) * 365.25 * 86400)  # noqa: B023
        async with at_work(stores, EchoEngine()):
            receipt = await stores.say("hello", thread=replace(THREAD, thread=f"{year}"))
            end = await ends(stores, receipt.job)
        assert isinstance(end, Done)
        assert await stores.redis.zcount(keys.key("lane", 0, LANE), "-inf", "+inf") == 1


# -- an engine that fails -----------------------------------------------------------------------


class Failing(EchoEngine):
    """Fails so often, in the middle of the reply."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        async for chunk in super().generate(request):
            yield chunk
            if self.times:
                self.times -= 1
                raise EngineError("the GPU is on fire")


class Poisoned(EchoEngine):
    """Fails for prompts that say one thing."""

    def __init__(self, poison: str) -> None:
        super().__init__()
        self.poison = tuple(map(ord, poison))

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        prompt = tuple(request.prompt)
        starts = range(len(prompt) if self.poison else 0)
        if any(prompt[start : start + len(self.poison)] == self.poison for start in starts):
            raise EngineError("the prompt is poisoned")
        async for chunk in super().generate(request):
            yield chunk


def core(stores: StoreFixture, engine: Engine, name: str, **options: float) -> Worker:
    usual = {"sweep": 0.02, "idle": 0.05, "publish": 0.02, "retry": 0.05}
    settings = WorkerSettings(LANE, name, **(usual | options))
    dialogue = Dialogue.load(CATALOGUE["echo"], None)
    return Worker(stores.queue, stores.history, engine, dialogue, settings, rulebook=OPEN_RULES)


async def test_a_core_that_cannot_compute_hands_its_jobs_back_and_ends(
    stores: StoreFixture,
) -> None:
    sick, healthy = core(stores, Failing(10**9), "sick"), core(stores, EchoEngine(200), "healthy")
    stop = asyncio.Event()
    jobs = []
    for number in range(40):
        thread = replace(THREAD, thread=f"{number}")
        jobs.append((thread, await stores.say("hello", thread=thread)))
    async with asyncio.timeout(60):
        with (
            capture_logs(),  # drawing forty tracebacks takes 12 s of processor time
            pytest.raises(EngineError, match="this core cannot compute: EngineError: the GPU is"),
        ):
            await sick.run(stop)
        assert await stores.queue.cores(LANE) == 1  # the test's own
        well = asyncio.create_task(healthy.run(stop))
        assert "cannot compute" in sick.fault
        ended = [await ends(stores, receipt.job, thread) for thread, receipt in jobs]
        stop.set()
        await well
    assert [type(end) for end in ended] == [Done] * 40
    assert not await stores.queue.dead()


async def test_a_job_that_fails_alone_is_tried_on_another_core_first(stores: StoreFixture) -> None:
    stop = asyncio.Event()
    picky, other = Poisoned("poison"), EchoEngine()
    async with asyncio.timeout(60):
        first = asyncio.create_task(core(stores, picky, "picky").run(stop))
        receipt = await stores.say("poison")
        await until(lambda: _started(stores, receipt.job, 1))
        second = asyncio.create_task(core(stores, other, "other").run(stop))
        end = await ends(stores, receipt.job)
        stop.set()
        await asyncio.gather(first, second)
    assert isinstance(end, Done)


async def test_a_core_that_left_a_job_to_others_gives_them_time_to_claim_it(
    stores: StoreFixture,
) -> None:
    stop, picky = asyncio.Event(), core(stores, Poisoned("poison"), "picky", retry=30.0)
    working = asyncio.create_task(picky.run(stop))
    job = str((await stores.say("poison")).job)
    await until(lambda: _left(picky, job))
    await asyncio.sleep(0.2)  # time in which it could claim it again
    assert picky._failed_here == {job: 1}
    assert (await stores.claim()).job.id == job
    stop.set()
    await working


async def _left(worker: Worker, job: str) -> bool:
    return worker._failed_here.get(job, 0) >= 1 and not worker._running


async def test_an_engine_that_fails_once_is_tried_again(stores: StoreFixture) -> None:
    async with at_work(stores, Failing(1)):
        receipt = await stores.say("hello")
        end = await ends(stores, receipt.job)
    assert isinstance(end, Done)
    assert end.text == "echo: hello"
    assert Started(2) in await stores.events(receipt.job)


async def test_an_engine_has_longer_and_longer_pauses_to_become_well(
    stores: StoreFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    sick = core(stores, Failing(10**9), "sick", retry=7.0)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    await sick._generate_one_token()
    assert slept == [0.0, 7.0, 14.0]
    assert sick.fault


async def test_an_engine_that_fails_on_and_on_ends_in_a_dead_letter_and_a_sentence(
    stores: StoreFixture,
) -> None:
    engine = Poisoned("hello")
    async with at_work(stores, engine):
        receipt = await stores.say("hello")
        end = await ends(stores, receipt.job)
        assert end == Failed("internal", "EngineError: the prompt is poisoned")
        (letter,) = await stores.queue.dead()
        engine.poison = ()
        again = await stores.queue.requeue(letter, LANE)
        done = await ends(stores, again.job)
    assert isinstance(done, Done)
    assert await stores.texts() == ["hello", "echo: hello"]


async def test_a_prompt_that_cannot_be_read_is_a_dead_letter_and_stops_nobody(
    stores: StoreFixture,
) -> None:
    poisoned = await stores.say("poison")
    await stores.redis.hset(keys.key("turns", 0, str(THREAD)), "m1", "{not json")
    async with at_work(stores, EchoEngine()):
        assert isinstance(await ends(stores, poisoned.job), Failed)
        healthy = await stores.say("hello")
        assert isinstance(await ends(stores, healthy.job), Done)
    assert [letter.job for letter in await stores.queue.dead()] == [poisoned.job]


async def test_a_reply_is_logged_with_its_times_in_milliseconds(stores: StoreFixture) -> None:
    with capture_logs() as lines:
        async with at_work(stores, EchoEngine(1000)):
            for _ in range(4):
                await ends(stores, (await stores.say("hello")).job)
    replied = [line for line in lines if line["event"] == "replied"]
    assert len(replied) == 4
    for name in ("waited", "seconds", "first_token"):
        times = [line[name] for line in replied]
        assert times == [round(seconds, 3) for seconds in times]
        assert any(times)


async def scripts_run(stores: StoreFixture) -> int:
    statistics = await stores.redis.info("commandstats")
    return int(statistics.get("cmdstat_evalsha", {"calls": 0})["calls"])


async def test_an_idle_core_asks_redis_less_than_once_a_second(stores: StoreFixture) -> None:
    settings, stop = WorkerSettings(LANE, "idle"), asyncio.Event()
    worker = Worker(
        stores.queue,
        stores.history,
        EchoEngine(),
        Dialogue.load(CATALOGUE["echo"], None),
        settings,
        rulebook=OPEN_RULES,
    )
    working = asyncio.create_task(worker.run(stop))
    await asyncio.sleep(1.0)  # of the start
    before = await scripts_run(stores)
    await asyncio.sleep(6.0)
    assert 1 <= await scripts_run(stores) - before < 6
    stop.set()
    await working


async def test_a_core_with_nothing_due_sweeps_no_more_often_than_it_looks_for_work(
    stores: StoreFixture,
) -> None:
    class Counting(RedisQueue):
        sweeps = 0

        async def sweep(self) -> Sweep:
            self.sweeps += 1
            return await super().sweep()

    stores.queue = queue = Counting(stores.store)
    async with at_work(stores, EchoEngine(), sweep=0.001, idle=0.3), aclosing(queue):
        await until(lambda: _swept(queue))
        before = queue.sweeps
        await asyncio.sleep(0.5)
        assert queue.sweeps - before <= 4


async def _swept(queue: Any) -> bool:
    return bool(queue.sweeps)


async def test_a_core_without_a_free_slot_sleeps_until_there_is_one(
    stores: StoreFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    working, stop, looks = core(stores, OneSlot(SLOW), "core"), asyncio.Event(), 0
    free_slots = working._free_slots

    def counted() -> int:
        nonlocal looks
        looks += 1
        return free_slots()

    monkeypatch.setattr(working, "_free_slots", counted)
    running = asyncio.create_task(working.run(stop))
    busy = await stores.say(TEXT)
    await until(lambda: shows(stores, busy.job))
    before = looks
    await asyncio.sleep(0.3)
    assert looks - before <= 1
    await stores.queue.cancel(THREAD, str(busy.job))
    after = await stores.say("hello", thread=OTHER)
    await ends(stores, after.job, OTHER)
    stop.set()
    await running


async def test_one_long_prompt_is_built_after_the_other(stores: StoreFixture) -> None:
    """What a dialogue keeps of the prompts is for one thread."""
    working, at_once, most = core(stores, EchoEngine(), "core"), 0, 0

    def build() -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        time.sleep(0.05)
        at_once -= 1

    await asyncio.gather(*(working._in_thread(build) for _ in range(3)))
    assert most == 1
    working._prompts.shutdown()


async def test_a_core_leaves_no_thread_behind(stores: StoreFixture) -> None:
    def threads() -> int:
        return sum(thread.name.startswith("prompts") for thread in threading.enumerate())

    working, stop, before = core(stores, EchoEngine(2000), "core"), asyncio.Event(), threads()
    running = asyncio.create_task(working.run(stop))
    await ends(stores, (await stores.say(2 * TEXT)).job)
    assert threads() == before + 1
    stop.set()
    await running
    await until(lambda: _are(threads, before))
    assert not working.fault  # it is still there


async def _are(count: Callable[[], int], expected: int) -> bool:
    return count() == expected


async def test_an_idle_core_sweeps_promptly(stores: StoreFixture) -> None:
    """A held thread is answered when its time is up, though nothing else wakes the core."""
    async with at_work(stores, EchoEngine(), sweep=0.05, idle=30.0):
        await asyncio.sleep(0.3)
        asked = asyncio.get_running_loop().time()
        receipt = await stores.say("hello", backfill_wait=0.7)
        await ends(stores, receipt.job)
        assert 0.6 < asyncio.get_running_loop().time() - asked < 5


# -- the cost of a reply -------------------------------------------------------------------------


class ChatServer(EchoEngine):
    """Sends text alone, five characters at a time, and tells at the end what it cost."""

    def __init__(self, usage: Usage | None) -> None:
        super().__init__()
        self.usage = usage
        self.asked: list[GenerationRequest] = []

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        self.asked.append(request)
        for part in ("Paris", ", of ", "cours", "e."):
            yield Chunk(text=part)
        yield Chunk(finish_reason="stop", usage=self.usage)


class StalledServer(ChatServer):
    """Sends the beginning of a reply, with its cost so far, and nothing more."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Chunk, None]:
        self.asked.append(request)
        yield Chunk(text="Paris", usage=self.usage)
        yield Chunk(text=", of course. It is the capital.")
        await asyncio.Event().wait()


@pytest.mark.parametrize("told", [Usage(7, 5, 3), None])
async def test_a_reply_costs_what_its_server_tells(
    stores: StoreFixture, told: Usage | None
) -> None:
    settings = Settings(engine="openai", openai_api="chat", openai_model="m", thinking="off")
    dialogue = Dialogue.load(find_model(settings), None)
    engine = ChatServer(told)
    async with at_work(stores, engine, dialogue=dialogue):
        done = await ends(stores, (await stores.say("where?")).job)
    assert isinstance(done, Done)
    assert done.usage == (told or Usage(estimated("where?"), estimated("Paris, of course.")))
    assert engine.asked[0].thinking == "off"
    await stores.say("and then?")
    window = await stores.history.window(await stores.claim())
    assert [stored.tokens for stored in window.history] == [len("where?") + 2, None]


async def test_a_deleted_question_costs_what_was_written_though_its_server_tells_nothing(
    stores: StoreFixture,
) -> None:
    settings = Settings(engine="openai", openai_api="chat", openai_model="m")
    dialogue = Dialogue.load(find_model(settings), None)
    quota = Quota(person_tokens=1000)
    async with at_work(stores, StalledServer(None), dialogue=dialogue):
        await stores.say("where?", id="m1", permit=Permit(quota=quota))

        async def is_charged() -> bool:
            return (await stores.queue.spent(THREAD, "U1", quota)).person_tokens > 1

        await until(is_charged)
        await stores.queue.delete(THREAD, "m1")
    assert (await stores.queue.spent(THREAD, "U1", quota)).person_tokens == 2


def estimated(text: str) -> int:
    """Four bytes a token."""
    return -(-len(text.encode()) // 4)


@pytest.mark.parametrize("question", ["where?", "どこですか。"])
@pytest.mark.parametrize("told", [Usage(7, 30, 3), Usage(7, 1), None])
async def test_a_stopped_reply_costs_what_its_server_has_told(
    stores: StoreFixture, told: Usage | None, question: str
) -> None:
    settings = Settings(engine="openai", openai_api="chat", openai_model="m")
    dialogue = Dialogue.load(find_model(settings), None)
    engine = StalledServer(told)
    async with at_work(stores, engine, dialogue=dialogue):
        receipt = await stores.say(question)
        assert receipt.job
        await until(lambda: shows(stores, receipt.job))
        await stores.queue.cancel(THREAD, receipt.job)
        done = await ends(stores, receipt.job)
    assert isinstance(done, Done)
    assert done.finish_reason == "cancelled"
    two_events = 2
    if told:
        assert done.usage == replace(told, reply_tokens=max(told.reply_tokens, two_events))
    else:
        written = "Paris, of course. It is the capital."
        assert done.usage == Usage(estimated(question), estimated(written))
