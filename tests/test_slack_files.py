"""Files in Slack: uploads, snippets and posts, new and in a thread's past."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape

import pytest
from redis.asyncio import Redis

from bots.slack import setup_checks
from bots.slack.api import web_client
from bots.slack.settings import SlackSettings
from bots.strings import say
from tests.local_slack.deployment import SlackDeployment, slack_at_work
from tests.local_slack.workspace import EVERY_SCOPE, Message

BOT = "<@U0HENJI>"
PASTE = "サーバーが止まりました。\n原因を調べています。"
READ = f"[file: log.txt]\n~~~\n{PASTE}\n~~~"


@pytest.fixture
async def deployment(redis: Redis) -> AsyncIterator[SlackDeployment]:
    async with slack_at_work(redis) as deployment:
        yield deployment


async def told(deployment: SlackDeployment, channel: str, thread: str) -> Message:
    """The one message of the bot in a thread, once there is one."""
    slack = deployment.slack
    (message,) = await slack.until(lambda: slack.replies(channel, thread))
    return message  # type: ignore[no-any-return]


async def test_a_text_file_is_read_and_the_line_under_the_reply_says_so(
    deployment: SlackDeployment,
) -> None:
    file = deployment.slack.upload("log.txt", PASTE.encode())
    ts = await deployment.slack.say("C1", "U1", f"{BOT} 要約", files=[file])
    reply = await deployment.answered("C1", ts, f"echo: 要約\n\n{READ}")
    assert say("file_read", "ja", name="log.txt", tokens=len(READ), whole=len(READ)) in str(
        reply.blocks
    )


async def test_a_snippet_alone_is_a_message_in_direct_messages(deployment: SlackDeployment) -> None:
    snippet = deployment.slack.upload("Untitled", PASTE.encode("shift_jis"), mode="snippet")
    ts = await deployment.slack.say("D1", "U1", "", files=[snippet])
    await deployment.answered("D1", ts, "echo: " + READ.replace("log.txt", "Untitled"))


async def test_a_picture_is_named_and_the_reply_says_that_it_was_not_read(
    deployment: SlackDeployment,
) -> None:
    plan = deployment.slack.upload("plan.png", b"\x89PNG", "image/png")
    ts = await deployment.slack.say("C1", "U1", f"{BOT} What is it?", files=[plan])
    reply = await deployment.answered("C1", ts, "echo: What is it?\n\n[image: plan.png]")
    assert say("file_named", "ja", name="plan.png") in str(reply.blocks)
    assert deployment.slack.workspace.downloads == []
    assert deployment.slack.whispers("U1") == []


async def test_a_canvas_is_named_by_its_title_and_never_loaded(deployment: SlackDeployment) -> None:
    canvas = deployment.slack.upload("Sprint_notes", b"<html>notes</html>", "text/html")
    canvas |= {"mimetype": "application/vnd.slack-docs", "filetype": "quip", "mode": "quip"}
    canvas |= {"title": "Sprint & notes"}
    ts = await deployment.slack.say("C1", "U1", f"{BOT} Summarise", files=[canvas])
    reply = await deployment.answered("C1", ts, "echo: Summarise\n\n[file: Sprint & notes]")
    assert "`Sprint & notes`" in unescape(str(reply.blocks))
    await deployment.slack.say("C1", "U1", BOT, files=[canvas])
    await deployment.slack.until(lambda: deployment.slack.whispers("U1"))
    (told,) = deployment.slack.whispers("U1")
    assert told.text == say("files_not_read", "ja", files="`Sprint &amp; notes`")
    assert deployment.slack.workspace.downloads == []


async def test_a_pasted_table_alone_is_a_question(deployment: SlackDeployment) -> None:
    cells = [[{"type": "raw_text", "text": text} for text in row] for row in ("ab", "12")]
    table = {"fallback": "[no preview available]", "blocks": [{"type": "table", "rows": cells}]}
    ts = await deployment.slack.say("C1", "U1", BOT, attachments=[table])
    await deployment.answered("C1", ts, "echo: a | b\n1 | 2")


async def test_a_picture_alone_gets_a_notice_and_no_answer(deployment: SlackDeployment) -> None:
    plan = deployment.slack.upload("plan.png", b"\x89PNG", "image/png")
    await deployment.slack.say("C1", "U1", BOT, files=[plan])
    await deployment.slack.until(lambda: deployment.slack.whispers("U1"))
    assert deployment.slack.whispers("U1")[0].text == say(
        "files_not_read", "ja", files="`plan.png`"
    )


@pytest.mark.parametrize(
    ("file", "code"),
    [({"mode": "tombstone", "id": "F9", "name": "old.txt"}, "file_gone"),
     ({"id": "F9", "name": "shared.txt", "file_access": "check_file_info"}, "file_gone")],
)  # fmt: skip
async def test_a_deleted_or_unreadable_file_gets_a_notice(
    deployment: SlackDeployment, file: dict[str, str], code: str
) -> None:
    ts = await deployment.slack.say("D1", "U1", "Summarise", files=[file])
    note = await told(deployment, "D1", ts)
    assert note.shown == say(code, "ja", name=file["name"])


async def test_a_document_of_another_company_is_only_named(deployment: SlackDeployment) -> None:
    file = {
        "id": "F9",
        "name": "Plan.txt",
        "mode": "external",
        "url_private": "https://docs.example",
    }
    ts = await deployment.slack.say("C1", "U1", f"{BOT} Summarise", files=[file])
    await deployment.answered("C1", ts, "echo: Summarise\n\n[file: Plan.txt]")


async def test_files_of_a_thread_s_past_are_read_with_it(deployment: SlackDeployment) -> None:
    root = await deployment.slack.say(
        "C1", "U1", "", files=[deployment.slack.upload("log.txt", PASTE.encode())]
    )
    await deployment.slack.say("C1", "U1", f"{BOT} What happened?", thread=root)
    await deployment.answered("C1", root, "echo: What happened?")
    assert (await deployment.stores().texts(deployment.key("C1", root)))[0] == READ


async def test_without_the_scope_a_sentence_says_that_the_file_is_closed(
    deployment: SlackDeployment,
) -> None:
    app = deployment.slack.workspace.installations[deployment.slack.bot_token]
    app.scopes = EVERY_SCOPE - {"files:read"}
    file = deployment.slack.upload("log.txt", PASTE.encode())
    ts = await deployment.slack.say("D1", "U1", "Summarise", files=[file])
    assert (await told(deployment, "D1", ts)).shown == say("file_gone", "ja", name="log.txt")
    async with web_client(SlackSettings(**deployment._settings())) as client:
        better = await setup_checks.check_bot_token(client)
    assert "files are not read" in better
    assert re.search(r"files:read.*Reinstall", better)


async def test_the_token_is_never_sent_to_another_host(deployment: SlackDeployment) -> None:
    file = deployment.slack.upload("log.txt", PASTE.encode())
    file["url_private_download"] = "http://127.0.0.2:9/log.txt"
    ts = await deployment.slack.say("D1", "U1", "Summarise", files=[file])
    assert (await told(deployment, "D1", ts)).shown == say("file_gone", "ja", name="log.txt")
    assert deployment.slack.workspace.downloads == []


async def test_an_edit_that_takes_a_file_away_is_answered_again_without_it(
    deployment: SlackDeployment,
) -> None:
    slack = deployment.slack
    file, other = slack.upload("log.txt", PASTE.encode()), slack.upload("b.txt", b"second")
    ts = await slack.say("D1", "U1", "要約", files=[file])
    await deployment.answered("D1", ts, f"echo: 要約\n\n{READ}")
    await slack.edit("D1", ts, files=[file, other])
    await deployment.answered("D1", ts, f"echo: 要約\n\n{READ}\n\n[file: b.txt]\n~~~\nsecond\n~~~")
    await slack.edit("D1", ts, files=[{**file, "mode": "tombstone"}, other])
    await deployment.answered("D1", ts, "echo: 要約\n\n[file: b.txt]\n~~~\nsecond\n~~~")
    await slack.edit("D1", ts, "訳して")
    await deployment.answered("D1", ts, "echo: 訳して\n\n[file: b.txt]\n~~~\nsecond\n~~~")
    assert len(slack.replies("D1", ts)) == 1
    assert [status for _, status in slack.workspace.downloads] == ["200"] * 4
