"""The page on which people judge, in a real browser and over HTTP."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bots.strings import say
from core.evaluation.comparison import Say, recount
from core.evaluation.people_page import CONFIG, PeoplePage, serving
from core.evaluation.prompts import Language
from core.evaluation.run_record import Record
from tests.chromium import Browser, browsing, needs_chromium
from tests.comparisons import JAPANESE, compared


def words(language: Language) -> Say:
    def in_language(key: str, **values: Any) -> str:
        return say(key, language, **values)

    return in_language


@dataclass
class Scene:
    """A page that is served, and its record."""

    record: Record
    links: dict[str, str]

    def winners(self, rater: str = "P1") -> dict[str, str]:
        said = self.record.verdicts_of(CONFIG.name)
        return {s.verdict.prompt: s.verdict.winner for s in said if s.verdict.rater == rater}


@asynccontextmanager
async def judging(
    directory: Path, raters: tuple[str, ...] = ("P1",), pairs: Any = JAPANESE
) -> AsyncIterator[Scene]:
    with compared(directory, pairs) as record:
        record.begin_judge(CONFIG)
        async with serving(PeoplePage(record, raters, words), 0) as links:
            yield Scene(record, links)


@dataclass
class Rater:
    """A person with a browser that is no more than HTTP."""

    http: aiohttp.ClientSession
    link: str
    page: str = ""

    async def look(self) -> str:
        async with self.http.get(self.link) as response:
            assert response.status == 200
            self.page = await response.text()
        return self.page

    async def send(self, path: str, **form: str) -> str:
        async with self.http.post(self.link + path, data=form) as response:
            assert response.status == 200
            self.page = await response.text()
        return self.page

    async def vote(self, vote: str) -> str:
        return await self.send("vote", pair=self.pair, vote=vote)

    @property
    def pair(self) -> str:
        found = re.search(r'name="pair" value="(\d+)"', self.page)
        assert found
        return found[1]

    def shown(self) -> list[str]:
        """The prompt and the two answers."""
        return re.findall(r'class="(?:said|empty)">(.*?)</div>', self.page, re.DOTALL)


@asynccontextmanager
async def person(link: str, language: str = "en") -> AsyncIterator[Rater]:
    headers = {"Accept-Language": language}
    async with aiohttp.ClientSession(headers=headers) as http:
        rater = Rater(http, link)
        await rater.look()
        yield rater


# -- in a real browser ---------------------------------------------------------------------------


@needs_chromium
async def test_a_person_judges_all_pairs_with_the_keyboard_alone(tmp_path: Path) -> None:
    async with judging(tmp_path) as scene, browsing() as browser:
        await browser.open(scene.links["P1"])
        for key, done in (("1", 1), ("2", 2), ("4", 3)):
            await browser.press(key)
            shown = f"document.body.innerText.includes('{done} of 3')"
            last = "document.body.innerText.includes('the last pair of 3')"
            await browser.see(shown if done < 3 else last)
        assert sorted(scene.winners()) == ["1", "2", "3"]
        first, second, third = scene.record.verdicts_of(CONFIG.name)
        assert first.verdict.winner == first.verdict.first
        assert second.verdict.winner not in (second.verdict.first, "tie")
        assert third.verdict.winner == "both bad"
        assert browser.complaints == []
        assert all(url.startswith(("http://127.0.0.1:", "data:")) for url in browser.requests)


@needs_chromium
async def test_the_key_u_brings_the_last_pair_back(tmp_path: Path) -> None:
    async with judging(tmp_path) as scene, browsing() as browser:
        await browser.open(scene.links["P1"])
        before = await browser.run("document.querySelector('main section').innerText")
        await browser.press("3")
        await browser.see("document.body.innerText.includes('1 of 3')")
        await browser.press("u")
        await browser.see("document.body.innerText.includes('0 of 3')")
        assert await browser.run("document.querySelector('main section').innerText") == before
        assert scene.winners() == {}


@needs_chromium
async def test_the_page_needs_no_script_and_is_reached_by_tab(tmp_path: Path) -> None:
    async with judging(tmp_path) as scene, browsing() as browser:
        await browser.send("Emulation.setScriptExecutionDisabled", value=True)
        await browser.open(scene.links["P1"])
        await browser.press("Tab")
        await browser.press("Tab")
        await browser.press("Enter")  # the second button
        await browser.see("document.body.innerText.includes('1 of 3')")
        (said,) = scene.record.verdicts_of(CONFIG.name)
        assert said.verdict.winner not in (said.verdict.first, "tie")


@needs_chromium
@pytest.mark.parametrize("width", [320, 400, 1400])
async def test_nothing_is_wider_than_the_screen_and_every_button_is_in_view(
    tmp_path: Path, width: int
) -> None:
    long = [("w" * 300, "https://example.com/" + "x" * 400, "長い" * 2000)]
    async with judging(tmp_path, pairs=long) as scene, browsing() as browser:
        await browser.look(width, 800, "light")
        await browser.open(scene.links["P1"])
        assert await browser.run("document.documentElement.scrollWidth") <= width
        assert await browser.run(BUTTONS_IN_VIEW) == 5


BUTTONS_IN_VIEW = """
[...document.querySelectorAll("button")].filter(button => {
  const box = button.getBoundingClientRect();
  return box.height >= 44 && box.top >= 0 && box.bottom <= innerHeight;
}).length
"""
"""How many buttons are seen without scrolling, and are big enough for a finger."""


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_stands_out_from_its_background(tmp_path: Path, scheme: Any) -> None:
    async with judging(tmp_path) as scene, browsing() as browser:
        await browser.look(400, 800, scheme)
        await browser.open(scene.links["P1"])
        await faint_texts_are_none(browser)


async def faint_texts_are_none(browser: Browser) -> None:
    """WCAG's 4.5 to 1, for each element that has text of its own."""
    assert await browser.run(FAINT) == []


