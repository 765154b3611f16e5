"""The henji command: what it prints where, and how it exits."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import pwd
import re
import shutil
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pytest
from redis.asyncio import Redis

from bots.cli import commands
from core.errors import OperatorError, UsageError, command_for, install_command
from core.models.manifest import Manifest, digest_of_words
from tests.processes import Here, Ran, environment_with, finish, henji, in_a_shell, start
from tests.servers import free_port
from tests.waiting import until

ROOT = Path(__file__).parents[1]


def command_paths(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from command_paths(command, *path, name)


def test_every_command_has_help_with_an_example(here: Here) -> None:
    for words in command_paths(commands.henji):
        ran = here(*words, "--help")
        assert ran.status == 0, words
        assert re.search(r"Example:\s+\S", ran.out), words


@pytest.mark.parametrize("words", [(), ("admin",), ("manifest",)])
def test_a_group_alone_prints_its_help(here: Here, words: tuple[str, ...]) -> None:
    ran = here(*words)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.startswith("Usage: ")


def test_no_command_is_cut_short_in_the_list_of_commands(here: Here) -> None:
    assert "..." not in here("--help").out.partition("Commands:")[2]


def test_a_missing_choice_is_one_sentence(here: Here) -> None:
    ran = here("admin", "preferences", "slack:T1")
    assert "Missing option '--as'. Choose from: dpo, kto See `henji admin" in ran.err


def test_a_settings_file_that_its_group_can_write_is_warned_of(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "henji.toml"
    config.write_text('engine = "echo"')
    config.chmod(0o664)
    monkeypatch.setenv("HENJI_CONFIG", str(config))
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}")
    assert "the group of the settings file can write it" in here("admin", "dead").err
    config.chmod(0o644)
    assert "can write it" not in here("admin", "dead").err


async def test_folders_of_the_working_directory_are_not_run(
    tmp_path: Path, redis_url: str, redis: Redis
) -> None:
    for room in ("bots", "core", "storage"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text("raise SystemExit('foreign code ran')")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "bots", "chat", "--once", "hello"),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        cwd=tmp_path,
        env=environment_with({"REDIS_URL": redis_url, "PYTHONPATH": str(ROOT)}),
    )
    ran = await finish(process)
    assert (ran.status, ran.out) == (0, "echo: hello\n")


def test_every_promised_command_exists() -> None:
    there = {" ".join(words) for words in command_paths(commands.henji)}
    assert {"up", "chat", "core", "slack", "discord", "doctor", "bench"} <= there
    assert {"align", "compare", "tokenize", "models", "models pull"} <= there
    assert "manifest slack" in there
    admin = ("threads", "show", "reset", "forget", "export", "dead", "requeue")
    assert {f"admin {name}" for name in admin} <= there


def test_the_manifest_of_the_slack_app_is_json(here: Here) -> None:
    ran = here("manifest", "slack", "--name", "Kotoba", "--locale", "ja")
    assert json.loads(ran.out)["display_information"]["name"] == "Kotoba"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("cat",), "No such command 'cat'"),
        (("chat", "--onec", "x"), "No such option"),
        (("chat", "--once", " "), "the text is empty"),
        (("chat", "--thread", "", "--once", "x"), "--thread is empty"),
        (("tokenize", "caf\udce9"), "the argument 'caf\\udce9' is not text"),
        (("admin", "show"), "Missing argument"),
        (("admin", "show", "slack:T1"), "platform:space:channel:thread is expected"),
        (("admin", "reset", "slack"), "platform:space or platform:space:channel is expected"),
        (("manifest", "irc"), "No such command 'irc'"),
    ],
)
def test_bad_usage_is_one_sentence_and_status_2(
    here: Here, words: tuple[str, ...], sentence: str
) -> None:
    ran = here(*words)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("henji: ")
    assert sentence in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("HENJI_ENGINE", "steam", 2),
        ("HENJI_MODEL", "no such model", 2),
        ("HENJI_MODEL", "rinna-ppo", 1),
        ("REDIS_URL", "redis://:hidden@127.0.0.1:{port}/0", 1),
        ("REDIS_URL", "http://:hidden@127.0.0.1", 2),
    ],
)
def test_a_core_that_cannot_start_says_why_in_one_sentence(
    here: Here,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    value: str,
    status: int,
) -> None:
    monkeypatch.setenv("HENJI_DATA_DIR", str(tmp_path))
    monkeypatch.setenv(name, value.format(port=free_port()))
    ran = here("core")
    assert ran.status == status
    assert ran.out == ""
    *progress, sentence = ran.err.splitlines()
    assert sentence.startswith("henji: "), ran.err
    assert all("[info" in line for line in progress)
    assert "hidden" not in ran.err


async def test_a_chat_passes_on_why_its_core_cannot_start(tmp_path: Path) -> None:
    ran = await henji("chat", "--once", "x", HENJI_DATA_DIR=str(tmp_path), HENJI_ENGINE="torch",
                      HENJI_MODEL="no such model")  # fmt: skip
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("henji: the setting model is no such model")
    assert ran.err.count("\n") == 1


async def test_a_core_serves_until_it_is_stopped(redis_url: str, redis: Redis) -> None:
    core = await start("core", REDIS_URL=redis_url)
    try:
        await until(lambda: announced(redis))
        answer = await henji("chat", "--once", "hello", REDIS_URL=redis_url)
        assert answer.out == "echo: hello\n"
        core.send_signal(signal.SIGTERM)
        ran = await finish(core)
    finally:
        if core.returncode is None:
            core.kill()
    assert (ran.status, ran.out) == (0, "")
    assert "ready" in ran.err
    assert "hello" not in ran.err  # the text of messages is not logged
    assert not await announced(redis)


async def announced(redis: Redis) -> bool:
    """Whether some core serves some lane."""
    seconds, _ = await redis.time()
    lanes = [key async for key in redis.scan_iter("*lane*")]
    return any([await redis.zcount(lane, seconds * 1000, "+inf") for lane in lanes])


async def test_admin_lists_shows_and_forgets_threads(
    here: Here, redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await henji("chat", "--once", "きのう", "--thread", "a", REDIS_URL=redis_url, LOGNAME="me")
    monkeypatch.setenv("REDIS_URL", redis_url)

    async def admin(*words: str) -> Ran:
        return await asyncio.to_thread(here, "admin", *words)

    (found,) = map(json.loads, (await admin("threads", "--json")).out.splitlines())
    assert (found["thread"], found["turns"]) == ("console:local:me:a", 2)
    assert (await admin("threads")).out.endswith("console:local:me:a\n")
    shown = (await admin("show", "console:local:me:a")).out
    assert re.search(r"me: きのう\n.* echo: echo: きのう\n", shown)
    exported = (await admin("export", "--user", "me", "--in", "console:local")).out
    assert [json.loads(line)["text"] for line in exported.splitlines()] == [
        "きのう",
        "echo: きのう",
    ]
    reset = await admin("reset", "console:local:me:a")
    assert reset.out == "forgotten: 2 messages of console:local:me:a\n"
    again = await admin("show", "console:local:me:a")
    assert (again.status, again.out) == (1, "")
    assert "nothing is remembered" in again.err


async def test_admin_lists_what_was_used_as_a_table_and_as_csv(
    here: Here, redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)

    async def usage(*words: str) -> Ran:
        return await asyncio.to_thread(here, "admin", "usage", *words)

    assert (await usage()).out == "nothing was used in these days\n"
    await henji("chat", "--once", "abc", REDIS_URL=redis_url, LOGNAME="me")
    day = datetime.now(UTC).date().isoformat()
    written = list(csv.reader((await usage("--csv")).out.splitlines()))
    assert written[0] == ["day", "person", "messages", "tokens"]
    (tokens,) = {row[3] for row in written[1:]}
    assert written[1:] == [[day, "console:local:me", "1", tokens]]
    assert int(tokens) > 0
    by_model = (await usage("--by", "model", "--days", "1")).out.splitlines()
    assert [line.split() for line in by_model] == [
        ["messages", "tokens", "model"], ["1", tokens, "echo"], ["1", tokens, "all"],
    ]  # fmt: skip
    assert "console:local:me" in (await usage("--by", "channel")).out
    for words in (("--days", "31"), ("--days", "0"), ("--by", "space")):
        assert (await usage(*words)).status == 2


HOSTILE = "hi\x1b]52;c;aGE=\x07\x9b2J\u202e\n2026-01-01 00:00:00  admin: forged"


async def test_no_text_of_a_person_acts_on_the_operators_terminal(
    here: Here, redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await henji("chat", "--once", HOSTILE, REDIS_URL=redis_url, LOGNAME="me")
    monkeypatch.setenv("REDIS_URL", redis_url)
    shown = await asyncio.to_thread(here, "admin", "show", "console:local:me:default")
    assert r"hi\x1b]52;c;aGE=\x07\x9b2J\u202e" in shown.out
    assert "\n    2026-01-01 00:00:00  admin: forged" in shown.out
    for words in (("show", "console:local:me:default", "--json"), ("threads",)):
        raw = (await asyncio.to_thread(here, "admin", *words)).out
        assert raw.replace("\n", "").isprintable()
    unknown = await asyncio.to_thread(here, "admin", "requeue", "\x1b]0;owned\x07")
    assert "\x1b" not in unknown.err


async def test_the_audit_log_names_the_user_of_the_process(
    here: Here, redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("LOGNAME", "somebody-else")
    await asyncio.to_thread(here, "admin", "reset", "slack:T1")
    entry = json.loads((await asyncio.to_thread(here, "admin", "audit", "slack:T1", "--json")).out)
    assert entry["by"] == f"operator:{pwd.getpwuid(os.getuid()).pw_name}"


@pytest.mark.parametrize("password", ["sec/ret", "sec?ret", "sec#ret", "a@sec/ret"])
def test_a_password_that_is_not_escaped_is_not_shown(
    here: Here, password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://:{password}@127.0.0.1:1")
    ran = here("admin", "dead")
    assert ran.status == 2
    assert "in its password: write it as %2F, %3F or %23" in ran.err
    assert "sec" not in ran.err
    assert "ret" not in ran.err


async def test_a_persons_messages_are_forgotten(
    here: Here, redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await henji("chat", "--once", "mine", REDIS_URL=redis_url, LOGNAME="me")
    monkeypatch.setenv("REDIS_URL", redis_url)
    of_me = ("--user", "me", "--in", "console:local")
    forgotten = await asyncio.to_thread(here, "admin", "forget", *of_me)
    assert forgotten.out == "forgotten: 2 messages\n"
    assert (await asyncio.to_thread(here, "admin", "export", *of_me)).out == ""


async def test_forget_names_the_adapters_that_were_trained_on_the_words(
    here: Here, home: Path, redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await henji("chat", "--once", "my words", REDIS_URL=redis_url, LOGNAME="me")
    monkeypatch.setenv("REDIS_URL", redis_url)
    for name, words in (("of-me", "my words"), ("of-others", "their words")):
        folder = home / "adapters" / name
        folder.mkdir(parents=True)
        Manifest("dpo", "", "", "", None, "", "", (), (digest_of_words(words),)).write(folder)
    of_me = ("--user", "me", "--in", "console:local")
    forgotten = await asyncio.to_thread(here, "admin", "forget", *of_me)
    shutil.rmtree(home / "adapters")
    assert forgotten.out == (
        "forgotten: 2 messages\n"
        f"trained on some of them, and cannot forget: {home / 'adapters' / 'of-me'}\n"
    )


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        ({"dir_info": {"editable": True}}, "pip install --editable '{path}[slack]'"),
        ({"dir_info": {}}, "pip install '{path}[slack]'"),
        ({"archive_info": {}}, "pip install '{path}[slack]'"),
    ],
)
def test_an_extra_is_installed_from_where_henji_came(
    tmp_path: Path, origin: dict[str, Any], command: str
) -> None:
    place = tmp_path / "a wheel or a checkout"
    place.touch()
    made = command_for({"url": place.as_uri(), **origin}, "slack")
    assert made == command.format(path=place)


def test_an_extra_of_a_henji_that_came_from_nowhere_is_not_looked_for_in_an_index() -> None:
    for origin in ({}, {"url": "file:///src", "dir_info": {}}):
        assert command_for(origin, "slack").startswith("pip install 'PATH[slack]', with the path")


async def test_a_missing_package_is_named_with_the_command_that_installs_it(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("No module named 'slack_bolt'", name="slack_bolt.async_app")

    monkeypatch.setattr(commands, "open_all_settings", missing)
    ran = here("slack")
    assert ran.status == 1
    assert ran.err.endswith(f"{install_command('slack')}\n")


def test_a_checkouts_benchmarks_run_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "tests" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "drain.py").write_text("import sys\n\ndef main(argv: list[str]) -> None: ...\n")
    (folder / "measure.py").write_text("def seconds() -> float: ...\n")
    assert commands.benchmark_names(tmp_path) == ["drain"]
    with pytest.raises(UsageError, match="there is no benchmark fast: the benchmarks are drain"):
        commands.run_benchmarks("fast", (), tmp_path)


def test_an_installed_copy_says_that_benchmarks_need_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="from a checkout"):
        commands.benchmark_names(tmp_path)


async def test_a_closed_pipe_is_not_reported_as_a_defect() -> None:
    assert (await in_a_shell("henji admin --help | true")).err == ""


async def test_a_command_works_without_standard_streams() -> None:
    assert await in_a_shell("henji models <&- >&- 2>&-") == Ran(0, "", "")
    nothing = await in_a_shell("henji chat --once - <&-")
    assert nothing.status == 2
    assert nothing.err == "henji: the text is empty: there is nothing to answer\n"


async def test_a_terminal_that_lacks_a_character_gets_an_escape(
    redis_url: str, redis: Redis
) -> None:
    latin = {"REDIS_URL": redis_url, "PYTHONIOENCODING": "latin-1"}
    ran = await in_a_shell("henji chat --once é-あ | od -An -c", **latin)
    assert ran.out.split() == [*"echo:", "351", *"-\\u3042", "\\n"]
    assert ran.err == "starting echo\nready\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="it is a disk that is full")
async def test_a_full_disk_is_reported_in_one_sentence() -> None:
    ran = await in_a_shell("henji models > /dev/full")
    assert (ran.status, ran.err) == (1, "henji: the output cannot be written: No space left on "
                                     "device\n")  # fmt: skip


@pytest.mark.parametrize(
    ("module", "words"), [("bots.platforms", ["--help"]), ("bots.console.terminal", ["chat"])]
)
async def test_ctrl_c_while_a_command_is_imported_ends_it_without_a_word(
    module: str, words: list[str]
) -> None:
    script = f"""
import os, signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from bots.cli import main
main()
"""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, *words),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=environment_with({}),
    )
    ended = await finish(process)
    assert (ended.status, ended.out, ended.err) == (-signal.SIGINT, "", "")
