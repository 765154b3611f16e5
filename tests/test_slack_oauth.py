"""The app in several workspaces: installed by OAuth, its tokens rotated, taken out again."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from slack_sdk.oauth.installation_store import Bot as InstalledBot
from structlog.testing import capture_logs

from bots.cli import doctor
from bots.slack import components
from bots.slack.app_home import FORGET_ME, RESET_CHANNEL
from bots.slack.manifest import RESET_SHORTCUT
from bots.slack.oauth import TEAMS, Installations, States
from bots.slack.settings import SlackSettings
from core.access_policy import Allowance, Policy
from core.errors import OperatorError
from tests.local_slack import LocalSlack
from tests.local_slack.deployment import SlackDeployment, slack_deployment
from tests.store_fixture import StoreFixture
from tests.waiting import until

BOT = "<@U0HENJI>"


@pytest.fixture
async def deployment(redis: Redis) -> AsyncIterator[SlackDeployment]:
    """With an adapter that has no token in its settings."""
    async with slack_deployment(redis) as deployment:
        by_oauth(deployment)
        await deployment.core()
        await deployment.http_adapter()
        yield deployment
        assert deployment.slack.workspace.violations == []


async def install(deployment: SlackDeployment, code: str) -> int:
    """What an admin's browser does; the status of the last page."""
    base = str(deployment.slack.delivery.request_url).removesuffix("/slack/events")
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.get(f"{base}/slack/install") as page:
            cookies = {name: morsel.value for name, morsel in page.cookies.items()}
            [link] = re.findall(r'href="([^"]*oauth/v2/authorize[^"]*)"', await page.text())
        query = parse_qs(urlsplit(unescape(link)).query)
        answer = {"code": code, "state": query["state"][0]}
        url = f"{base}/slack/oauth_redirect"
        async with browser.get(url, params=answer, cookies=cookies) as page:
            return page.status


