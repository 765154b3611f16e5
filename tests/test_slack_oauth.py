"""The app in several workspaces: installed by OAuth, its tokens rotated, taken out again."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from html import unescape
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from redis.asyncio import Redis

from bots.slack.installations import Installations, States
from tests.slack_house import SlackHouse, slack_house
from tests.storehouse import Storehouse
from tests.waiting import until

BOT = "<@U0HENJI>"


@pytest.fixture
async def house(redis: Redis) -> AsyncIterator[SlackHouse]:
    """With an adapter that has no token of its own."""
    async with slack_house(redis) as house:
        client, secret = house.slack.client
        house.settings |= {"slack_client_id": client, "slack_client_secret": secret}
        house.settings |= {"slack_bot_token": None, "slack_app_token": None}
        await house.core()
        await house.http_adapter()
        yield house
        assert house.slack.workspace.violations == []


async def install(house: SlackHouse, code: str) -> int:
    """What an admin's browser does; the status of the last page."""
    base = str(house.slack.delivery.request_url).removesuffix("/slack/events")
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.get(f"{base}/slack/install") as page:
            cookies = {name: morsel.value for name, morsel in page.cookies.items()}
            [link] = re.findall(r'href="([^"]*oauth/v2/authorize[^"]*)"', await page.text())
        query = parse_qs(urlsplit(unescape(link)).query)
        answer = {"code": code, "state": query["state"][0]}
        url = f"{base}/slack/oauth_redirect"
        async with browser.get(url, params=answer, cookies=cookies) as page:
            return page.status


async def test_a_workspace_that_installs_the_app_is_answered(house: SlackHouse) -> None:
    slack = house.slack
    assert await install(house, slack.bot_token) == 200
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    await house.answered("C1", ts, "echo: hi")


async def test_a_token_that_is_about_to_expire_is_exchanged_first(house: SlackHouse) -> None:
    slack = house.slack
    app = slack.workspace.installations[slack.bot_token]
    app.refresh_token, app.expires_at = "xoxe-1", time.time() + 600
    assert await install(house, slack.bot_token) == 200
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    await house.answered("C1", ts, "echo: hi")
    assert app.token.startswith("xoxe.xoxb-")
    assert list(slack.workspace.installations) == [app.token]


async def test_an_installation_that_is_taken_out_is_forgotten(house: SlackHouse) -> None:
    slack = house.slack
    assert await install(house, slack.bot_token) == 200
    slack.event({"type": "app_uninstalled"})
    installations = Installations(house.storehouse().vault)

    async def gone() -> bool:
        team = slack.workspace.team
        return await installations.async_find_bot(enterprise_id=None, team_id=team) is None

    await until(gone)


async def test_a_shared_channel_is_answered_whichever_workspace_its_events_name(
    house: SlackHouse,
) -> None:
    slack = house.slack
    assert await install(house, slack.bot_token) == 200
    slack.named_team = "T0OTHER"
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    await house.answered("C1", ts, "echo: hi")


async def test_a_persons_token_that_is_revoked_takes_nothing_out(house: SlackHouse) -> None:
    slack = house.slack
    assert await install(house, slack.bot_token) == 200
    revoked = slack.event({"type": "tokens_revoked", "tokens": {"oauth": ["U1"], "bot": []}})
    await revoked.done.wait()
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    await house.answered("C1", ts, "echo: hi")
    slack.event({"type": "tokens_revoked", "tokens": {"oauth": [], "bot": [slack.bot_user]}})
    installations = Installations(house.storehouse().vault)

    async def gone() -> bool:
        team = slack.workspace.team
        return await installations.async_find_bot(enterprise_id=None, team_id=team) is None

    await until(gone)


async def test_a_workspace_without_an_installation_harms_nobody(house: SlackHouse) -> None:
    slack = house.slack
    await slack.say("C1", "U1", f"{BOT} hi")
    await slack.delivery.envelopes[0].done.wait()
    assert slack.called("chat.postMessage") == []


async def test_a_state_is_good_once(redis: Redis) -> None:
    states = States(Storehouse.over(redis).vault)
    state = await states.async_issue()
    assert await states.async_consume(state)
    assert not await states.async_consume(state)
    assert not await states.async_consume("never issued")
