"""Judges: a chat model behind a server, rules, and judges that do not work."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from core.errors import OperatorError
from core.evaluation import judges
from core.evaluation.comparison import recount
from core.evaluation.judges import (
    RULES,
    JudgeServer,
    ServerJudge,
    better,
    judge_by_score,
    judge_by_server,
    read_verdict,
)
from core.evaluation.prompts import Prompt
from core.evaluation.run_record import JudgeConfig, Record
from core.evaluation.statistics import Table
from tests.comparisons import JAPANESE, compared, prompt

CONFIG = JudgeConfig("server:test", "server", both_orders=True)


def ignore(done: int, total: int) -> None:
    """Nobody watches the progress."""


@dataclass
class Server:
    """An OpenAI-compatible server; `judge` makes its words of the two answers."""

    judge: Callable[[str, str], str] = lambda a, b: "[[A]]" if len(a) > len(b) else "[[B]]"
    failures: list[int] = field(default_factory=list)
    """Statuses of the next requests."""
    raw: str | None = None
    """The body that is sent instead of a completion."""
    stalls: bool = False
    together: asyncio.Barrier | None = None
    """Answers only when so many have asked."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    busy: int = 0
    most: int = 0

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "judge-70b"}]})

    async def completions(self, request: web.Request) -> web.Response:
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            return await self._answer(request)
        finally:
            self.busy -= 1

    async def _answer(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.requests.append(asked)
        self.keys.append(request.headers.get("Authorization"))
        if self.together:
            await self.together.wait()
        if self.stalls:
            await asyncio.Event().wait()
        if self.failures:
            return web.json_response({"error": {"message": "go away"}}, status=self.failures.pop(0))
        if self.raw is not None:
            return web.Response(text=self.raw)
        text = self.judge(*answers_in(asked["messages"][-1]["content"]))
        message = {"role": "assistant", "content": text}
        return web.json_response({"choices": [{"index": 0, "message": message}]})


def answers_in(question: str) -> tuple[str, str]:
    ja, en = (
        r"【回答{0}】\n(.*?)\n【回答{0}の終わり】",
        r"\[Answer {0}\]\n(.*?)\n\[End of answer {0}\]",
    )
    form = ja if "【回答A】" in question else en
    found = [re.search(form.format(side), question, re.DOTALL) for side in "AB"]
    return tuple(match[1] for match in found if match)  # type: ignore[return-value]  # two


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/v1/models", server.models)
    app.router.add_post("/v1/chat/completions", server.completions)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def judge_all(record: Record, server: Server, **options: Any) -> None:
    async with serving(server) as url:
        judge = await ServerJudge.open(JudgeServer(url, **options))
        try:
            await judge_by_server(record, CONFIG, judge, ignore)
        finally:
            await judge.close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "_FIRST_PAUSE", 0.001)


# -- a server ------------------------------------------------------------------------------------


async def test_a_server_judges_each_pair_in_both_orders(tmp_path: Path) -> None:
    server = Server()
    with compared(tmp_path, JAPANESE) as record:
        record.begin_judge(CONFIG)
        await judge_all(record, server, key="sk-judge")
        (judged,) = recount(record).judged
    assert judged.count.whole.table == Table(3, 0, 0)
    assert (judged.count.contradictions, judged.count.first_won) == (0, 3)
    assert len(server.requests) == 6
    assert set(server.keys) == {"Bearer sk-judge"}
    for asked in server.requests:
        assert (asked["model"], asked["temperature"]) == ("judge-70b", 0)
    shown = {answers_in(asked["messages"][-1]["content"]) for asked in server.requests}
    _, a, b = JAPANESE[0]
    assert {(a, b), (b, a)} <= shown


async def test_the_judge_is_asked_in_the_language_of_the_prompt(tmp_path: Path) -> None:
    server = Server()
    pairs = [("時間とは?", "長い答え", "答え"), ("What is time?", "A long answer", "Short")]
    with compared(tmp_path, pairs) as record:
        await judge_all(record, server)
    told = {asked["messages"][0]["content"] for asked in server.requests}
    assert told == {judges.PROMPTS["ja"][0], judges.PROMPTS["en"][0]}
    for asked in server.requests:
        japanese = "時間" in asked["messages"][1]["content"]
        assert ("公平な審判" in asked["messages"][0]["content"]) == japanese


async def test_a_prompt_with_braces_is_only_text(tmp_path: Path) -> None:
    server = Server()
    with compared(tmp_path, [("{first} {0} {}", "{prompt}", "{second}{}{")]) as record:
        await judge_all(record, server)
    shown = {answers_in(asked["messages"][-1]["content"]) for asked in server.requests}
    assert shown == {("{prompt}", "{second}{}{"), ("{second}{}{", "{prompt}")}


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("Answer A is right. [[A]]", "first"),
        ("理由:回答Bが正しい。\n［［Ｂ］］", "second"),
        ("[[ C ]]", "tie"),
        ("It is [[A]], [[B]] or [[C]]. My verdict: [[B]]", "second"),
        ("<think>Surely [[A]]</think>Both fine. [[C]]", "tie"),
        (" B\n", "second"),
        ("<think>[[A]]</think>", "unreadable"),
        ("I think that answer A is the better one.", "unreadable"),
        ("", "unreadable"),
        ("[A]", "unreadable"),
        ("[[D]]", "unreadable"),
    ],
)
def test_a_verdict_is_the_last_that_the_judge_writes(words: str, place: str) -> None:
    assert read_verdict(words) == place