FAINT = """
(() => {
  const light = color => color.match(/[\\d.]+/g).slice(0, 3).map(Number).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (!color.endsWith(", 0)")) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const own = element => [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  return [...document.body.querySelectorAll("*")]
    .filter(e => !e.closest("script, style") && own(e) && e.getClientRects().length)
    .filter(e => {
      const pair = [light(getComputedStyle(e).color), light(behind(e))].sort((a, b) => b - a);
      return (pair[0] + 0.05) / (pair[1] + 0.05) < 4.5;
    })
    .map(e => e.className + ": " + e.textContent.trim().slice(0, 40));
})()
"""


# -- over HTTP -----------------------------------------------------------------------------------


async def test_the_page_names_no_model_and_shows_answers_as_text(tmp_path: Path) -> None:
    async with judging(tmp_path) as scene, person(scene.links["P1"]) as rater:
        pages = [await rater.look(), *[await rater.vote("tie") for _ in JAPANESE]]
        whole = "".join(pages)
        assert "rinna" not in whole
        assert "&lt;b&gt;はい&lt;/b&gt;" in whole
        assert "<b>" not in whole
        assert say("page_empty_answer", "en") in whole
        assert say("page_done", "en", total=3) in pages[-1]


async def test_each_rater_has_an_order_of_their_own_which_stays(tmp_path: Path) -> None:
    many = [(f"Question {n}?", f"A says {n}.", f"B says {n}.") for n in range(30)]

    async def order(link: str) -> list[list[str]]:
        seen = []
        async with person(link) as rater:
            for _ in many:
                seen.append(rater.shown())
                await rater.vote("tie")
        return seen

    async with judging(tmp_path / "1", ("P1", "P2"), many) as scene:
        one, other = await order(scene.links["P1"]), await order(scene.links["P2"])
    assert [prompt for prompt, *_ in one] != [prompt for prompt, *_ in other]
    assert {prompt for prompt, *_ in one} == {prompt for prompt, *_ in other}
    a_first = sum(left.startswith("A") for _, left, _ in one)
    assert 5 <= a_first <= 25
    first = {said.verdict.prompt: said.verdict.first for said in said_by(scene.record, "P1")}
    assert sum(side == "a" for side in first.values()) == a_first
    async with judging(tmp_path / "2", ("P1", "P2"), many) as scene:
        assert await order(scene.links["P1"]) != one  # another secret


def said_by(record: Record, rater: str) -> list[Any]:
    return [said for said in record.verdicts_of(CONFIG.name) if said.verdict.rater == rater]


async def test_a_page_left_half_done_goes_on_under_the_same_link(tmp_path: Path) -> None:
    async with judging(tmp_path) as scene, person(scene.links["P1"]) as rater:
        await rater.vote("left")
        left_at, path = rater.shown(), scene.links["P1"].partition("//")[2].partition("/")[2]
    async with judging(tmp_path) as scene, person(scene.links["P1"]) as rater:
        assert scene.links["P1"].endswith(path)
        assert rater.shown() == left_at
        assert len(scene.winners()) == 1


