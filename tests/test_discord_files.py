"""Files in Discord: pastes, attachments, an option of a command, and those of a thread's past."""

from __future__ import annotations

from typing import Any

from bots.strings import say
from core.types import ThreadKey
from tests.local_discord.deployment import ALICE, BOB, DiscordDeployment
from tests.local_discord.expectations import the_answer, told, with_its_buttons

PASTE = "一行めです\n二行めです\n" * 3
READ = f"[file: message.txt]\n~~~\n{PASTE.strip()}\n~~~"
LINE = "-# `message.txt`: 63 of 63 tokens"
SHOWN = READ.replace("~~~", "```")
"""As Discord shows it, in a reply that says it again."""


async def reply_in(deployment: DiscordDeployment, channel: str) -> dict[str, Any]:
    [reply] = await deployment.discord.until(lambda: deployment.discord.replies(channel))
    return dict(await with_its_buttons(deployment, reply))


async def test_a_long_paste_is_a_file_and_is_read(
    deployment: DiscordDeployment, general: str
) -> None:
    """Discord makes ``message.txt`` of a paste over 2,000 characters; its type is often missing."""
    paste = deployment.discord.add_file(general, "message.txt", PASTE.encode())
    said = await deployment.discord.says(ALICE, general, "<@bot> 要約", attachments=[paste])
    reply = await reply_in(deployment, said["id"])
    assert reply["content"].startswith(f"echo: 要約\n\n{SHOWN}")
    line = say("file_read", "ja", name="message.txt", tokens=63, whole=63)
    assert reply["content"].endswith(f"\n-# {line}")


async def test_a_paste_alone_is_a_message_in_direct_messages(
    deployment: DiscordDeployment, general: str
) -> None:
    direct = deployment.discord.add_direct(ALICE)
    paste = deployment.discord.add_file(direct, "message.txt", PASTE.encode("utf-16"), "text/plain")
    await deployment.discord.says(ALICE, direct, "", attachments=[paste])
    assert (await reply_in(deployment, direct))["content"].startswith(f"echo: {SHOWN}")


async def test_a_command_takes_a_file(deployment: DiscordDeployment, general: str) -> None:
    paste = deployment.discord.add_file(general, "message.txt", PASTE.encode("euc_jp"))
    used = await deployment.discord.uses(ALICE, general, "ask", {"prompt": "要約", "file": paste})
    reply = await the_answer(
        deployment, used, f"echo: 要約\n\n{SHOWN}\n-# `message.txt`: 63 of 63 tokens"
    )
    assert reply


async def test_a_picture_is_named_and_the_reply_says_that_it_was_not_read(
    deployment: DiscordDeployment, general: str
) -> None:
    plan = deployment.discord.add_file(general, "plan.png", b"\x89PNG\r\n", "image/png")
    said = await deployment.discord.says(ALICE, general, "<@bot> What is it?", attachments=[plan])
    reply = await reply_in(deployment, said["id"])
    assert reply["content"] == ("echo: What is it?\n\n[image: plan.png]\n-# `plan.png`: not read")
    assert deployment.discord.world.downloads == []
    assert deployment.discord.replies(general) == []


async def test_a_picture_alone_gets_a_notice_and_no_answer(
    deployment: DiscordDeployment, general: str
) -> None:
    plan = deployment.discord.add_file(general, "plan.png", b"\x89PNG\r\n", "image/png")
    await deployment.discord.says(ALICE, general, "<@bot>", attachments=[plan])
    [note] = await deployment.discord.until(lambda: deployment.discord.replies(general))
    assert note["content"] == say("files_not_read", "en", files="`plan.png`")
    assert await deployment.nothing_owed()


async def test_a_file_that_is_no_text_is_named_and_not_answered(
    deployment: DiscordDeployment, general: str
) -> None:
    direct = deployment.discord.add_direct(ALICE)
    zipped = deployment.discord.add_file(direct, "notes.txt", b"PK\x03\x04\x00\x00", "text/plain")
    await deployment.discord.says(ALICE, direct, "Summarise", attachments=[zipped])
    [note] = await deployment.discord.until(lambda: deployment.discord.replies(direct))
    assert note["content"] == say("file_binary", "en", name="notes.txt")


async def test_a_file_on_another_host_is_never_asked_for(
    deployment: DiscordDeployment, general: str
) -> None:
    direct = deployment.discord.add_direct(ALICE)
    file = deployment.discord.add_file(direct, "a.txt", b"text", url="http://127.0.0.2:9/a.txt")
    await deployment.discord.says(ALICE, direct, "Summarise", attachments=[file])
    [note] = await deployment.discord.until(lambda: deployment.discord.replies(direct))
    assert note["content"] == say("file_gone", "en", name="a.txt")


async def test_files_of_a_thread_s_past_are_read_with_it(deployment: DiscordDeployment) -> None:
    general = deployment.discord.add_channel(deployment.discord.add_guild())
    talk = deployment.discord.add_thread(general)
    await deployment.start_core()
    await deployment.start_bot()
    paste = deployment.discord.add_file(talk, "message.txt", PASTE.encode())
    gone = deployment.discord.add_file(talk, "gone.txt", b"text")
    del deployment.discord.world.files[gone["id"]]
    await deployment.discord.says(BOB, talk, "see here", attachments=[paste, gone])
    await deployment.discord.says(ALICE, talk, "<@bot> What does it say?")
    await reply_in(deployment, talk)
    thread = ThreadKey("discord", str(deployment.discord.world.guild_of(general)), general, talk)
    assert (await deployment.stores.texts(thread))[0] == f"see here\n\n{READ}\n\n[file: gone.txt]"


async def test_the_menu_asks_about_a_message_with_a_file(
    deployment: DiscordDeployment, general: str
) -> None:
    paste = deployment.discord.add_file(general, "message.txt", PASTE.encode())
    said = await deployment.discord.says(BOB, general, "", attachments=[paste])
    used = await deployment.discord.asks_about(ALICE, said, "Ask Henji about this")
    reply = await the_answer(
        deployment, used, f"echo: Bob:\n\n{SHOWN}\n-# `message.txt`: 63 of 63 tokens"
    )
    assert reply


async def test_a_message_without_text_cannot_be_asked_about(
    deployment: DiscordDeployment, general: str
) -> None:
    plan = deployment.discord.add_file(general, "plan.png", b"\x89PNG\r\n", "image/png")
    said = await deployment.discord.says(BOB, general, "", attachments=[plan])
    used = await deployment.discord.asks_about(ALICE, said, "Ask Henji about this")
    assert await told(deployment, used) == say("no_text_there", "en")


async def test_an_edit_that_takes_an_attachment_away_is_answered_again_without_it(
    deployment: DiscordDeployment, general: str
) -> None:
    direct = deployment.discord.add_direct(ALICE)
    paste = deployment.discord.add_file(direct, "message.txt", PASTE.encode())
    said = await deployment.discord.says(ALICE, direct, "要約", attachments=[paste])
    reply = await reply_in(deployment, direct)
    await deployment.discord.edits(said, "要約", attachments=[])
    await deployment.discord.until(
        lambda: deployment.discord.replies(direct)[0]["content"] == "echo: 要約"
    )
    again = deployment.discord.add_file(direct, "b.txt", b"second")
    await deployment.discord.edits(said, "訳して", attachments=[again])
    shown = "echo: 訳して\n\n[file: b.txt]\n```\nsecond\n```"
    await deployment.discord.until(
        lambda: deployment.discord.replies(direct)[0]["content"].startswith(shown)
    )
    assert deployment.discord.replies(direct)[0]["id"] == reply["id"]
