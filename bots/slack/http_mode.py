"""HTTP mode: Slack's signed requests, and the OAuth pages."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus

import structlog
from aiohttp import web
from slack_bolt.adapter.aiohttp import to_aiohttp_response, to_bolt_request
from slack_bolt.async_app import AsyncApp
from slack_bolt.oauth.async_oauth_flow import AsyncOAuthFlow
from slack_sdk.signature import SignatureVerifier

from core.errors import OperatorError

EVENTS = "/slack/events"

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def web_server(
    app: AsyncApp, flow: AsyncOAuthFlow | None, signing_secret: str, host: str, port: int
) -> AsyncIterator[int]:
    """Serve the app's routes and yield the port."""
    verifier = SignatureVerifier(signing_secret)

    async def events(request: web.Request) -> web.Response:
        if not _is_signed(verifier, await request.read(), request.headers):
            log.warning("a request is not signed with SLACK_SIGNING_SECRET", sender=request.remote)
            return web.Response(status=HTTPStatus.UNAUTHORIZED)
        try:
            answer = await app.async_dispatch(await to_bolt_request(request))
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            # Bolt cannot read it: without an acknowledgement Slack would send it again
            log.warning("a malformed payload", error=type(error).__name__)
            return web.Response()
        return await to_aiohttp_response(answer)

    routes = web.Application(client_max_size=2**20)
    routes.router.add_post(EVENTS, events)
    if flow is not None:
        install, callback = flow.handle_installation, flow.handle_callback

        async def begin(request: web.Request) -> web.Response:
            return await to_aiohttp_response(await install(await to_bolt_request(request)))

        async def end(request: web.Request) -> web.Response:
            return await to_aiohttp_response(await callback(await to_bolt_request(request)))

        routes.router.add_get(flow.install_path, begin)
        routes.router.add_get(flow.redirect_uri_path, end)
    runner = web.AppRunner(routes)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise OperatorError(
                f"{host}:{port} cannot be listened on ({error.strerror}): set "
                "HENJI_SLACK_HTTP_HOST and HENJI_SLACK_HTTP_PORT to an address that is free"
            ) from error
        bound = int(runner.addresses[0][1])
        log.info("listening for slack", host=host, port=bound, path=EVENTS)
        yield bound
    finally:
        await runner.cleanup()


def _is_signed(verifier: SignatureVerifier, body: bytes, headers: Mapping[str, str]) -> bool:
    """Whether Slack sent these very bytes: nothing is parsed before."""
    stamp = headers.get("X-Slack-Request-Timestamp", "")
    signature = headers.get("X-Slack-Signature", "")
    try:
        return verifier.is_valid(body, stamp, signature)
    except (TypeError, ValueError):  # no number, no text, or no hexadecimal digits
        return False
