"""A page on which people judge pairs of answers, blind: server-rendered, on this machine alone.

Each rater has a link with a token, and a separate order of the prompts and of the two
answers, which the comparison's secret draws.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

from aiohttp import web

from core.errors import OperatorError
from core.evaluation.comparison import Say, find_named
from core.evaluation.judges import answered, other
from core.evaluation.prompts import Answer, Language, Prompt, main_language
from core.evaluation.report import asset
from core.evaluation.run_record import JudgeConfig, Record, StoredVerdict
from core.evaluation.statistics import Side, Verdict, Winner

CONFIG = JudgeConfig("people", "people", both_orders=False)

Words: TypeAlias = Callable[[Language], Say]
"""The sentences in a language."""

_VOTES = ("left", "right", "tie", "both_bad")
"""In the order of their keys, 1 to 4."""
_NOTICES = ("taken", "undone", "nothing_to_undo")


@dataclass(frozen=True, slots=True)
class Task:
    """One pair, as one rater sees it."""

    prompt: Prompt
    left: Side
    answers: tuple[Answer, Answer]
    """On the left, on the right."""


class PeoplePage:
    """The page of a comparison. It records each verdict at once."""

    def __init__(
        self,
        record: Record,
        raters: Sequence[str],
        words: Words,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._record = record
        self._words = words
        self._progress = progress
        self._named = find_named(record)
        self._raters = {_drawn(record.secret, "link", rater)[:24]: rater for rater in raters}
        self._tasks = {rater: _tasks(record, rater) for rater in raters}

    def paths(self) -> dict[str, str]:
        """The path of each rater's page."""
        return {rater: f"/{token}/" for token, rater in self._raters.items()}

    def application(self) -> web.Application:
        app = web.Application(client_max_size=4096, middlewares=[_with_headers])
        app.add_routes(
            [
                web.get("/{token}/", self._show),
                web.post("/{token}/vote", self._vote),
                web.post("/{token}/undo", self._undo),
                web.get("/{rest:.*}", self._unknown),
            ]
        )
        return app

    # -- what a rater asks for ------------------------------------------------------------------

    async def _show(self, request: web.Request) -> web.Response:
        rater = self._raters.get(request.match_info["token"])
        if rater is None:
            return await self._unknown(request)
        language = self._language(request)
        say, notice = self._words(language), request.query.get("notice", "")
        told = say(f"page_{notice}") if notice in _NOTICES else ""
        place = self._next(rater)
        if place is None:
            body = _thanks(say, len(self._tasks[rater]), told)
        else:
            body = self._task_page(say, rater, place, told)
        return _html(_document(say, language, body))

    async def _vote(self, request: web.Request) -> web.Response:
        rater = self._raters.get(request.match_info["token"])
        if rater is None:
            return await self._unknown(request)
        form = await request.post()
        vote, tasks = form.get("vote"), self._tasks[rater]
        place = _place(form.get("pair"), len(tasks))
        if vote not in _VOTES or place is None:
            raise web.HTTPBadRequest
        if (rater, tasks[place].prompt.id) in self._known():
            raise web.HTTPSeeOther("./?notice=taken")
        self._keep(rater, tasks[place], str(vote))
        raise web.HTTPSeeOther("./")

    async def _undo(self, request: web.Request) -> web.Response:
        rater = self._raters.get(request.match_info["token"])
        if rater is None:
            return await self._unknown(request)
        own = [s for s in self._record.verdicts_of(CONFIG.name) if s.verdict.rater == rater]
        if not own:
            raise web.HTTPSeeOther("./?notice=nothing_to_undo")
        self._record.withdraw(own[-1])
        self._tell()
        raise web.HTTPSeeOther("./?notice=undone")

    async def _unknown(self, request: web.Request) -> web.Response:
        language = self._language(request)
        say = self._words(language)
        body = f'<main><div class="thanks"><p>{escape(say("page_unknown"))}</p></div></main>'
        return _html(_document(say, language, body), status=404)

    # -- the verdicts ---------------------------------------------------------------------------

    def _keep(self, rater: str, task: Task, vote: str) -> None:
        right = other(task.left)
        winners: dict[str, Winner] = {
            "left": task.left,
            "right": right,
            "tie": "tie",
            "both_bad": "both bad",
        }
        verdict = Verdict(task.prompt.id, winners[vote], task.left, rater)
        self._record.add_verdict(StoredVerdict(CONFIG.name, verdict, time.time()))
        self._tell()

    def _known(self) -> set[tuple[str, str]]:
        said = self._record.verdicts_of(CONFIG.name)
        return {(one.verdict.rater, one.verdict.prompt) for one in said}

    def _next(self, rater: str) -> int | None:
        """The first pair in a rater's order that they have not judged."""
        known = self._known()
        tasks = enumerate(self._tasks[rater])
        return next((n for n, task in tasks if (rater, task.prompt.id) not in known), None)

    def _done(self, rater: str) -> int:
        known = self._known()
        return sum((rater, task.prompt.id) in known for task in self._tasks[rater])

    def _tell(self) -> None:
        self._progress(
            sum(map(self._done, self._tasks)), sum(len(tasks) for tasks in self._tasks.values())
        )

    # -- what it looks like ---------------------------------------------------------------------

    def _language(self, request: web.Request) -> Language:
        """The browser's first language, or else that of the prompts."""
        wanted = request.headers.get("Accept-Language", "").strip().lower()
        if not wanted:
            return main_language(self._record.prompts)
        return "ja" if wanted.startswith("ja") else "en"

    def _task_page(self, say: Say, rater: str, place: int, notice: str) -> str:
        tasks = self._tasks[rater]
        task, done = tasks[place], self._done(rater)
        notices = [notice] if notice else []
        if task.prompt.id in self._named:
            notices.append(say("page_not_blind"))
        told = "".join(f'<p class="notice" role="status">{escape(one)}</p>' for one in notices)
        language = task.prompt.language
        answers = "".join(
            _card(say(f"page_answer_{side}"), _said(say, answer.text), language)
            for side, answer in zip(("left", "right"), task.answers, strict=True)
        )
        return (
            f"<header><h1>{escape(say('page_title'))}</h1>"
            f"{_progress(say, done, len(tasks))}</header>"
            f"<main>{told}{_card(say('page_prompt'), _said(say, task.prompt.text), language)}"
            f'<div class="answers">{answers}</div></main>'
            f"<footer>{_votes(say, place)}{_below(say)}</footer>"
        )


