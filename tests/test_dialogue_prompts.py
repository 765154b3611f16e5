"""Prompts: the ids of their whole string, within the budget, for little work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from structlog.testing import capture_logs

from core.access_policy import Policy
from core.dialogue import Dialogue, Prompt
from core.dialogue.dialogue import MAX_DIALOGUES, PlaceDialogues, spec_with_rules
from core.dialogue.formats.base import Format
from core.dialogue.prompt_cache import Encoder
from core.dialogue.tokenizers.base import Tokenizer
from core.engine.echo import EchoEngine
from core.engine_types import Chunk, GenerationRequest
from core.errors import ModelError, TurnTooLong
from core.models.catalogue import CATALOGUE
from core.place_rules import Rules
from core.queue_types import Place
from core.types import Done, Sampling, Turn
from core.worker import Worker, WorkerSettings
from storage.rules import RedisRules
from tests import dialogues, tiny_models
from tests.dialogues import said, turn, user
from tests.store_fixture import LANE, StoreFixture
from tests.waiting import until

KINDS = list(dialogues.KINDS)

_TEXTS = (
    "吾輩は猫である。",
    "それは簡単です。",
    "  ",
    "",
    "\n\n",
    "www",
    "wwwwwww",
    "1111111",
    "-------",
    "ーーーー",
    "<b>太字</b>",
    "<NL>",
    "\nシステム: はい",
    "</s>",
    "<|im_end|>",
    "👨\u200d👩\u200d👧",
    "გამარჯობა",
    "hello there",
    "\u0338",
    "x" * 90,
    " [/INST] ",
)
texts = st.lists(st.one_of(st.sampled_from(_TEXTS), st.text(max_size=6)), max_size=5).map("".join)
roles = st.sampled_from(["user", "assistant"])
histories = st.lists(st.tuples(roles, texts), min_size=1, max_size=14)


def turns_of(history: list[tuple[str, str]], prefix: str = "") -> list[Turn]:
    return [
        turn(f"{prefix}{place}", "user" if role == "user" else "assistant", text)
        for place, (role, text) in enumerate(history)
    ]


def whole(dialogue: Dialogue, turns: list[Turn], resume: str = "") -> Prompt:
    """The prompt of a dialogue that has nothing to go on from, but for the room of `turns`."""
    fresh = Dialogue(replace(dialogue.spec, context_length=10**6), *_FORMS[dialogue.spec.name])
    prompt = fresh.prompt(turns, low_water=1.0, resume=resume)
    messages = [fresh._message(group) for group in fresh._groups(turns)]
    string = fresh._format.whole(messages, resume)
    return replace(prompt, ids=tuple(fresh.tokenizer.encode(string)))


_FORMS: dict[str, tuple[Tokenizer, Format]] = {}


def known(kind: str, **limits: int) -> Dialogue:
    """A dialogue of this kind whose spec is named after it."""
    dialogue = dialogues.load(kind, **limits)  # type: ignore[arg-type]  # only numbers are given
    dialogue.spec = replace(dialogue.spec, name=kind)
    _FORMS[kind] = (dialogue.tokenizer, dialogue._format)
    return dialogue


_KEPT = {kind: known(kind, context_length=300, max_new_tokens=60) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@given(history=histories, resume=texts, data=st.data())
def test_ids_are_always_those_of_the_whole_string(
    kind: str, history: list[tuple[str, str]], resume: str, data: st.DataObject
) -> None:
    """However a dialogue grows, loses turns and is edited between its prompts."""
    dialogue = _KEPT[kind]
    turns: list[Turn] = []
    for new in turns_of(history):
        turns.append(new)
        if data.draw(st.integers(0, 9)) == 0:
            place = data.draw(st.integers(0, len(turns) - 1))
            turns[place] = replace(turns[place], text=data.draw(texts))
        if new.role == "user":
            _check(dialogue, turns, data.draw(st.sampled_from(["", resume])))
        if data.draw(st.integers(0, 9)) == 0:
            turns = turns[1:] or turns


def _check(dialogue: Dialogue, turns: list[Turn], resume: str) -> None:
    try:
        prompt = dialogue.prompt(turns, low_water=0.7, resume=resume)
    except TurnTooLong:
        assert len(whole(dialogue, turns[-1:], resume).ids) > dialogue.spec.prompt_budget
        return
    kept = turns[prompt.dropped :]
    assert prompt.ids == whole(dialogue, kept, resume).ids
    assert len(prompt.ids) <= dialogue.spec.prompt_budget
    assert set(prompt.counts) == {turn.id for turn in kept}


def test_ids_are_those_of_the_whole_even_if_rounding_breaks_a_tie() -> None:
    """Dialogues full of repeated characters, for which parts encoded apart would differ."""
    dialogue, apart = known("rinna", context_length=100_000), 0
    for seed in range(6):
        chance = random.Random(seed)
        talk = said(
            *(
                "".join(chance.choice("w01-ー") * chance.randint(1, 9) for _ in range(30))
                for _ in range(41)
            )
        )
        dialogue.prompt(talk[:-2], low_water=0.7)
        prompt = dialogue.prompt(talk, low_water=0.7)
        assert prompt.ids == whole(dialogue, talk).ids
        string = dialogue._format.whole([dialogue._message([turn]) for turn in talk], "")
        cut = dialogue.tokenizer.cut
        assert cut is not None
        parts = [dialogue.tokenizer.encode(part) for part in cut.split(string)]
        apart += [ident for part in parts for ident in part] != list(prompt.ids)
    assert apart


@pytest.mark.parametrize("kind", KINDS)
def test_counts_add_up_to_the_prompt_nearly(kind: str) -> None:
    dialogue = dialogues.load(kind)
    turns = said(*["吾輩は猫である。", "それは簡単です。"] * 8, "hello")
    grown = dict(dialogue.prompt(turns[:9], low_water=0.7).counts)
    prompt = dialogue.prompt(turns, low_water=0.7)
    assert abs(sum(prompt.counts.values()) - len(prompt.ids)) < 20
    assert {**prompt.counts, **grown} == dict(prompt.counts)


# -- the budget ---------------------------------------------------------------------------------


def talk(dialogue: Dialogue, exchanges: int, *, evict: bool) -> list[Prompt]:
    """The prompts of a dialogue that goes on; with `evict`, what falls is gone from the store."""
    turns, prompts = [], []
    for number in range(exchanges):
        turns.append(user(f"u{number}", f"質問{number}: 吾輩は猫である。名前は?"))
        prompts.append(dialogue.prompt(turns, low_water=0.6))
        if evict:
            turns = turns[prompts[-1].dropped :]
        turns.append(turn(f"a{number}", "assistant", f"{number}番: それは簡単です。" * 3))
    return prompts


@pytest.mark.parametrize("evict", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_old_turns_go_until_the_low_water_mark_and_then_none_for_a_while(
    kind: str, evict: bool
) -> None:
    dialogue = dialogues.load(kind, context_length=800, max_new_tokens=100)
    prompts = talk(dialogue, 40, evict=evict)
    budget = dialogue.spec.prompt_budget
    assert all(len(prompt.ids) <= budget for prompt in prompts)
    sizes = [len(prompt.ids) for prompt in prompts]
    fallen = [place for place in range(1, 40) if sizes[place] < sizes[place - 1]]
    assert 1 <= len(fallen) <= 12
    for place in fallen:
        assert sizes[place] <= 0.6 * budget + 1
        assert sizes[place - 1] + sizes[1] - sizes[0] > budget - 60  # not before it was full


@pytest.mark.parametrize("kind", ["rinna", "chatml"])
def test_the_kept_part_of_a_prompt_begins_as_the_one_before(kind: str) -> None:
    dialogue = dialogues.load(kind, context_length=800, max_new_tokens=100)
    prompts = talk(dialogue, 20, evict=False)
    for before, after in pairwise(prompts):
        if before.dropped == after.dropped:
            shared = len(before.ids) - 4  # the reply may join the last of them
            assert before.ids[:shared] == after.ids[:shared]


@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_that_is_too_long_by_itself_is_refused(kind: str) -> None:
    dialogue = dialogues.load(kind, context_length=200, max_new_tokens=60)
    turns = [*said("はい", "はい"), user("long", "吾輩は猫である。" * 60)]
    with pytest.raises(TurnTooLong) as caught:
        dialogue.prompt(turns, low_water=0.7)
    assert caught.value.limit == 140
    assert caught.value.tokens > 140
    assert dialogue.prompt(turns[:-1], low_water=0.7).dropped == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_turn_that_just_fits_drives_out_all_others(kind: str) -> None:
    dialogue = dialogues.load(kind, context_length=500, max_new_tokens=60)
    filler = "猫"
    while True:
        longest = user("long", filler + "猫")
        try:
            dialogue.prompt([longest], low_water=0.7)
        except TurnTooLong:
            break
        filler += "猫"
    turns = [*said("はい" * 9, "はい" * 9), user("long", filler)]
    prompt = dialogue.prompt(turns, low_water=0.7)
    assert prompt.dropped == 2
    assert 430 < len(prompt.ids) <= 440


@pytest.mark.parametrize("kind", KINDS)
def test_older_turns_that_come_later_are_read(kind: str) -> None:
    """Earlier messages may be stored when the first reply is being written already."""
    turns = said("猫です", "はい", "犬です", "はい", "鳥です")
    dialogue = dialogues.load(kind)
    for known in (turns[2:3], turns[2:]):
        dialogue.prompt(known, low_water=0.7)
    prompt = dialogue.prompt(turns, low_water=0.7)
    assert prompt.dropped == 0
    assert prompt.ids == dialogues.load(kind).prompt(turns, low_water=0.7).ids


def test_a_system_prompt_stays_when_turns_fall() -> None:
    for kind in ("rinna", "plain", "chatml", "alternating"):
        dialogue = dialogues.load(
            kind, context_length=800, max_new_tokens=100, system_prompt="親切に短く"
        )
        prompts = talk(dialogue, 30, evict=False)
        assert prompts[-1].dropped > 0
        assert "親切に短く" in dialogue.tokenizer.decode(prompts[-1].ids)


def test_a_system_prompt_stays_where_a_template_has_no_place_for_one() -> None:
    """It is at the beginning of a user's text then, so that the window begins with a user."""
    deaf = tiny_models.LLM_JP.replace("'system' %}{{ message['content'] }}", "'system' %}")
    spec = replace(dialogues.CHAT, context_length=500, max_new_tokens=60)
    files = dialogues.chat_files(deaf)
    dialogue = Dialogue.load(spec, files, system_prompt="親切に短く")
    for dropped in {prompt.dropped: prompt for prompt in talk(dialogue, 30, evict=False)}.values():
        assert "親切に短く" in dialogue.tokenizer.decode(dropped.ids)
    turns = [turn("a", "assistant", "はい"), user("b", "こんにちは")]
    assert "親切に短く" in dialogue.tokenizer.decode(dialogue.prompt(turns, low_water=0.7).ids)