async def test_a_workspace_that_installs_the_app_is_answered(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    assert await install(deployment, slack.bot_token) == 200
    await deployment.asks("hi")


async def test_an_expiring_token_is_rotated_before_use(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    app = slack.workspace.installations[slack.bot_token]
    app.refresh_token, app.expires_at = "xoxe-1", time.time() + 600
    assert await install(deployment, slack.bot_token) == 200
    await deployment.asks("hi")
    assert app.token.startswith("xoxe.xoxb-")
    assert list(slack.workspace.installations) == [app.token]


async def test_concurrent_calls_rotate_a_token_once(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    app = slack.workspace.installations[slack.bot_token]
    app.refresh_token, app.expires_at = "xoxe-1", time.time() + 600
    assert await install(deployment, slack.bot_token) == 200
    asked = [await slack.say("C1", "U1", f"{BOT} {n}") for n in range(5)]
    for n, ts in enumerate(asked):
        await deployment.answered("C1", ts, f"echo: {n}")
    exchanges = [c for c in slack.called("oauth.v2.access") if "refresh_token" in c.arguments]
    assert [c.error for c in exchanges] == [""]


async def test_each_workspace_is_answered_with_its_own_token(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    slack.install("T1OTHER", "xoxb-other")
    for token in (slack.bot_token, "xoxb-other"):
        assert await install(deployment, token) == 200
    slack.person("U8", "Other", team="T1OTHER")
    for team, user in ((slack.workspace.team, "U1"), ("T1OTHER", "U8")):
        slack.workspace.team = team
        ts = await slack.say(f"C{team}", user, f"{BOT} hi")
        await deployment.answered(f"C{team}", ts, "echo: hi")
    posts = slack.called("chat.postMessage")
    assert [(c.arguments["channel"], c.team) for c in posts] == [
        ("CT0HENJI", "T0HENJI"),
        ("CT1OTHER", "T1OTHER"),
    ]


async def test_an_uninstalled_workspace_is_forgotten(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    assert await install(deployment, slack.bot_token) == 200
    slack.event({"type": "app_uninstalled"})
    installations = Installations(deployment.stores().secrets)

    async def gone() -> bool:
        team = slack.workspace.team
        return await installations.async_find_bot(enterprise_id=None, team_id=team) is None

    await until(gone)


async def test_a_shared_channel_is_answered_whichever_workspace_its_events_name(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    assert await install(deployment, slack.bot_token) == 200
    slack.named_team = "T0OTHER"
    await deployment.asks("hi")


async def test_a_revoked_user_token_uninstalls_nothing(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    assert await install(deployment, slack.bot_token) == 200
    revoked = slack.event({"type": "tokens_revoked", "tokens": {"oauth": ["U1"], "bot": []}})
    await revoked.done.wait()
    await deployment.asks("hi")
    slack.event({"type": "tokens_revoked", "tokens": {"oauth": [], "bot": [slack.bot_user]}})
    installations = Installations(deployment.stores().secrets)

    async def gone() -> bool:
        team = slack.workspace.team
        return await installations.async_find_bot(enterprise_id=None, team_id=team) is None

    await until(gone)


async def test_events_of_an_unknown_workspace_are_ignored(deployment: SlackDeployment) -> None:
    slack = deployment.slack
    await slack.say("C1", "U1", f"{BOT} hi")
    await slack.delivery.envelopes[0].done.wait()
    assert slack.called("chat.postMessage") == []


# -- an organization that installs the app as a whole ---------------------------------------------


@pytest.fixture
async def organization(deployment: SlackDeployment) -> SlackDeployment:
    """Two workspaces of one organization, which installed the app."""
    deployment.slack.install_org_wide("E0OURS")
    assert await install(deployment, deployment.slack.bot_token) == 200
    return deployment


async def test_each_workspace_of_an_organization_has_its_own_threads(
    organization: SlackDeployment,
) -> None:
    slack = organization.slack
    for team in ("T0HENJI", "T0SISTER"):
        slack.workspace.team = team
        slack.person("U1", "花子", team=team, enterprise="E0OURS")
        ts = await slack.say(f"C{team}", "U1", f"{BOT} hi")
        reply = await organization.answered(f"C{team}", ts, "echo: hi")
        slack.press("U1", reply, components.REGENERATE)
        await slack.until(lambda reply=reply: reply.edits)
        turns = await organization.stores().history.turns(organization.key(f"C{team}", ts))
        assert [stored.turn.text for stored in turns] == ["hi", "echo: hi"]
    await slack.command("U1", "CT0SISTER", "ask how").done.wait()
    await slack.until(
        lambda: any(m.shown == "echo: how" for m in slack.workspace.messages.values())
    )


async def test_in_an_organization_a_colleague_is_no_stranger_and_a_stranger_is(
    organization: SlackDeployment,
) -> None:
    slack = organization.slack
    slack.person("U7", "Colleague", team="T0SISTER", enterprise="E0OURS", locale="en-US")
    slack.person("U8", "Stranger", team="T0OTHER", enterprise="E0OTHER", locale="en-US")
    slack.person("U9", "Stranger", team="T0ALONE", locale="en-US")
    ts = await slack.say("C1", "U7", f"{BOT} hi")
    await organization.answered("C1", ts, "echo: hi")
    for stranger in ("U8", "U9"):
        ts = await slack.say("C1", stranger, f"{BOT} hi")
        await slack.until(lambda stranger=stranger: slack.whispers(stranger))
        assert slack.replies("C1", ts) == []


async def test_the_home_page_and_its_modals_work_in_an_organization(
    organization: SlackDeployment,
) -> None:
    slack = organization.slack
    for user, name in (("U1", "花子"), ("UADMIN", "長谷川")):
        slack.person(user, name, admin=user == "UADMIN", enterprise="E0OURS")
    asked = [await slack.say("C1", "U1", f"{BOT} {text}") for text in ("one", "two")]
    keys = [organization.key("C1", ts) for ts in asked]
    for ts, text in zip(asked, ("one", "two"), strict=True):
        await organization.answered("C1", ts, f"echo: {text}")
    slack.open_home("UADMIN")
    await slack.until(lambda: RESET_CHANNEL in str(slack.workspace.views.get("UADMIN")))
    thread = slack.replies("C1", asked[0])[0]
    slack.shortcut("U1", RESET_SHORTCUT, thread)
    view = await slack.until(lambda: _modal(slack, "henji_confirm_reset"))
    slack.submit("U1", view, {})
    await slack.until(lambda: slack.whispers("U1"))
    assert await organization.stores().texts(keys[0]) == []
    slack.workspace.views.pop(view["id"])
    slack.press_home("UADMIN", RESET_CHANNEL)
    view = await slack.until(lambda: _modal(slack, "henji_confirm_reset"))
    slack.submit("UADMIN", view, {"what": {"what": {"selected_conversation": "C1"}}})
    await slack.until(lambda: "消しました" in str(slack.workspace.views["UADMIN"]))
    assert await organization.stores().texts(keys[1]) == []
    ts = await slack.say("C2", "U1", f"{BOT} three")
    await organization.answered("C2", ts, "echo: three")
    slack.open_home("U1")
    await slack.until(lambda: slack.workspace.views.get("U1"))
    slack.press_home("U1", FORGET_ME)
    await slack.until(lambda: "消しました" in str(slack.workspace.views["U1"]))
    assert await organization.stores().texts(organization.key("C2", ts)) == []


def _modal(slack: LocalSlack, callback: str) -> dict[str, Any] | None:
    views = slack.workspace.views.values()
    return next((view for view in views if view.get("callback_id") == callback), None)


async def test_an_organization_that_uninstalls_the_app_is_not_answered(
    organization: SlackDeployment,
) -> None:
    slack = organization.slack
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    await organization.answered("C1", ts, "echo: hi")
    await slack.event({"type": "app_uninstalled"}, event_time=int(time.time()) + 1).done.wait()
    installations = Installations(organization.stores().secrets)
    assert await installations.async_find_bot(enterprise_id="E0OURS", team_id=None) is None
    assert await installations.teams() == []


async def test_a_workspace_can_install_the_app_beside_its_organization(
    organization: SlackDeployment,
) -> None:
    slack = organization.slack
    ts = await slack.say("C1", "U1", f"{BOT} hi")
    await organization.answered("C1", ts, "echo: hi")
    slack.install("T0HENJI", "xoxb-own")
    assert await install(organization, "xoxb-own") == 200
    installations = Installations(organization.stores().secrets)
    assert await installations.organization_of("T0HENJI") == ""
    found = await installations.async_find_bot(enterprise_id=None, team_id="T0HENJI")
    assert found is not None
    assert found.bot_token == "xoxb-own"


async def test_an_organization_token_of_an_expiring_kind_is_rotated_once(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    slack.install_org_wide("E0OURS")
    app = slack.workspace.installations[slack.bot_token]
    app.refresh_token, app.expires_at = "xoxe-1", time.time() + 600
    assert await install(deployment, slack.bot_token) == 200
    asked = []
    for team in ("T0HENJI", "T0SISTER"):
        slack.workspace.team = team
        slack.person("U1", "花子", team=team, enterprise="E0OURS")
        asked.append((f"C{team}", await slack.say(f"C{team}", "U1", f"{BOT} hi")))
    for channel, ts in asked:
        await deployment.answered(channel, ts, "echo: hi")
    exchanges = [c for c in slack.called("oauth.v2.access") if "refresh_token" in c.arguments]
    assert [c.error for c in exchanges] == [""]


async def test_a_token_of_an_organization_serves_all_its_workspaces(redis: Redis) -> None:
    """By Socket Mode, without OAuth."""
    async with slack_deployment(redis) as deployment:
        slack = deployment.slack
        slack.install_org_wide("E0OURS")
        await deployment.core()
        await deployment.adapter()
        for team in ("T0HENJI", "T0SISTER"):
            slack.workspace.team = team
            slack.person("U1", "花子", team=team, enterprise="E0OURS")
            ts = await slack.say(f"C{team}", "U1", f"{BOT} hi")
            await deployment.answered(f"C{team}", ts, "echo: hi")
            key = deployment.key(f"C{team}", ts)
            assert len(await deployment.stores().history.turns(key)) == 2
        await deployment.at_rest()


async def test_a_person_of_an_organization_has_one_quota_in_all_its_workspaces(
    redis: Redis,
) -> None:
    async with slack_deployment(redis) as deployment:
        deployment.policy = Policy(person=Allowance(messages=1))
        slack = deployment.slack
        slack.install_org_wide("E0OURS")
        await deployment.core()
        await deployment.adapter()
        slack.person("W1", "花子", team="T0HENJI", enterprise="E0OURS")
        ts = await slack.say("C1", "W1", f"{BOT} hi")
        await deployment.answered("C1", ts, "echo: hi")
        slack.workspace.team = "T0SISTER"
        ts = await slack.say("C2", "W1", f"{BOT} hi")
        await slack.until(lambda: slack.whispers("W1"))
        assert slack.replies("C2", ts) == []


# -- faults, at the start and in henji doctor -----------------------------------------------------


async def test_a_workspace_that_uninstalled_the_app_offline_is_named(
    redis: Redis, redis_url: str
) -> None:
    async with slack_deployment(redis) as deployment:
        slack = deployment.slack
        settings = by_oauth(deployment, redis_url=redis_url)
        await deployment.http_adapter()
        assert await install(deployment, slack.bot_token) == 200
        assert (await doctor.platform("slack", settings)).state == "ok"
        await deployment.stop("adapter")
        slack.workspace.installations[slack.bot_token].revoked = True
        finding = await doctor.platform("slack", settings)
        assert finding.state == "fault"
        assert "T0HENJI any more (token_revoked): an admin of it installs it again" in finding.what
        with capture_logs() as logs:
            await deployment.http_adapter("another")
        assert "T0HENJI any more (token_revoked)" in str(logs)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"slack_client_id": "9.9"}, "HENJI_SLACK_CLIENT_ID is not that of an app"),
        ({"slack_client_secret": "wrong"}, "HENJI_SLACK_CLIENT_SECRET is not that of an app"),
    ],
)
async def test_a_wrong_client_is_named(redis: Redis, wrong: dict[str, str], named: str) -> None:
    async with slack_deployment(redis) as deployment:
        finding = await doctor.platform("slack", by_oauth(deployment, **wrong))
        assert finding.state == "fault"
        assert named in finding.what


async def test_a_port_that_is_taken_is_named(redis: Redis) -> None:
    async with slack_deployment(redis) as deployment:
        await deployment.http_adapter()
        with pytest.raises(OperatorError, match=r"cannot be listened on.*HENJI_SLACK_HTTP_PORT"):
            await deployment.again()


def test_an_app_for_several_workspaces_starts_without_a_bot_token() -> None:
    settings = SlackSettings(
        slack_client_id="1",
        slack_client_secret=SecretStr("2"),
        slack_http_port=3000,
        slack_signing_secret=SecretStr("3"),
    )
    assert settings.has_tokens
    settings.require()


def by_oauth(
    deployment: SlackDeployment, redis_url: str | None = None, **changes: str
) -> SlackSettings:
    """Settings for several workspaces, also of the processes that start next."""
    client, secret = deployment.slack.client
    deployment.settings |= {"slack_bot_token": None, "slack_app_token": None}
    deployment.settings |= {"slack_client_id": client, "slack_client_secret": secret} | changes
    return SlackSettings(
        slack_api_url=deployment.slack.api_url,
        slack_http_port=0,
        slack_signing_secret=SecretStr(deployment.slack.signing_secret),
        redis_url=redis_url,
        **{name: value for name, value in deployment.settings.items() if value},
    )


async def test_an_oauth_state_is_valid_once(redis: Redis) -> None:
    states = States(StoreFixture.over(redis).secrets)
    state = await states.async_issue()
    assert await states.async_consume(state)
    assert not await states.async_consume(state)
    assert not await states.async_consume("never issued")


# -- several processes, at the same moment --------------------------------------------------------


def installed(team: str, token: str = "xoxb-1", at: float = 1000.0) -> InstalledBot:
    return InstalledBot(
        app_id="A1", team_id=team, bot_token=token, bot_id="B1", bot_user_id="U1", installed_at=at
    )


async def token_of(installations: Installations, team: str) -> str | None:
    found = await installations.async_find_bot(enterprise_id=None, team_id=team)
    return None if found is None else found.bot_token


async def test_concurrent_installs_and_deletes_lose_no_entry(redis: Redis) -> None:
    processes = [Installations(StoreFixture.over(redis).secrets) for _ in range(3)]
    old, new = [f"T{n}" for n in range(20)], [f"T{n}" for n in range(20, 40)]
    for team in old:
        await processes[0].async_save_bot(installed(team))
    await asyncio.gather(
        *(processes[n % 3].async_save_bot(installed(team)) for n, team in enumerate(new)),
        *(processes[n % 2].async_delete_bot(enterprise_id=None, team_id=t)
          for n, t in enumerate(old)),
    )  # fmt: skip
    assert list(await processes[0].teams()) == new
    assert [team for team in old + new if await token_of(processes[1], team)] == new


async def test_an_installation_of_an_earlier_release_is_rotated_and_deleted(redis: Redis) -> None:
    secrets = StoreFixture.over(redis).secrets
    installations = Installations(secrets)
    record = {
        "app_id": "A1", "team_id": "T1", "bot_token": "xoxb-1", "bot_id": "B1",
        "bot_user_id": "U1", "bot_refresh_token": "r", "expires": 1, "installed": 1000.5,
    }  # fmt: skip
    await secrets.put("slack:T1", json.dumps(record))
    await secrets.put("slack-teams", '["T0", "T1"]')
    assert await installations.replace(installed("T1"), installed("T1", "xoxb-2"))
    assert await token_of(installations, "T1") == "xoxb-2"
    await installations.uninstall("T1", 1000)
    assert list(await installations.teams()) == ["T0"]


async def test_a_rotated_token_does_not_replace_a_newer_installation(redis: Redis) -> None:
    installations = Installations(StoreFixture.over(redis).secrets)
    await installations.async_save_bot(installed("T1", "xoxb-new"))
    assert not await installations.replace(installed("T1", "xoxb-1"), installed("T1", "xoxb-2"))
    assert await token_of(installations, "T1") == "xoxb-new"


async def test_a_rotated_token_does_not_bring_a_deleted_installation_back(redis: Redis) -> None:
    installations = Installations(StoreFixture.over(redis).secrets)
    await installations.async_save_bot(installed("T1"))
    await installations.uninstall("T1", 2000)
    assert not await installations.replace(installed("T1"), installed("T1", "xoxb-2"))
    assert list(await installations.teams()) == []
    assert await token_of(installations, "T1") is None


async def test_a_late_word_of_an_uninstallation_leaves_the_next_installation(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    assert await install(deployment, slack.bot_token) == 200
    late = slack.event({"type": "app_uninstalled"}, event_time=int(time.time()) - 60)
    await late.done.wait()
    await deployment.asks("hi")


async def test_an_installation_in_use_does_not_expire(
    redis: Redis, deployment: SlackDeployment
) -> None:
    slack = deployment.slack
    assert await install(deployment, slack.bot_token) == 200
    names = [f"henji:{{0}}:vault:{name}" for name in (f"slack:{slack.workspace.team}", TEAMS)]
    for name in names:
        await redis.expire(name, 1000)
    await deployment.asks("hi")
    assert all([await redis.ttl(name) > 1000 for name in names])