async def test_a_judge_that_answers_in_prose_is_counted_as_unreadable(tmp_path: Path) -> None:
    server = Server(lambda a, b: "Both have their merits, as an impartial judge must say.")
    with compared(tmp_path, JAPANESE) as record:
        record.begin_judge(CONFIG)
        await judge_all(record, server)
        (judged,) = recount(record).judged
    assert judged.count.unreadable == 6
    assert judged.count.whole.table == Table(0, 0, 0)
    assert judged.pairs == 3


async def test_a_judge_that_is_busy_for_a_while_is_asked_again(tmp_path: Path) -> None:
    server = Server(failures=[503, 429, 500])
    with compared(tmp_path, JAPANESE[:1]) as record:
        await judge_all(record, server)
        assert len(record.verdicts) == 2


async def test_four_questions_are_asked_at_once_and_no_more(tmp_path: Path) -> None:
    server = Server(together=asyncio.Barrier(4))
    pairs = [(f"Question {n}?", "long answer", "short") for n in range(12)]
    with compared(tmp_path, pairs) as record:
        await judge_all(record, server)
    assert server.most == 4


@pytest.mark.parametrize(
    ("server", "sentence"),
    [
        (Server(failures=[503] * 100), "status 503: .*go away"),
        (Server(failures=[401] * 100), "status 401: .*go away"),
        (Server(raw="<html>What?</html>"), "it does not speak JSON: '<html>What"),
        (Server(raw="[" * 100_000), "it does not speak JSON"),
        (Server(raw="{}"), "its answer is not a chat completion"),
        (Server(raw='{"choices": []}'), "its answer is not a chat completion"),
        (Server(raw=" " * (2 << 20)), "its answer is longer than 1048576 bytes"),
        (Server(stalls=True), "it was silent for 0.05 seconds"),
    ],
    ids=["away", "rude", "no JSON", "deep JSON", "no completion", "no choice", "endless", "slow"],
)
async def test_a_judge_that_cannot_judge_ends_the_run_with_one_sentence(
    tmp_path: Path, server: Server, sentence: str
) -> None:
    with compared(tmp_path, JAPANESE) as record:
        with pytest.raises(OperatorError, match=sentence):
            await judge_all(record, server, silence=0.05 if server.stalls else 20)
        assert record.verdicts == {}


async def test_a_judge_that_is_not_there_is_named_without_its_password() -> None:
    server = JudgeServer("http://me:secret@127.0.0.1:9/v1")
    with pytest.raises(OperatorError, match=r"the judge at http://127\.0\.0\.1:9/v1: ") as caught:
        await ServerJudge.open(server)
    assert "secret" not in str(caught.value)


async def test_a_key_that_a_judge_repeats_is_told_to_nobody(tmp_path: Path) -> None:
    key = "sk-open-sesame-1001"
    for server in (Server(raw=f"who is {key}?"), Server(raw=" " * 70 + key)):
        with compared(tmp_path, JAPANESE) as record, pytest.raises(OperatorError) as caught:
            await judge_all(record, server, key=key)
        assert "sk-open" not in str(caught.value)


async def test_an_interrupted_run_asks_only_for_missing_verdicts(tmp_path: Path) -> None:
    broken = Server(failures=[401])
    pairs = [(f"Question {n}?", "long answer", "short") for n in range(5)]
    asked = 0
    with compared(tmp_path, pairs) as record:
        record.begin_judge(CONFIG)
        with pytest.raises(OperatorError):
            await judge_all(record, broken)
        asked = len(record.verdicts)
    with compared(tmp_path, pairs) as record:
        server = Server()
        await judge_all(record, server)
        assert len(server.requests) == 10 - asked
        assert recount(record).judged[0].count.whole.table == Table(5, 0, 0)


# -- rules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "worse", "better_one"),
    [
        ("shorter", "long words", "short"),
        ("longer", "short", "long words"),
        ("short-words", "considerable deliberation", "a cat sat on it"),
        ("short-words", "", "word"),
        ("same-language", "The highest is Mount Fuji.", "富士山です。"),
        ("polite", "富士山だよ。", "富士山です。高いですよ。"),
        ("no-loop", "時間を大切にします。" * 40, "時間を大切にします。"),
        ("list", "まず歩く。次に走る。", "1. 歩く\n2. 走る"),
    ],
)
def test_a_rule_prefers_the_answer_that_follows_it(rule: str, worse: str, better_one: str) -> None:
    asked = prompt("1", "日本で一番高い山は?")
    assert RULES[rule](asked, better_one) > RULES[rule](asked, worse)


def test_the_higher_score_wins_and_a_score_that_is_no_number_is_unreadable() -> None:
    assert [better((1, 0)), better((0, 1)), better((1, 1))] == ["a", "b", "tie"]
    assert better((float("nan"), 1)) == "unreadable"


def test_a_rule_judges_every_pair_once_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    asked = []

    def shorter(prompt: Prompt, text: str) -> float:
        asked.append(text)
        return -len(text)

    config = JudgeConfig("rule:shorter", "rule", both_orders=False)
    with compared(tmp_path, JAPANESE) as record:
        record.begin_judge(config)
        judge_by_score(record, config, shorter, ignore)
        judge_by_score(record, config, shorter, ignore)
        (judged,) = recount(record).judged
    assert judged.count.whole.table == Table(0, 0, 3)
    assert judged.count.ordered == 0
    assert len(asked) == 6
