"""Settings: from the environment and henji.toml, and a sentence where one is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

from bots.cli.commands import henji
from bots.cli.settings import rows_of
from bots.platforms import AllSettings, load, settings_classes
from bots.slack.settings import SlackSettings
from core import settings
from core.errors import UsageError
from core.settings import Settings


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A henji.toml to be written, where the command is started."""
    monkeypatch.delenv("HENJI_DATA_DIR", raising=False)  # the session's: it would win
    monkeypatch.delenv("HENJI_CONFIG")
    monkeypatch.delenv("HENJI_DATA_DIR", raising=False)  # of a server that another test has started
    monkeypatch.chdir(tmp_path)
    return tmp_path / "henji.toml"


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text('model = "rinna-ppo"\ntemperature = 0.5\nredis_url = "redis://there"\n')
    monkeypatch.setenv("HENJI_TEMPERATURE", "0")
    settings = load()
    assert (settings.model, settings.temperature) == ("rinna-ppo", 0.0)
    assert settings.redis_url == "redis://there"
    assert settings.top_p is None


def test_the_data_directory_may_begin_with_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HENJI_DATA_DIR", "~/henji")
    assert load().data_dir == tmp_path / "henji"


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "")
    monkeypatch.setenv("HENJI_TEMPERATURE", "")
    monkeypatch.setenv("HENJI_CONFIG", "")
    settings = load()
    assert (settings.redis_url, settings.temperature) == (None, None)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("HENJI_TEMPERATURE", "hot", r"^HENJI_TEMPERATURE is wrong: .*number"),
        ("HENJI_TEMPERATURE", "-1", r"^HENJI_TEMPERATURE is wrong: .*greater than or equal to 0"),
        ("HENJI_ENGINE", "steam", r"^HENJI_ENGINE is wrong: .*'torch', 'openai' or 'echo'"),
        ("HENJI_MODLE", "x", r"^HENJI_MODLE is not a setting of henji; did you mean HENJI_MODEL\?"),
        ("HENJI_FOO", "x", r"^HENJI_FOO is not a setting of henji$"),
        ("henji_model", "x", r"^henji_model is not .* did you mean HENJI_MODEL\?"),
        ("Henji_Modle", "x", r"^Henji_Modle is not .* did you mean HENJI_MODEL\?"),
        ("redis_url", "redis://x", r"^redis_url is not .* did you mean REDIS_URL\?"),
        ("HENJI_CONFIG", "/dev/zero", r"^/dev/zero is a pipe or a device: the settings are expec"),
        ("HENJI_REDIS_URL", "x", r"^HENJI_REDIS_URL is not .* did you mean REDIS_URL\?"),
        ("HENJI_LEASE_SECONDS", "inf", r"^HENJI_LEASE_SECONDS is wrong: .*finite"),
        ("HENJI_RETENTION_DAYS", "1e300", r"^HENJI_RETENTION_DAYS is wrong: .*less than"),
        ("HENJI_MODEL", "\udcff", r"^HENJI_MODEL is wrong: it is not text"),
        ("HENJI_DATA_DIR", "~no one/x", r"^the setting data_dir is ~no one/x: "),
        ("REDIS_URL", "redis://[::1", r"^REDIS_URL is wrong: Invalid IPv6 URL"),
        ("HENJI_OPENAI_BASE_URL", "http://[::1", r"BASE_URL is wrong: an address is expected"),
        ("HENJI_OPENAI_BASE_URL", "http://me:a/b@h", r"BASE_URL is wrong: an address is expected"),
        ("HENJI_OPENAI_BASE_URL", "http://:80", r"BASE_URL is wrong: an address is expected"),
        ("HENJI_OTLP_ENDPOINT", "http://h:99999", r"ENDPOINT is wrong: an address is expected"),
        ("HENJI_MODELS", "{", r"^HENJI_MODELS is wrong: .*JSON"),
        ("HENJI_RETENTION_DAYS", "0.5", r"^HENJI_RETENTION_DAYS is wrong: .*equal to 1"),
        ("HENJI_JOB_DEADLINE_SECONDS", "90000", r"wrong: .*less than or equal to 43200"),
        ("HENJI_WAIT_MILLISECONDS", "9000", r"wrong: .*less than or equal to 4000"),
        ("HENJI_CONFIG", "/none/henji.toml", r"/none/henji\.toml, which does not exist"),
        ("HENJI_CONFIG", "/", r"^/ is a directory: the settings are expected in a file"),
        ("HENJI_ADMINS", "slack:U1", r'^HENJI_ADMINS is wrong: .* JSON here, such as \["slack:U'),
        ("HENJI_ADMINS", '["skype:U1"]', r"^admins: there is no platform skype, only console, d"),
        ("HENJI_SLACK_PROCESES", "2", r"did you mean HENJI_SLACK_PROCESSES\?"),
        ("HENJI_SLACK_PROCESSES", "0", r"^HENJI_SLACK_PROCESSES is wrong: .*equal to 1"),
        (
            "HENJI_SLACK_ADMINS",
            '["taro"]',
            r"^HENJI_SLACK_ADMINS\.0 is wrong: an id is expected, not",
        ),
        (
            "HENJI_DISCORD_ROLES",
            '["@mods"]',
            r"^HENJI_DISCORD_ROLES\.0 is .* an id is expected, not",
        ),
        ("HENJI_DISCORD_ANSWERS", "pm", r"^HENJI_DISCORD_ANSWERS is wrong: .*'thread' or 'reply'"),
    ],
)
def test_a_wrong_variable_is_named_in_one_sentence(
    name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=sentence) as it:
        AllSettings.load()
    assert "\n" not in str(it.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('temperature = "hot"', r"^temperature in henji\.toml is wrong: .*number"),
        ('modle = "x"', r"^modle in henji\.toml is not a setting of henji; did you mean model\?"),
        ("[slack]\ntoken = 1", r"^slack in henji\.toml is not a setting"),
        ("models = 3", r"^models in henji\.toml is wrong: a table is expected"),
        ("access = []", r"^access in henji\.toml is wrong: a table is expected"),
        ('admins = "slack:U1"', r'^admins in henji\.toml is wrong: a list .* \["slack:U024"\]'),
        ("HENJI_MODEL = 'x'", r"^HENJI_MODEL in henji\.toml is not .* did you mean model\?"),
        ("x = " + 2000 * "[", r"^henji\.toml is not valid TOML: maximum recursion"),
        ("buckets = true", r"^buckets in henji\.toml is wrong: true and false are no value"),
        ('lane = "two words"', r"^lane in henji\.toml is wrong: an id or a name is expected"),
        ('admins = ["@taro"]', r"^admins\.0 in henji\.toml is wrong: an id or a name is expected"),
        ('otlp_endpoint = "here"', r"^otlp_endpoint in henji\.toml is wrong: an address is expect"),
        ('model = ""', r"^model in henji\.toml is wrong: .*at least 1 character"),
        (r'device = "\u0000"', r"^device in henji\.toml is wrong: there is a null character"),
        ("[access]\ndeny_peple = []", r"^access\.deny_peple in .* did you mean deny_people\?"),
        ("[role_quotas.9077]\nmesages = 1", r"^role_quotas\.9077\.mesages .* mean messages\?"),
        ('discord_answer = "x"', r"not a setting of henji; did you mean discord_answers\?"),
        ('model = "x', r"^henji\.toml is not valid TOML: Unterminated string"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(config: Path, text: str, sentence: str) -> None:
    config.write_text(text)
    with pytest.raises(UsageError, match=sentence) as it:
        AllSettings.load()
    assert "\n" not in str(it.value)


def test_a_wrong_secret_is_named_but_not_shown(config: Path) -> None:
    config.write_text('slack_bot_token = ["xoxb-hidden"]')
    with pytest.raises(UsageError, match=r"slack_bot_token in henji\.toml is wrong") as it:
        AllSettings.load()
    assert "hidden" not in str(it.value)


def test_a_file_that_everybody_can_write_is_refused(config: Path) -> None:
    config.write_text('model = "rinna-ppo"')
    config.chmod(0o666)
    with pytest.raises(UsageError, match=r"every user of this machine can write henji\.toml"):
        load()
    config.chmod(0o644)
    assert load().model == "rinna-ppo"


@pytest.mark.parametrize("text", ["\ufeffmodel = 'x'\r\n", "model = 'x'\r", "model = 'x'"])
def test_a_file_of_any_editor_is_read(config: Path, text: str) -> None:
    config.write_bytes(text.encode())
    assert load().model == "x"


def test_a_file_that_cannot_be_followed_is_not_taken_for_none(config: Path) -> None:
    config.symlink_to("nowhere.toml")
    with pytest.raises(UsageError, match=r"^henji\.toml links to nowhere\.toml, which does not"):
        load()
    config.unlink()
    os.mkfifo(config)
    with pytest.raises(UsageError, match=r"^henji\.toml is a pipe or a device: "):
        load()


def test_a_file_of_another_user_in_a_folder_of_everybody_is_refused(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text('model = "rinna-ppo"')
    monkeypatch.setattr(os, "getuid", lambda: config.stat().st_uid + 1)
    monkeypatch.setattr(settings, "ROOT", -1)
    tmp_path.chmod(0o1777)
    with pytest.raises(UsageError, match=r"henji\.toml is another user's"):
        load()
    tmp_path.chmod(0o755)
    assert load().model == "rinna-ppo"


def test_tables_are_printed_too(config: Path) -> None:
    config.write_text('[models.house]\nsource = "/srv"\n[role_quotas.9077]\nmessages = 1\n')
    rows = {row.name: row.value for row in rows_of(AllSettings.load())}
    assert rows["models"] == '{"house": {"source": "/srv"}}'
    assert rows["role_quotas"] == '{"9077": {"messages": 1}}'
    assert rows["spaces"] == "-"


def test_every_setting_is_printed_with_its_source_and_without_secrets(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("temperature = 0.5\nretention_days = 7\n[quota]\nperson_messages = 9\n")
    (tmp_path / "token").write_text("xoxb-hidden")
    monkeypatch.setenv("HENJI_RETENTION_DAYS", "14")
    monkeypatch.setenv("SLACK_BOT_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("REDIS_URL", "redis://me:hidden@there:6379")
    rows = {row.name: row for row in rows_of(AllSettings.load())}
    expected = {
        "temperature": ("0.5", "henji.toml"),
        "retention_days": ("14.0", "HENJI_RETENTION_DAYS"),
        "quota": ('{"person_messages": 9}', "henji.toml"),
        "slack_bot_token": ("[secret]", "SLACK_BOT_TOKEN_FILE"),
        "redis_url": ("redis://me:[secret]@there:6379", "REDIS_URL"),
        "discord_answers": ("thread", "default"),
        "top_p": ("-", "default"),
    }
    assert {name: (rows[name].value, rows[name].source) for name in expected} == expected
    assert "hidden" not in str(rows)
    kinds: list[type[Settings]] = [Settings, *settings_classes().values()]
    assert set(rows) == {name for kind in kinds for name in kind.model_fields}


def test_the_settings_command_names_the_file_that_was_read(config: Path) -> None:
    config.write_text("temperature = 0.5")
    table = CliRunner().invoke(henji, ["settings"]).output.splitlines()
    assert table[0] == f"settings file: {config}"
    assert any(line.split() == ["temperature", "0.5", "henji.toml"] for line in table)
    config.unlink()
    assert "(there is none)" in CliRunner().invoke(henji, ["settings"]).output
    rows = CliRunner().invoke(henji, ["settings", "--json"]).output.splitlines()
    assert {"name": "engine", "value": "torch", "source": "default"} in map(json.loads, rows)


def test_secrets_may_be_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("xoxb-from-a-file\n")
    monkeypatch.setenv("SLACK_BOT_TOKEN_FILE", str(tmp_path / "token"))
    (tmp_path / "key").write_text("sk-from-a-file\n")
    monkeypatch.setenv("HENJI_OPENAI_API_KEY_FILE", str(tmp_path / "key"))
    settings = load(SlackSettings)
    assert settings.slack_bot_token is not None
    assert settings.slack_bot_token.get_secret_value() == "xoxb-from-a-file"
    assert settings.openai_api_key is not None
    assert "sk-" not in repr(settings)


def test_space_around_a_secret_is_not_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", " xoxb-1\r\n")
    monkeypatch.setenv("DISCORD_BOT_TOKEN", " ")
    monkeypatch.setenv("REDIS_URL", "redis://there\r")
    every = AllSettings.load()
    assert every.redaction.redact("two words, xoxb-1") == "two words, [secret]"
    assert every.core.redis_url == "redis://there"
    assert not every.platforms["discord"].has_tokens


def test_a_secret_of_two_lines_is_named_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("xoxb-hidden\n# the bot's\n")
    monkeypatch.setenv("SLACK_BOT_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(UsageError, match=r"^SLACK_BOT_TOKEN_FILE is wrong: .* a line end") as error:
        AllSettings.load()
    assert "hidden" not in str(error.value)


def test_a_secret_that_is_set_twice_or_whose_file_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="SLACK_BOT_TOKEN_FILE cannot be read"):
        AllSettings.load()
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb")
    with pytest.raises(UsageError, match="both SLACK_BOT_TOKEN and SLACK_BOT_TOKEN_FILE"):
        AllSettings.load()


def test_each_platform_with_a_token_has_a_process() -> None:
    assert AllSettings.load().bots == ()
    assert AllSettings.load(discord_bot_token="a.b.c").bots == ("discord",)
    assert AllSettings.load(slack_bot_token="xoxb", slack_app_token="xapp").bots == ("slack",)


def test_half_of_a_platforms_tokens_are_an_error() -> None:
    half = AllSettings.load(slack_bot_token="xoxb", discord_bot_token="a.b.c")
    with pytest.raises(UsageError, match=r"^SLACK_APP_TOKEN is not set"):
        assert half.bots


def test_the_lane_is_the_models_name_unless_it_is_set() -> None:
    assert load(model="rinna-ppo").job_lane == "rinna-ppo"
    assert load(engine="echo").job_lane == "echo"
    assert load(lane="fast").job_lane == "fast"


NUMBERS = [name for name, field in Settings.model_fields.items()
           if {int, float} & {field.annotation, *get_args(field.annotation)}]  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["inf", "nan", "-1e300", "1e300", "true", '"many"', "[]"])
def test_every_number_has_limits(config: Path, name: str, value: str) -> None:
    config.write_text(f"{name} = {value}")
    with pytest.raises(UsageError, match=rf"^{name} in henji\.toml is wrong: ") as it:
        load()
    assert "\n" not in str(it.value)


def test_the_file_is_read_as_utf_8_in_every_locale(tmp_path: Path) -> None:
    file = tmp_path / "henji.toml"
    file.write_text('system_prompt = "返事"', encoding="utf-8")
    program = (
        "from core.settings import Settings, load_settings, source_of\n"
        "print(ascii(load_settings().system_prompt), source_of(Settings, 'system_prompt'))"
    )
    ascii_locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **ascii_locale, "HENJI_CONFIG": str(file)},
        capture_output=True,
        text=True,
    )
    assert (ran.stdout, ran.stderr) == (f"{'返事'!a} {file}\n", "")
