"""Files in Discord: pastes, attachments, an option of a command, and those of a thread's past."""

from __future__ import annotations

from typing import Any

from bots.strings import say
from core.types import ThreadKey
from tests.local_discord.deployment import ALICE, BOB, DiscordDeployment
from tests.local_discord.expectations import the_answer, told, with_its_buttons

PASTE = "一行めです\n二行めです\n" * 3
READ = f"[file: message.txt]\n~~~\n{PASTE.strip()}\n~~~"


async def reply_in(team: DiscordDeployment, channel: str) -> dict[str, Any]:
    [reply] = await team.discord.until(lambda: team.discord.replies(channel))
    return dict(await with_its_buttons(team, reply))


async def test_a_long_paste_is_a_file_and_is_read(team: DiscordDeployment, general: str) -> None:
    """Discord makes ``message.txt`` of a paste over 2,000 characters; its type is often missing."""
    paste = team.discord.add_file(general, "message.txt", PASTE.encode())
    said = await team.discord.says(ALICE, general, "<@bot> 要約", attachments=[paste])
    reply = await reply_in(team, said["id"])
    assert reply["content"].startswith(f"echo: 要約\n\n{READ}")
    line = say("file_read", "ja", name="message.txt", tokens=63, whole=63)
    assert reply["content"].endswith(f"\n-# {line}")


async def test_a_paste_alone_is_a_message_in_direct_messages(
    team: DiscordDeployment, general: str
) -> None:
    direct = team.discord.add_direct(ALICE)
    paste = team.discord.add_file(direct, "message.txt", PASTE.encode("utf-16"), "text/plain")
    await team.discord.says(ALICE, direct, "", attachments=[paste])
    assert (await reply_in(team, direct))["content"].startswith(f"echo: {READ}")


async def test_a_command_takes_a_file(team: DiscordDeployment, general: str) -> None:
    paste = team.discord.add_file(general, "message.txt", PASTE.encode("euc_jp"))
    used = await team.discord.uses(ALICE, general, "ask", {"prompt": "要約", "file": paste})
    reply = await the_answer(team, used, f"echo: 要約\n\n{READ}\n-# `message.txt`: 63 of 63 tokens")
    assert reply


async def test_a_picture_is_named_and_the_person_is_told_in_the_reply(
    team: DiscordDeployment, general: str
) -> None:
    plan = team.discord.add_file(general, "plan.png", b"\x89PNG\r\n", "image/png")
    said = await team.discord.says(ALICE, general, "<@bot> What is it?", attachments=[plan])
    reply = await reply_in(team, said["id"])
    assert reply["content"] == ("echo: What is it?\n\n[image: plan.png]\n-# `plan.png`: not read")
    assert team.discord.world.downloads == []
    assert team.discord.replies(general) == []


async def test_a_picture_alone_is_not_answered_but_told(
    team: DiscordDeployment, general: str
) -> None:
    plan = team.discord.add_file(general, "plan.png", b"\x89PNG\r\n", "image/png")
    await team.discord.says(ALICE, general, "<@bot>", attachments=[plan])
    [note] = await team.discord.until(lambda: team.discord.replies(general))
    assert note["content"] == say("files_not_read", "en")
    assert await team.nothing_owed()


async def test_what_is_no_text_is_said_by_its_name_and_not_answered(
    team: DiscordDeployment, general: str
) -> None:
    direct = team.discord.add_direct(ALICE)
    zipped = team.discord.add_file(direct, "notes.txt", b"PK\x03\x04\x00\x00", "text/plain")
    await team.discord.says(ALICE, direct, "Summarise", attachments=[zipped])
    [note] = await team.discord.until(lambda: team.discord.replies(direct))
    assert note["content"] == say("file_binary", "en", name="notes.txt")


async def test_a_file_on_another_host_is_never_asked_for(
    team: DiscordDeployment, general: str
) -> None:
    direct = team.discord.add_direct(ALICE)
    file = team.discord.add_file(direct, "a.txt", b"text", url="http://127.0.0.2:9/a.txt")
    await team.discord.says(ALICE, direct, "Summarise", attachments=[file])
    [note] = await team.discord.until(lambda: team.discord.replies(direct))
    assert note["content"] == say("file_gone", "en", name="a.txt")


async def test_files_of_a_thread_s_past_are_read_with_it(team: DiscordDeployment) -> None:
    general = team.discord.add_channel(team.discord.add_guild())
    talk = team.discord.add_thread(general)
    await team.start_core()
    await team.start_bot()
    paste = team.discord.add_file(talk, "message.txt", PASTE.encode())
    gone = team.discord.add_file(talk, "gone.txt", b"text")
    del team.discord.world.files[gone["id"]]
    await team.discord.says(BOB, talk, "see here", attachments=[paste, gone])
    await team.discord.says(ALICE, talk, "<@bot> What does it say?")
    await reply_in(team, talk)
    thread = ThreadKey("discord", str(team.discord.world.guild_of(general)), general, talk)
    assert (await team.house.texts(thread))[0] == f"see here\n\n{READ}\n\n[file: gone.txt]"


async def test_the_menu_asks_about_a_message_with_a_file(
    team: DiscordDeployment, general: str
) -> None:
    paste = team.discord.add_file(general, "message.txt", PASTE.encode())
    said = await team.discord.says(BOB, general, "", attachments=[paste])
    used = await team.discord.asks_about(ALICE, said, "Ask Henji about this")
    reply = await the_answer(team, used, f"echo: Bob:\n\n{READ}\n-# `message.txt`: 63 of 63 tokens")
    assert reply


async def test_a_message_without_text_cannot_be_asked_about(
    team: DiscordDeployment, general: str
) -> None:
    plan = team.discord.add_file(general, "plan.png", b"\x89PNG\r\n", "image/png")
    said = await team.discord.says(BOB, general, "", attachments=[plan])
    used = await team.discord.asks_about(ALICE, said, "Ask Henji about this")
    assert await told(team, used) == say("no_text_there", "en")
