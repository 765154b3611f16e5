"""The local Slack, as the unmodified SDK meets it: it must judge as Slack does."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import aiohttp
import pytest
from slack_bolt.adapter.socket_mode.aiohttp import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from tests.local_slack import Json, LocalSlack
from tests.local_slack.validation import RULES


@pytest.fixture
async def slack() -> AsyncIterator[LocalSlack]:
    async with LocalSlack() as slack:
        slack.person("U1", "花子")
        yield slack


@pytest.fixture
def client(slack: LocalSlack) -> AsyncWebClient:
    return AsyncWebClient(slack.bot_token, base_url=slack.api_url)


class Sockets:
    """Unmodified Bolt apps in Socket Mode, with their events and retry numbers."""

    def __init__(self, slack: LocalSlack, client: AsyncWebClient) -> None:
        self.slack, self.client = slack, client
        self.seen: list[tuple[Json, str | None]] = []
        self.handlers: list[AsyncSocketModeHandler] = []

    async def open(self) -> None:
        app = AsyncApp(client=self.client, process_before_response=True)

        @app.event("message")
        async def keep(event: Json, request: Any) -> None:
            self.seen.append((event, request.headers.get("x-slack-retry-num", [None])[0]))
            await self.slack.workspace.changed()

        before = self.slack.delivery.sockets
        handler = AsyncSocketModeHandler(app, self.slack.app_token)
        await handler.connect_async()  # type: ignore[no-untyped-call]  # bolt's has no types
        self.handlers.append(handler)
        await self.slack.until(lambda: self.slack.delivery.sockets == before + 1)

    async def close(self) -> None:
        for handler in self.handlers:
            await handler.close_async()  # type: ignore[no-untyped-call]  # nor this


@pytest.fixture
async def sockets(slack: LocalSlack, client: AsyncWebClient) -> AsyncIterator[Sockets]:
    sockets = Sockets(slack, client)
    yield sockets
    await sockets.close()


async def error_code(call: Awaitable[Any]) -> str:
    with pytest.raises(SlackApiError) as caught:
        await call
    return str(caught.value.response["error"])


async def test_arguments_arrive_by_query_form_and_json(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    posted = await client.chat_postMessage(channel="C1", text="一")
    await client.chat_delete(channel="C1", ts=posted["ts"])  # the SDK puts these in the query
    person = await client.users_info(user="U1", include_locale=True)  # by GET
    assert person["user"]["locale"] == "ja-JP"
    assert [call.error for call in slack.api.calls] == ["", "", ""]
    assert slack.workspace.message("C1", posted["ts"]) is None


async def test_unknown_methods_and_arguments_are_refused(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    assert await error_code(client.api_call("chat.postMessage", json={"chanel": "C1"})) == (
        "invalid_arguments"
    )
    assert await error_code(client.chat_postMessage(channel="C1", text="")) == "no_text"
    long = [{"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3001}}]
    assert await error_code(client.chat_postMessage(channel="C1", text="x", blocks=long)) == (
        "invalid_blocks"
    )
    slack.workspace.installations[slack.bot_token].scopes = frozenset()
    assert await error_code(client.chat_postMessage(channel="C1", text="x")) == "missing_scope"
    slack.workspace.installations[slack.bot_token].revoked = True
    assert await error_code(client.auth_test()) == "token_revoked"
    assert len(slack.workspace.violations) == 3


@pytest.mark.parametrize("method", sorted(RULES))
def test_the_argument_tables_cover_the_sdk(method: str) -> None:
    call = inspect.signature(getattr(AsyncWebClient, method.replace(".", "_")))
    known = {p.name for p in call.parameters.values() if p.kind is p.KEYWORD_ONLY}
    rule = RULES[method]
    assert rule.arguments.keys() == known - {"app_token"}
    must = {name for name in known if call.parameters[name].default is inspect.Parameter.empty}
    assert must <= set(rule.required) | {"app_token"}


async def test_a_stream_is_started_appended_to_and_stopped(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    root = await slack.say("C1", "U1", "hi")
    stream = await client.chat_stream(
        channel="C1", thread_ts=root, recipient_team_id="T1", recipient_user_id="U1", buffer_size=1
    )
    await stream.append(markdown_text="**a")
    await stream.append(markdown_text="b**")
    ts = str(stream.ts)
    assert await error_code(client.chat_update(channel="C1", ts=ts, text="x")) == (
        "streaming_state_conflict"
    )
    await stream.stop(blocks=[{"type": "divider"}])
    assert await error_code(client.chat_appendStream(channel="C1", ts=ts, markdown_text="c")) == (
        "message_not_in_streaming_state"
    )
    assert slack.replies("C1", root)[0].shown == "**ab**"


async def test_a_stream_in_a_channel_needs_its_recipient(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    root = await slack.say("C1", "U1", "hi")
    assert await error_code(client.chat_startStream(channel="C1", thread_ts=root)) == (
        "missing_recipient_team_id"
    )


async def test_an_exhausted_tier_answers_with_retry_after(
    slack: LocalSlack, client: AsyncWebClient
) -> None:
    posted = await client.chat_postMessage(channel="C1", text="x")
    for _ in range(50):
        await client.chat_update(channel="C1", ts=posted["ts"], text="y")
    with pytest.raises(SlackApiError) as caught:
        await client.chat_update(channel="C1", ts=posted["ts"], text="z")
    assert caught.value.response.status_code == 429
    assert 50 <= int(caught.value.response.headers["Retry-After"]) <= 60


async def test_an_envelope_goes_to_one_socket_and_comes_again_until_acknowledged(
    slack: LocalSlack, sockets: Sockets
) -> None:
    slack.delivery.retry_delays = (0.0, 0.0)
    slack.delivery.acknowledge_seconds = 0.5
    await sockets.open()
    await sockets.open()
    slack.delivery.faults.lose_acknowledgements = 1
    await slack.say("C1", "U1", "hello")
    await slack.until(lambda: len(sockets.seen) >= 2)
    assert [event["text"] for event, _ in sockets.seen] == ["hello", "hello"]
    assert [retry for _, retry in sockets.seen] == [None, "1"]


async def test_a_disconnected_socket_reconnects(slack: LocalSlack, sockets: Sockets) -> None:
    await sockets.open()
    await slack.delivery.disconnect()
    await slack.until(lambda: slack.delivery.sockets == 1)
    await slack.say("C1", "U1", "again")
    await slack.until(lambda: sockets.seen)


async def test_http_requests_are_signed_and_bolt_checks_them(slack: LocalSlack) -> None:
    from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request

    app = AsyncApp(
        client=AsyncWebClient(slack.bot_token, base_url=slack.api_url),
        signing_secret=slack.signing_secret,
        process_before_response=True,
    )
    seen: list[Json] = []

    @app.event("message")
    async def keep(event: Json) -> None:
        seen.append(event)

    async def handle(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return await to_aiohttp_response(await app.async_dispatch(await to_bolt_request(request)))

    web = aiohttp.web.Application()
    web.router.add_post("/events", handle)
    runner = aiohttp.web.AppRunner(web)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    slack.delivery.request_url = f"http://127.0.0.1:{runner.addresses[0][1]}/events"
    await slack.say("C1", "U1", "signed")
    async with asyncio.timeout(60):
        await slack.delivery.envelopes[0].done.wait()
    assert [event["text"] for event in seen] == ["signed"]
    forged = slack.delivery.signed("{}", secret="wrong")
    stale = slack.delivery.signed("{}", age=400)
    async with aiohttp.ClientSession() as session:
        for headers in (forged, stale, {}):
            async with session.post(slack.delivery.request_url, data="{}", headers=headers) as r:
                assert r.status == 401
    await runner.cleanup()
