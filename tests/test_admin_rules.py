"""`henji admin config` and `henji admin audit`: rules and the log of changes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bots.cli import commands
from tests.processes import Ran

PLACE = "slack:T77:C77"


@pytest.fixture
def admin(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """Runs `henji admin` in this process."""
    monkeypatch.setenv("REDIS_URL", redis_url)

    def run(*words: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["henji", "admin", *words])
        status = commands.run()
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return run


def test_an_operator_sets_a_rule_and_unsets_it(admin: Callable[..., Ran]) -> None:
    assert admin("config", PLACE, "temperature", "0.2").out == "temperature = 0.2\n"
    assert admin("config", PLACE, "deny_people", "U1", "U2").out == "deny_people = U1, U2\n"
    assert set(admin("config", PLACE).out.splitlines()) == {
        "temperature = 0.2",
        "deny_people = U1, U2",
    }
    assert admin("config", PLACE, "temperature").out == "temperature = 0.2\n"
    assert admin("config", PLACE, "temperature", "default").out == ""
    assert admin("config", PLACE).out == "deny_people = U1, U2\n"
    admin("config", PLACE, "deny_people", "unset")
    assert admin("config", PLACE).out == ""


def test_the_default_of_thinking_is_a_value(admin: Callable[..., Ran]) -> None:
    assert admin("config", PLACE, "thinking", "default").out == "thinking = default\n"
    persona = ("config", PLACE, "persona", "quick", "thinking")
    assert admin(*persona, "default").out == "persona quick thinking = default\n"
    assert admin(*persona, "unset").out == ""
    assert admin("config", PLACE, "persona", "quick", "unset").out == ""
    assert admin("config", PLACE, "thinking", "unset").out == ""


def test_the_rules_that_hold_in_a_place_are_shown_with_their_sources(
    admin: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space, channel = "slack:T78", "slack:T78:C1"
    (tmp_path / "henji.toml").write_text(
        f"""
        top_k = 5
        [models.house]
        source = "smollm2"
        [ceilings]
        max_new_tokens = 100
        channel_messages = 900
        [quota]
        person_messages = 50
        [spaces."{space}"]
        temperature = 0.9
        top_p = 0.4
        max_new_tokens = 500
        [channels."{channel}"]
        person_messages = 7
        """
    )
    monkeypatch.setenv("HENJI_CONFIG", str(tmp_path / "henji.toml"))
    monkeypatch.setenv("HENJI_RETENTION_DAYS", "7")
    admin("config", space, "temperature", "0.2")
    admin("config", channel, "enabled", "off")
    lines = admin("config", channel, "--effective", "--json").out.splitlines()
    rows = {row["name"]: (row["value"], row["source"]) for row in map(json.loads, lines)}
    assert rows["enabled"] == ("off", f"an admin, for {channel}")
    assert rows["person_messages"] == ("7", f'[channels."{channel}"]')
    assert rows["temperature"] == ("0.2", f"an admin, for {space}")
    assert rows["top_p"] == ("0.4", f'[spaces."{space}"]')
    assert rows["top_k"] == ("5", str(tmp_path / "henji.toml"))
    assert rows["max_new_tokens"] == ("100", "[ceilings]")
    assert rows["channel_messages"] == ("900", "[ceilings]")
    assert rows["retention_days"] == ("7.0", "HENJI_RETENTION_DAYS")
    assert rows["model"] == ("smollm2", "default")
    assert "models" not in rows  # the setting of this name is not the rule's default
    everywhere = admin("config", space, "--effective").out
    assert re.search(r"person_messages +50 +\[quota\]", everywhere)
    admin("config", space, "temperature", "default")
    admin("config", channel, "enabled", "default")


def test_a_model_that_no_core_serves_is_a_warning(admin: Callable[..., Ran]) -> None:
    ran = admin("config", PLACE, "model", "nobodys")
    assert (ran.status, ran.out) == (0, "model = nobodys\n")
    assert ran.err == "No core serves nobodys now: until one does, nobody is answered here.\n"
    admin("config", PLACE, "model", "default")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((PLACE, "temperature", "hot"), "temperature is wrong"),
        ((PLACE, "temprature", "1"), "did you mean temperature?"),
        ((PLACE, "temprature"), "did you mean temperature?"),
        (("slack", "temperature", "1"), "is no place"),
        (("slak:T77", "temperature", "1"), "there is no platform slak"),
        ((PLACE, "deny_people", "@taro"), "deny_people is wrong: '@taro' is not an id"),
        ((PLACE, "enabled", "maybe"), "enabled is wrong"),
        ((PLACE, "max_new_tokens", "many"), "max_new_tokens is wrong"),
    ],
)
def test_a_wrong_rule_changes_nothing(
    admin: Callable[..., Ran], words: tuple[str, ...], said: str
) -> None:
    ran = admin("config", *words)
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert admin("config", PLACE).out == ""


@pytest.mark.parametrize("command", ["forget", "export"])
@pytest.mark.parametrize(
    ("person", "space", "said"),
    [
        (
            "U1",
            "slack:T77:C1",
            "--in is 'slack:T77:C1': a whole space is expected, as in slack:T77",
        ),
        ("slack:U1", "slack:T77", "--user is 'slack:U1': the platform's id alone is expected"),
        ("<@U1>", "slack:T77", "--user is '<@U1>': the platform's id alone"),
        (" ", "slack:T77", "--user is ' ': the platform's id alone"),
    ],
)
def test_a_person_is_forgotten_in_the_space_that_was_meant_or_not_at_all(
    admin: Callable[..., Ran], command: str, person: str, space: str, said: str
) -> None:
    ran = admin(command, "--user", person, "--in", space)
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.err


def test_every_change_and_every_read_is_in_the_audit_log(admin: Callable[..., Ran]) -> None:
    admin("config", PLACE, "top_k", "5")
    admin("config", PLACE, "top_k", "default")
    admin("forget", "--user", "U1", "--in", "slack:T77")
    admin("export", "--user", "U2", "--in", "slack:T77")
    lines = admin("audit", "slack:T77", "--json", "--most", "4").out.splitlines()
    entries = [json.loads(line) for line in lines]
    assert [(entry["act"], entry["detail"]) for entry in entries] == [
        ("export", "U2"),
        ("forget", "U1"),
        ("config", "top_k -"),
        ("config", "top_k 5"),
    ]
    assert all(entry["by"].startswith("operator") for entry in entries)
    assert "read" in admin("audit", "slack:T77").out