# -- the draw ------------------------------------------------------------------------------------


def _tasks(record: Record, rater: str) -> list[Task]:
    """All pairs, in a rater's own order."""
    tasks = []
    for prompt, pair in answered(record):
        heads = int(_drawn(record.secret, "side", rater, prompt.id), 16) % 2
        left: Side = "a" if heads else "b"
        tasks.append(Task(prompt, left, pair if left == "a" else (pair[1], pair[0])))
    return sorted(tasks, key=lambda task: _drawn(record.secret, "order", rater, task.prompt.id))


def _drawn(secret: str, *words: str) -> str:
    """Hexadecimal digits that cannot be predicted without the secret."""
    told = "\0".join(words).encode()
    return hmac.new(secret.encode(), told, hashlib.sha256).hexdigest()


def _place(given: object, total: int) -> int | None:
    """The pair in a form."""
    if isinstance(given, str) and given.isascii() and given.isdecimal() and len(given) < 9:
        return int(given) if int(given) < total else None
    return None


# -- HTML ----------------------------------------------------------------------------------------


def _document(say: Say, language: Language, body: str) -> str:
    nonce = secrets.token_urlsafe(12)
    style, script = asset("colors.css") + asset("people.css"), asset("people.js")
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
        "img-src data:; form-action 'self'; base-uri 'none'"
    )
    return (
        f'<!doctype html><html lang="{language}"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(say('page_title'))}</title>"
        f'<style nonce="{nonce}">{style}</style></head><body>{body}'
        f'<script nonce="{nonce}">{script}</script></body></html>'
    )


def _card(heading: str, said: str, language: str) -> str:
    return f'<section><h2>{escape(heading)}</h2><div lang="{language}">{said}</div></section>'


def _said(say: Say, text: str) -> str:
    if not text.strip():
        return f'<div class="empty">{escape(say("page_empty_answer"))}</div>'
    return f'<div class="said">{escape(text.strip())}</div>'


def _progress(say: Say, done: int, total: int) -> str:
    words = escape(say("page_progress", done=done, total=total))
    return (
        f'<div class="progress"><span>{words}</span>'
        f'<progress max="{total}" value="{done}" aria-label="{words}"></progress></div>'
    )


def _votes(say: Say, place: int) -> str:
    buttons = "".join(
        f'<button name="vote" value="{vote}" data-key="{key}"><kbd>{key}</kbd>'
        f"<span>{escape(say(f'page_{vote}'))}</span></button>"
        for key, vote in enumerate(_VOTES, 1)
    )
    return (
        f'<form method="post" action="vote"><input type="hidden" name="pair" value="{place}">'
        f'<div class="votes">{buttons}</div></form>'
    )


def _below(say: Say) -> str:
    return (
        f'<div class="below"><p class="keys">{escape(say("page_keys"))}</p>{_undo_form(say)}</div>'
    )


def _undo_form(say: Say) -> str:
    return (
        '<form method="post" action="undo"><button data-key="u"><kbd>U</kbd>'
        f"<span>{escape(say('page_undo'))}</span></button></form>"
    )


def _thanks(say: Say, total: int, notice: str) -> str:
    told = f'<p class="notice" role="status">{escape(notice)}</p>' if notice else ""
    return (
        f'<main>{told}<div class="thanks"><h1>{escape(say("page_done_title"))}</h1>'
        f"<p>{escape(say('page_done', total=total))}</p>{_undo_form(say)}</div></main>"
    )


def _html(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, content_type="text/html", charset="utf-8", status=status)


_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@web.middleware
async def _with_headers(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Keep the address, which has a token, from other sites and caches."""
    try:
        response = await handler(request)
    except web.HTTPException as other_page:
        other_page.headers.update(_HEADERS)
        raise
    response.headers.update(_HEADERS)
    return response


@asynccontextmanager
async def serving(page: PeoplePage, port: int) -> AsyncIterator[dict[str, str]]:
    """The page on 127.0.0.1, at a free port if `port` is 0; yields each rater's link.

    OperatorError if the port is taken.
    """
    runner = web.AppRunner(page.application(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        try:
            await site.start()
        except OSError as error:
            raise OperatorError(f"the port {port} cannot be used: {error.strerror}") from None
        here = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield {rater: here + path for rater, path in page.paths().items()}
    finally:
        await runner.cleanup()