@pytest.mark.parametrize("kind", ["rinna", "chatml", "alternating"])
def test_a_system_prompt_that_leaves_no_room_is_reported_at_once(kind: str) -> None:
    with pytest.raises(ModelError, match=r"the system prompt takes \d+ tokens .* reads 140 "):
        dialogues.load(kind, context_length=200, max_new_tokens=60, system_prompt="親切に" * 80)


def test_a_prompt_needs_a_turn() -> None:
    with pytest.raises(ValueError, match="a turn to answer"):
        dialogues.shared("rinna").prompt([], low_water=0.7)


# -- cost ---------------------------------------------------------------------------------------


class Counting:
    """A tokenizer that counts the characters it is given to encode."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.encoded = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._tokenizer, name)

    def encode(self, text: str) -> list[int]:
        self.encoded += len(text)
        return self._tokenizer.encode(text)


@pytest.mark.parametrize("kind", ["rinna", "chatml", "chatml-spaces", "echo"])
def test_only_new_turns_are_encoded(kind: str) -> None:
    dialogue = dialogues.load(kind, context_length=100_000)
    counting = Counting(dialogue.tokenizer)
    dialogue._encoder = Encoder(counting)  # type: ignore[arg-type]  # the rest is passed through
    costs = {}
    for length in (3, 301):
        texts = [f"{place}: 吾輩は猫である。" for place in range(length)]
        turns = said(*texts)
        dialogue.prompt(turns[:-2], low_water=0.7)
        counting.encoded = 0
        copies = [replace(each) for each in turns]  # as they come from a store
        dialogue.prompt(copies, low_water=0.7)
        costs[length] = counting.encoded
    assert costs[301] <= costs[3] + 40


def test_an_edited_turn_is_noticed() -> None:
    dialogue = dialogues.load("rinna")
    turns = said("猫です", "はい", "犬です")
    dialogue.prompt(turns[:1], low_water=0.7)
    turns[0] = replace(turns[0], text="鳥です")
    assert "鳥です" in dialogue.tokenizer.decode(dialogue.prompt(turns, low_water=0.7).ids)


def test_fingerprints_differ_where_counts_do() -> None:
    prints = [
        dialogues.load("rinna").fingerprint,
        dialogues.load("plain").fingerprint,
        dialogues.load("rinna", speaker_names=True).fingerprint,
        dialogues.load("chatml").fingerprint,
        dialogues.load("echo").fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert dialogues.load("rinna").fingerprint == prints[0]


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
def test_a_system_prompt_that_leaves_no_room_is_left_out_and_reported(kind: str) -> None:
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


def test_sampling_changes_only_the_named_values() -> None:
    spec = spec_with_rules(ECHO, Rules(temperature=0.3, repetition_penalty=1.2))
    usual = ECHO.sampling
    assert spec.sampling == Sampling(0.3, usual.top_p, usual.top_k, 1.2)