async def test_two_people_with_one_link_do_not_vote_twice_on_a_pair(tmp_path: Path) -> None:
    async with (
        judging(tmp_path) as scene,
        person(scene.links["P1"]) as one,
        person(scene.links["P1"]) as other,
    ):
        await one.vote("left")
        kept = scene.winners()
        page = await other.vote("right")
        assert say("page_taken", "en") in page
        assert scene.winners() == kept
        assert other.shown() == one.shown()


async def test_undo_takes_back_ones_own_last_vote_only(tmp_path: Path) -> None:
    async with (
        judging(tmp_path, ("P1", "P2")) as scene,
        person(scene.links["P1"]) as one,
        person(scene.links["P2"]) as other,
    ):
        await one.vote("left")
        await one.vote("right")
        await other.vote("tie")
        assert say("page_undone", "en") in await one.send("undo")
        assert (len(scene.winners("P1")), len(scene.winners("P2"))) == (1, 1)
        await one.send("undo")
        assert say("page_nothing_to_undo", "en") in await one.send("undo")
        assert Record.read(tmp_path).verdicts.keys() == scene.record.verdicts.keys()


async def test_an_answer_that_names_its_model_is_marked_and_told_in_the_table(
    tmp_path: Path,
) -> None:
    pairs = [
        ("あなたは誰ですか?", "私はrinnaが作ったモデルです。", "AIです。"),
        ("What is ChatGPT?", "ChatGPT is a chat bot.", "A chat bot."),
    ]
    async with judging(tmp_path, pairs=pairs) as scene, person(scene.links["P1"]) as rater:
        marked = []
        for _ in pairs:
            marked.append(say("page_not_blind", "en") in rater.page)
            await rater.vote("left")
        assert sorted(marked) == [False, True]
        (judged,) = recount(scene.record).judged
        assert judged.count.not_blind == 1
        assert judged.count.blind is not None
        assert judged.count.blind.table.total == 1


async def test_the_page_speaks_the_language_of_the_browser(tmp_path: Path) -> None:
    async with judging(tmp_path) as scene:
        for language in ("ja", "en"):
            async with person(scene.links["P1"], f"{language}-XX,fr;q=0.5") as rater:
                assert say("page_title", language) in rater.page
                assert f'<html lang="{language}">' in rater.page


@pytest.mark.parametrize(
    "change",
    [
        lambda link: link.replace("/", "/x", 3),
        lambda link: link[:-3] + "/",
        lambda link: link[: link.index("/", 8)] + "/",
    ],
    ids=["another token", "half a token", "none"],
)
async def test_without_the_token_there_is_no_page(
    tmp_path: Path, change: Callable[[str], str]
) -> None:
    async with judging(tmp_path) as scene, aiohttp.ClientSession() as http:
        wrong = change(scene.links["P1"].replace("http://", "http:||"))
        async with http.get(wrong.replace("http:||", "http://")) as response:
            assert response.status == 404
            assert JAPANESE[0][0] not in await response.text()


@pytest.mark.parametrize(
    "form",
    [{}, {"pair": "0"}, {"pair": "0", "vote": "a"}, {"pair": "9", "vote": "left"},
     {"pair": "-1", "vote": "left"}, {"pair": "٣", "vote": "left"}, {"vote": "left"}],
)  # fmt: skip
async def test_a_form_that_the_page_did_not_make_is_no_vote(
    tmp_path: Path, form: dict[str, str]
) -> None:
    async with judging(tmp_path) as scene, aiohttp.ClientSession() as http:
        async with http.post(scene.links["P1"] + "vote", data=form) as response:
            assert response.status == 400
        assert scene.winners() == {}


async def test_the_address_goes_to_no_other_site_and_into_no_cache(tmp_path: Path) -> None:
    async with judging(tmp_path) as scene, aiohttp.ClientSession() as http:
        async with http.get(scene.links["P1"]) as response:
            assert response.headers["Referrer-Policy"] == "no-referrer"
            assert response.headers["Cache-Control"] == "no-store"
            assert response.headers["X-Frame-Options"] == "DENY"
            page = await response.text()
        assert scene.links["P1"].startswith("http://127.0.0.1:")
        assert not re.search(r"""(?:src|href)=["'](?!data:)""", page)
