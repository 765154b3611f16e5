"""Preferences as a data set and as a table of two models, and adapters that hold them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from core.alignment.datasets import Form, Row, choices, is_held_out, read_examples, rows, verdict_of
from core.evaluation.comparison import recount
from core.evaluation.run_record import Record
from core.models.manifest import Manifest
from core.queue_types import Sample, Trace
from core.types import ThreadKey, Turn
from storage import codec
from storage.feedback import RedisPreferences
from storage.rules import RedisRules
from tests.processes import in_a_shell
from tests.store_fixture import THREAD, StoreFixture
from tests.test_preferences import COLLECTS, PLACE, Collecting

TURNS = (
    Turn("m1", "user", "U2", "hello", 1.0, "Aiko"),
    Turn("m2", "user", "U1", "why?", 1.0, "Ken"),
)
DIGESTS = {"U1": "d1", "U2": "d2"}


def trace(text: str, ids: tuple[int, ...] = (7, 0), **more: Any) -> Trace:
    made = {"prompt_ids": (1, 2, 3), "reply_ids": ids, "fingerprint": "f"} | more
    return Trace(TURNS, text, "model", **made)


def sample(
    votes: dict[str, str], *traces: Trace | None, job: str = "j", replaced: str = ""
) -> Sample:
    return Sample(THREAD, job, "U1", ("U2", "U1"), traces, votes, replaced)


def made(form: Form, *samples: Sample, weak: bool = False) -> list[Row]:
    return [row for one in choices(samples, weak=weak) for row in rows(one, form, DIGESTS)]


ONE, TWO = trace("one"), trace("two", (8, 0))


def test_a_duel_that_was_won_is_a_pair_of_one_prompt() -> None:
    (row,) = made("dpo", sample({"U3": "2", "U4": "2", "U5": "1"}, ONE, TWO))
    assert row == {
        "prompt": [{"role": "user", "content": "hello\nwhy?"}],
        "chosen": [{"role": "assistant", "content": "two"}],
        "rejected": [{"role": "assistant", "content": "one"}],
        "tokens": {
            "fingerprint": "f", "prompt": (1, 2, 3), "chosen": (8, 0), "rejected": (7, 0),
        },
        "authors": ["d1", "d2"],
    }  # fmt: skip
    good, bad = made("kto", sample({"U3": "1"}, ONE, TWO))
    assert (good["completion"][0]["content"], good["label"]) == ("one", True)
    assert (bad["completion"][0]["content"], bad["label"]) == ("two", False)
    assert bad["tokens"] == {"fingerprint": "f", "prompt": (1, 2, 3), "completion": (8, 0)}


def test_both_bad_is_two_negatives_and_a_tie_is_nothing() -> None:
    both = sample({"U3": "bad"}, ONE, TWO)
    assert made("dpo", both) == []
    assert [row["label"] for row in made("kto", both)] == [False, False]
    for votes in ({"U3": "tie"}, {"U3": "1", "U4": "2"}, {}):
        assert made("dpo", sample(votes, ONE, TWO)) == made("kto", sample(votes, ONE, TWO)) == []


def test_a_thumb_is_a_label_and_no_pair() -> None:
    for vote, label in (("good", True), ("bad", False)):
        assert made("dpo", sample({"U3": vote}, ONE)) == []
        assert [row["label"] for row in made("kto", sample({"U3": vote}, ONE))] == [label]
    assert made("kto", sample({"U3": "good", "U4": "bad"}, ONE)) == []


def test_a_regeneration_is_a_weak_pair_and_off_by_default() -> None:
    before, after = sample({}, ONE, job="1"), sample({}, TWO, job="2", replaced="1")
    assert made("dpo", before, after) == []
    (row,) = made("dpo", before, after, weak=True)
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("two", "one")
    assert made("dpo", after, weak=True) == []
    same = sample({}, ONE, job="2", replaced="1")
    assert made("dpo", before, same, weak=True) == []


def test_ids_are_there_only_where_both_replies_answer_the_same_ones() -> None:
    others = (trace("two", fingerprint="g"), trace("two", prompt_ids=(9,)), trace("two", ()))
    for other in others:
        (row,) = made("dpo", sample({"U3": "1"}, ONE, other))
        assert "tokens" not in row


def test_the_most_votes_decide_and_as_many_do_not() -> None:
    assert verdict_of(["1", "2", "1"]) == "1"
    assert verdict_of(["1", "2"]) == ""
    assert verdict_of([]) == ""


def test_a_thread_is_held_out_whole() -> None:
    threads = [ThreadKey("slack", "T1", "C1", str(number)) for number in range(1000)]
    held = [thread for thread in threads if is_held_out(thread, 0.1)]
    assert 60 < len(held) < 150
    assert not any(is_held_out(thread, 0.0) for thread in threads)


# -- from the command line ------------------------------------------------------------------------


async def put(
    stores: StoreFixture, number: int, votes: dict[str, str], *traces: Trace, thread: str = "1.0"
) -> None:
    """A sample as the scripts would have kept it."""
    key = ThreadKey("slack", "T1", "C1", thread)
    await stores.say("hello", thread=key, id=f"m{number}.{thread}")
    entry = {"asker": "U1", "authors": ["U2", "U1"], "turns": ["m1", "m2"], "at": 1}
    name = f"henji:{{0}}:thread:{key}:kept"
    sample = f"henji:{{0}}:sample:j{number}"
    await stores.redis.hset(name, f"j{number}", json.dumps(entry))
    fields = {str(at): codec.encode_trace(one) for at, one in enumerate(traces, 1)}
    fields |= {f"vote {person}": verdict for person, verdict in votes.items()}
    await stores.redis.hset(sample, mapping=fields)
    listed = [f"henji:{{0}}:person:slack:T1:{person}" for person in ("U1", "U2", *votes)]
    for one in listed:
        await stores.redis.zadd(one, {str(key): 1})
    for one in (name, sample, *listed):
        await stores.redis.expire(one, 3600)


@pytest.fixture
async def stores(redis: Redis) -> Collecting:
    stores = Collecting.at(redis, COLLECTS)
    await stores.queue.announce("test", "core", 60)
    return stores


async def test_align_reads_the_files_of_the_command(
    stores: Collecting, redis_url: str, tmp_path: Path
) -> None:
    for number in range(40):
        await put(stores, number, {"U3": "1"}, ONE, TWO, thread=f"{number}.0")
    out = tmp_path / "pairs.jsonl"
    told = {"REDIS_URL": redis_url, "HENJI_DATA_DIR": str(tmp_path)}
    ran = await in_a_shell(f"henji admin preferences slack:T1:C1 --as dpo --out {out}", **told)
    assert ran.status == 0, ran.err
    training, test = (read_examples(path, "dpo") for path in (out, tmp_path / "pairs.test.jsonl"))
    assert len(training) + len(test) == 40
    assert len(test) in range(1, 12)
    text = out.read_text()
    assert not any(word in text for word in ("U1", "U2", "U3", "Aiko", "Ken", "C1"))
    assert len(training[0].authors) == 2
    assert out.stat().st_mode & 0o077 == 0
    ran = await in_a_shell("henji admin preferences slack:T1 --as kto", **told)
    assert len(ran.out.splitlines()) == 80
    ran = await in_a_shell("henji admin audit slack:T1", **told)
    assert "export   slack:T1:C1  preferences 40" in ran.out
    ran = await in_a_shell("henji admin preferences slack:T1:C2 --as kto", **told)
    assert (ran.status, "nothing that gives kto" in ran.err) == (1, True)


async def test_no_words_of_an_example_act_on_a_terminal(stores: Collecting, redis_url: str) -> None:
    said = "\x9b2J\u202e\x1b]0;owned\x07"
    await put(stores, 1, {"U3": "1"}, trace(said), TWO)
    ran = await in_a_shell("henji admin preferences slack:T1 --as dpo", REDIS_URL=redis_url)
    assert ran.out.rstrip("\n").isprintable()
    assert json.loads(ran.out)["chosen"][0]["content"] == said


async def test_forget_names_the_adapters_with_a_persons_words(
    stores: Collecting, redis_url: str, tmp_path: Path
) -> None:
    """Also words that the memory does not hold any more."""
    whom = await RedisPreferences(stores.store, RedisRules(stores.store, COLLECTS)).digest(
        PLACE, "U2"
    )
    folder = tmp_path / "adapters" / "liked"
    folder.mkdir(parents=True)
    told = {"REDIS_URL": redis_url, "HENJI_DATA_DIR": str(tmp_path)}
    Manifest("dpo", "m", "b", "w", None, "f", "d", (), (), authors=(whom,)).write(folder)
    ran = await in_a_shell("henji admin forget --user U9 --in slack:T1", **told)
    assert str(folder) not in ran.out
    ran = await in_a_shell("henji admin forget --user U2 --in slack:T1", **told)
    assert f"trained on some of them, and cannot forget: {folder}" in ran.out


async def test_export_prints_a_persons_training_samples(
    stores: Collecting, redis_url: str, tmp_path: Path
) -> None:
    await put(stores, 1, {"U3": "bad"}, ONE)
    told = {"REDIS_URL": redis_url, "HENJI_DATA_DIR": str(tmp_path)}
    for person, said, vote in (("U2", ["hello"], ""), ("U3", [], "bad")):
        ran = await in_a_shell(f"henji admin export --user {person} --in slack:T1", **told)
        (row,) = (json.loads(line) for line in ran.out.splitlines() if "for_training" in line)
        assert (row["kept_for_training"], row["vote"]) == (said, vote)


async def duel(stores: StoreFixture, number: int, votes: dict[str, str]) -> None:
    """A duel between `new` and `old`, `new` shown first where the number is even."""
    key = ThreadKey("slack", "T1", "C1", f"{number}.0")
    await stores.say(f"question {number}", thread=key, id=f"m{number}")
    answers = {
        str(at): json.dumps({"model": model, "record": json.dumps({"text": f"{model} {number}"})})
        for at, model in enumerate(("new", "old"), 1)
    }
    order = "21" if number % 2 else "12"
    fields = {"thread": str(key), "asker": "U1", "question": f"m{number}", "order": order}
    voted = {f"vote {person}": verdict for person, verdict in votes.items()}
    name = f"henji:{{0}}:duel:d{number}"
    kept = f"henji:{{0}}:thread:{key}:kept"
    await stores.redis.hset(name, mapping={**fields, **answers, **voted})
    await stores.redis.hset(kept, f"d{number}", "{}")
    listed = [f"henji:{{0}}:person:slack:T1:{person}" for person in votes]
    for one in listed:
        await stores.redis.zadd(one, {str(key): 1})
    for one in (name, kept, *listed):
        await stores.redis.expire(one, 3600)


async def test_votes_make_the_table_of_two_models(
    stores: Collecting, redis_url: str, tmp_path: Path
) -> None:
    shown: tuple[dict[str, str], ...] = (
        {"U1": "a", "U2": "a"},
        {"U1": "b"},
        {"U2": "tie"},
        {"U1": "bad"},
        {"U2": "b"},
        {},
    )
    for number, votes in enumerate(shown):
        await duel(stores, number, votes)
    told = {"REDIS_URL": redis_url, "HENJI_DATA_DIR": str(tmp_path)}
    out = tmp_path / "votes"
    command = f"henji compare new old --from-channel slack:T1:C1 --out {out}"
    ran = await in_a_shell(command, **told)
    assert ran.status == 0, ran.err
    comparison = recount(Record.read(out))
    (judged,) = comparison.judged
    counted = judged.count
    table = counted.whole.table
    # prompts 0 (twice) and 1 were won by new, 4 by old; 2 and 3 are ties
    assert (table.wins, table.ties, table.losses) == (3, 2, 1)
    assert (counted.both_bad, counted.raters, counted.first_won, counted.ordered) == (1, 2, 2, 4)
    everything = "".join(path.read_text() for path in out.iterdir() if path.suffix == ".jsonl")
    assert '"U1"' not in everything
    assert "question 0" in everything
    again = await in_a_shell(command, **told)
    assert again.out == ran.out
    await stores.history.forget(PLACE, "U2")
    fresh = await in_a_shell(f"{command}-later", **told)
    assert fresh.status == 0, fresh.err
    (judged,) = recount(Record.read(Path(f"{out}-later"))).judged
    assert judged.count.raters == 1  # the vote of a forgotten person does not count
    other = await in_a_shell("henji compare new third --from-channel slack:T1:C1", **told)
    assert (other.status, "votes on new and old" in other.err) == (1, True)
    same = await in_a_shell("henji compare new new --from-channel slack:T1:C1", **told)
    assert same.status == 2
