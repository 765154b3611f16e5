"""Every command, setting, path and metric that a page names is there, and the commands work."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from bots.cli.commands import benchmark_names
from bots.cli.commands import henji as henji_command
from bots.platforms import load, settings_classes
from bots.strings import en
from core.observe import metrics
from core.place_rules import NAMES as RULES
from core.settings import Settings, environment_name
from tests.compose_redis import compose_redis
from tests.pages import (
    PAGES,
    ROOT,
    Command,
    blocks,
    commands,
    commands_in_comments,
    inline,
    page_of,
    read,
    rewritten,
    with_tables,
)
from tests.processes import in_a_shell
from tests.test_docker import services
from tests.test_kubernetes import WORKLOADS

DOCKER = ROOT / "docker"
KINDS: tuple[type[Settings], ...] = (Settings, *settings_classes().values())
FILES = [str(path.relative_to(ROOT)) for path in sorted(DOCKER.rglob("*"))
         if path.suffix in (".yaml", ".env", ".Dockerfile")]  # fmt: skip
EVERY = [command for page in PAGES for command in commands(page)]
EVERY += [command for file in FILES for command in commands_in_comments(file)]


def test_the_pages_have_commands() -> None:
    assert len(EVERY) > 80
    assert {command.words[0] for command in EVERY} >= {"henji", "make", "docker", "kubectl"}


# -- commands -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", EVERY, ids=str)
def test_a_command_of_a_page_works_as_written(command: Command) -> None:
    name, *words = command.words
    name = name.removeprefix(".venv/bin/").removeprefix("/opt/henji/bin/")
    checks: dict[str, Any] = {
        "henji": check_henji, "make": check_make, "docker": check_docker, "kubectl": check_kubectl,
        "cp": check_source, "install": check_source, "pip": check_pip, "systemctl": check_unit,
        "journalctl": check_unit, "python": check_module, "python3": check_module,
        "pytest": check_nothing, "rm": check_nothing, "git": check_nothing, "echo": check_nothing,
        "mkdir": check_nothing, "printf": check_secret, "openssl": check_secret,
        "redis-cli": check_redis, "vllm": check_nothing,
    }  # fmt: skip
    checks[name](words, command)  # a KeyError is a command that nothing here knows
    for variable in command.variables:
        check_variable(variable)


def check_nothing(words: list[str], command: Command) -> None:
    """What is none of ours."""


PLACEHOLDERS = ("NAME", "toy")
"""A platform's name; the tutorial's platform, which tests/test_new_platform.py adds and runs."""

UNSAID = (click.MissingParameter, click.BadOptionUsage)


def check_henji(words: list[str], command: Command | None = None) -> None:
    """click takes the words: names of commands, options, and the number of arguments."""
    group: click.Command = henji_command
    context = click.Context(group, info_name="henji")
    while isinstance(group, click.Group) and words and not words[0].startswith("-"):
        name, *words = words
        if name in PLACEHOLDERS:
            return
        found = group.get_command(context, name)
        assert found, f"{group.name} has no command {name}"
        group, context = found, click.Context(found, parent=context, info_name=name)
    if isinstance(group, click.Group):
        assert command, f"henji {group.name} alone does nothing"
        assert command.named
    else:
        with suppress(*(UNSAID if command is not None and command.named else ())):
            group.make_context(group.name, list(words), parent=context.parent)
    if group.name == "bench" and words:
        assert words[0] in benchmark_names(ROOT)


def check_make(words: list[str], command: Command) -> None:
    text = (ROOT / "Makefile").read_text()
    (targets,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert {word for word in words if "=" not in word} <= set(targets.split())
    helped = set(re.findall(r'@echo "make ([\w-]+)', text))
    assert set(targets.split()) - {"help", "clean"} <= helped


OPTIONS = {
    "up": {"-d": 0, "--scale": 1}, "logs": {"-f": 0}, "exec": {"-T": 0}, "build": {}, "stop": {},
    "run": {"--rm": 0, "-T": 0, "--no-deps": 0}, "down": {"--volumes": 0, "--rmi": 1},
}  # fmt: skip
"""Of ``docker compose``: verbs and options that a page may use -> how many words follow."""


def check_docker(words: list[str], command: Command) -> None:
    if words[0] == "build":
        assert all((ROOT / path).is_file() for path in re.findall(r"-f (\S+)", command.line))
        return
    assert words[0] == "compose", command
    words = words[1:]
    path, profiles = DOCKER / "compose.yaml", _example()["COMPOSE_PROFILES"].split(",")
    while words[0].startswith("-"):
        option, value, *words = words
        if option == "-f":
            path = ROOT / value
        else:
            assert option == "--profile"
            profiles.append(value)
    there = services(path)
    active = {
        name for name, service in there.items()
        if not service.get("profiles") or {*service["profiles"]} & {*profiles} or "*" in profiles
    }  # fmt: skip
    verb, *words = words
    while words and words[0].startswith("-"):
        option, *words = words
        for value in words[: OPTIONS[verb][option]]:
            assert option != "--scale" or value.partition("=")[0] in active
        words = words[OPTIONS[verb][option] :]
    assert not words or words[0] in active, f"{words[0]} does not run with these profiles"
    if verb in ("exec", "run"):
        service, program, *arguments = words
        if program == "henji":
            check_henji(arguments)
        else:
            (mount,) = (v for v in there[service]["volumes"] if v.endswith(":/henji:ro"))
            assert (DOCKER / mount.split(":")[0] / Path(program).name).is_file()


def _example() -> dict[str, str]:
    lines = (DOCKER / "example.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def check_kubectl(words: list[str], command: Command) -> None:
    if words[0] == "-n":
        assert words[1] == "henji"
        words = words[2:]
    verb, *words = words
    match verb:
        case "create":
            for path in re.findall(r"--from-file=(\S+)", command.line):
                assert path == "docker/secrets" or (ROOT / path).exists()
        case "apply":
            assert (ROOT / words[words.index("-k") + 1] / "kustomization.yaml").is_file()
        case "rollout":
            for word in words[1:]:
                kind, _, name = word.partition("/")
                assert WORKLOADS[name]["kind"].lower() == kind
        case "exec":
            pod, dashes, program, *arguments = words
            assert WORKLOADS[pod.removesuffix("-0")]["kind"] == "StatefulSet"
            assert dashes == "--"
            if program == "henji":
                check_henji(arguments)
            else:
                assert (DOCKER / "redis" / Path(arguments[0]).name).is_file()
        case _:
            pytest.fail(f"kubectl {verb} is not known here")


def check_source(words: list[str], command: Command) -> None:
    """What is copied is there."""
    plain = [word for word in words if not word.startswith("-") and not word.isdigit()]
    if len(plain) > 1:
        assert plain[0] == "/dev/null" or (ROOT / plain[0]).exists()


def check_pip(words: list[str], command: Command) -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    for extras in re.findall(r"\[([\w,]+)\]", command.line):
        assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    if "--constraint" in words:
        assert (ROOT / words[words.index("--constraint") + 1]).is_file()


def check_unit(words: list[str], command: Command) -> None:
    assert "henji" in words
    assert (DOCKER / "systemd" / "henji.service").is_file()


def check_module(words: list[str], command: Command) -> None:
    module = words[words.index("-m") + 1]
    path = ROOT / module.replace(".", "/")
    assert module == "venv" or path.with_suffix(".py").is_file() or path.is_dir(), module


def check_secret(words: list[str], command: Command) -> None:
    """What is written into docker/secrets is a secret of a compose file."""
    for name in re.findall(r"> docker/secrets/(\w+)", command.line):
        assert name in _secrets()


def _secrets() -> set[str]:
    files = [DOCKER / "compose.yaml", DOCKER / "compose.http.yaml"]
    return {name for path in files for name in yaml.safe_load(path.read_text())["secrets"]}


def check_redis(words: list[str], command: Command) -> None:
    """tests/test_upgrades.py gives these to a server; here only their form."""
    plain = [word for word in words if not word.startswith("-")]
    assert {"bgsave", "config"} & {*plain} or "--rdb" in words, command


# -- commands that are run ----------------------------------------------------------------------

CHEAP = ("henji chat", "henji manifest", "henji tokenize", "henji models", "henji admin audit",
         "henji admin feedback", "henji admin threads")  # fmt: skip
"""What runs within a moment, with the echo engine and an empty memory."""


def is_cheap(command: Command) -> bool:
    try:
        check_henji(list(command.words[1:]))
    except (*UNSAID, AssertionError):
        return False
    rest = {"pull", *PLACEHOLDERS} & {*command.words}
    return command.line.startswith(CHEAP) and not rest


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("command", [c for c in EVERY if is_cheap(c)], ids=str)
async def test_a_command_of_a_page_that_needs_nothing_else_works(
    command: Command, redis_url: str, tmp_path: Path
) -> None:
    line = command.line.replace("PLATFORM:SPACE", "slack:T024").replace("PLACE", "slack:T024")
    line = line.replace("TEXT", "hello").replace("--url ...", "--url https://bot.example.com")
    line = f"{line} --once hello" if line == "henji chat" else line
    line = f"echo hello | {line}" if line.endswith("--once -") else line
    ran = await in_a_shell(line, REDIS_URL=redis_url, HENJI_DATA_DIR=str(tmp_path))
    assert ran.status == 0, ran.err


async def test_the_pipe_of_the_readme_works(redis_url: str, tmp_path: Path) -> None:
    (line,) = re.findall(r"^\$ (echo .*)$", read("README.md"), re.MULTILINE)
    ran = await in_a_shell(line, REDIS_URL=redis_url, HENJI_DATA_DIR=str(tmp_path))
    assert (ran.status, ran.out.strip()) == (0, "echo: And of France?")


def test_the_first_steps_make_every_secret_and_name_the_parts(tmp_path: Path) -> None:
    """Those of docker/README.md, given to a shell in a copy of the folder."""
    shutil.copytree(DOCKER, tmp_path / "docker", ignore=shutil.ignore_patterns("secrets"))
    shell = "mkdir|printf|openssl|cp docker"
    lines = [line for block in blocks("docker/README.md", "console")
             for line in re.findall(rf"(?m)^\$ ((?:{shell}).*)$", block)]  # fmt: skip
    subprocess.run(["sh", "-euc", "\n".join(lines)], cwd=tmp_path, check=True)
    made = {path.name for path in (tmp_path / "docker/secrets").iterdir()}
    named = set(re.findall(r"docker/secrets/(\w+)", read("docker/README.md")))
    assert made == {"redis_url", "slack_bot_token", "slack_app_token", "grafana_password",
                    "alert_webhook"}  # fmt: skip
    assert named == _secrets() == made | {"discord_bot_token", "slack_signing_secret"}
    url = (tmp_path / "docker/secrets/redis_url").read_text()
    assert re.fullmatch(r"redis://:[0-9a-f]{64}@redis:6379/0", url)
    assert (tmp_path / ".env").read_text() == (DOCKER / "example.env").read_text()


async def test_the_backup_of_the_page_is_restored_by_the_page(tmp_path: Path) -> None:
    given = [command.words for command in commands("docker/README.md")]
    compose = [words for words in given if words[:2] == ("docker", "compose") and "redis" in words]
    backup, restore = (words[words.index("redis") + 1 :] for words in compose)
    async with compose_redis(tmp_path) as server:
        await server.client.set("thread", "as it was")
        kept = await server.script(Path(backup[0]).name, *backup[1:])
        await server.client.set("thread", "later")
    await server.script(Path(restore[0]).name, *restore[1:], given=kept)
    async with compose_redis(tmp_path) as server:
        assert await server.client.get("thread") == "as it was"


# -- settings, paths, metrics -------------------------------------------------------------------

OTHERS = {
    "PATH", "HF_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "TORCH_INDEX_URL",
    "COMPOSE_FILE", "COMPOSE_PROFILES", "HENJI_CONFIG", "HOME",
    "HENJI_SLACK_WEB_API", "HENJI_TEST_DATA",
}  # fmt: skip
"""Variables that others read, or the build."""


def check_variable(name: str) -> None:
    settings = {environment_name(kind, setting) for kind in KINDS for setting in kind.model_fields}
    composed = "".join(path.read_text() for path in DOCKER.rglob("*.yaml"))
    known = {*settings, *(f"{setting}_FILE" for setting in settings), *OTHERS}
    assert name in known or f"${{{name}" in composed, f"there is no variable {name}"


EVERY_CODE = [pytest.param(page, code, id=f"{page}: {code}")
              for page in PAGES if page != "storage/PRIVACY.md"  # written from the code
              for code in inline(page)]  # fmt: skip

ENDINGS = (".py", ".toml", ".yaml", ".md", ".lua", ".env", ".txt", ".service", ".sh", ".Dockerfile")
ELSEWHERE = (
    "~/",
    "dist/",
    "/opt/henji",
    "/etc/henji",
    "/var/lib/henji",
    "/srv/",
    "docker/secrets/",
)
SERVED = ("/healthz", "/readyz", "/metrics", "/slack/events", "/slack/install")
LIBRARIES = ("export_svg",)
MADE_UP = ("test_NAME", "henji.toml", "dump.rdb", ".env")


@pytest.mark.parametrize(("page", "code"), EVERY_CODE)
def test_inline_code_names_existing_things(page: str, code: str) -> None:
    if page == "CONTRIBUTING.md" and "toy" in code.lower():
        return
    if variable := re.fullmatch(r"(?:\*_FILE|([A-Z][A-Z0-9]*_[A-Z0-9_]+)(/redis|=.*)?)", code):
        if variable[1]:
            check_variable(variable[1])
    elif code.startswith(("/henji", "@henji", "@Henji", "/invite")):
        _check_slack(code)
    elif re.fullmatch(r"/[a-z]+( [a-z]+)?", code) and not code.startswith((*SERVED, *ELSEWHERE)):
        _check_discord(code)
    elif _is_path(code):
        _check_path(page, code)
    elif code.startswith("henji_"):
        assert code in metrics.names()
    elif re.fullmatch(r"Henji[A-Z]\w+", code):
        assert re.search(rf"alert: {code}\b", read("docker/monitoring/alerts.yaml"))
    elif name := re.fullmatch(r"([a-z]+(?:_[a-z0-9]+)+)( = .*)?", code):
        _check_name(name[1])


def _check_slack(code: str) -> None:
    sources = read("bots/slack/commands.py") + read("bots/slack/convert.py")
    for word in code.split()[1:2]:
        assert word in ("@Henji", "hello", "[space]") or f'"{word}"' in sources, code


def _check_discord(code: str) -> None:
    names = {key.removeprefix("cmd_") for key in en.ENGLISH if key.startswith("cmd_")}
    source = read("bots/discord/admin_commands.py")
    group, _, word = code.removeprefix("/").partition(" ")
    assert group in names | {"admin"}
    assert not word or word in names or f'"{word}"' in source or word == "private", code


def _is_path(code: str) -> bool:
    return bool(re.fullmatch(r"[\w./~*-]+", code)) and (
        "/" in code.strip("/") or code.endswith(("/", *ENDINGS)) or code.startswith("/")
    )


def _check_path(page: str, code: str) -> None:
    if code in SERVED or code.startswith(ELSEWHERE) or any(word in code for word in MADE_UP):
        return
    places = [ROOT, (ROOT / page).parent, ROOT / "docker" / "kubernetes", ROOT / "bots/console"]
    there = any((place / code).exists() for place in places)
    assert there or ("/" not in code and any(ROOT.glob(f"bots/**/{code}"))), f"no {code}"


def _check_name(name: str) -> None:
    """A setting, a rule, or at least a word of the code or of what it is run with."""
    settings = {setting for kind in KINDS for setting in kind.model_fields}
    if name in settings or name in RULES or name in _secrets() or name in LIBRARIES:
        return
    files = [*(ROOT / "core").rglob("*.py"), *(ROOT / "bots").rglob("*.py")]
    files += [*(ROOT / "storage").rglob("*.py"), DOCKER / "compose.yaml"]
    assert any(re.search(rf"\b{name}", path.read_text()) for path in files), f"nothing is {name}"


@pytest.mark.parametrize("page", PAGES)
def test_the_settings_files_of_a_page_are_understood(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, text in enumerate(blocks(page, "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        monkeypatch.setenv("HENJI_CONFIG", str(file))
        assert load().model_fields_set


def test_every_command_of_the_program_is_on_a_page() -> None:
    said = " ".join(command.line for page in PAGES for command in commands(page))
    context = click.Context(henji_command)
    for name in henji_command.list_commands(context):
        command = henji_command.get_command(context, name)
        assert f"henji {name}" in said
        for word in command.list_commands(context) if isinstance(command, click.Group) else ():
            assert f"henji {name} {word}" in said


def test_the_installation_takes_torchs_build_from_the_index_that_is_named() -> None:
    made = subprocess.run(
        ["make", "--dry-run", "--always-make", "setup", "TORCH_INDEX_URL=https://index.example"],
        cwd=ROOT, capture_output=True, text=True,
    ).stdout  # fmt: skip
    first, second, *_ = (line for line in made.splitlines() if "--constraint" in line)
    assert first.endswith("--index-url https://index.example torch")
    assert "--editable" in second


# -- the commands of the platforms ----------------------------------------------------------------


def test_the_tables_of_commands_are_those_of_the_code() -> None:
    assert {"slack", "discord"} <= {*with_tables()}
    for name in with_tables():
        page = page_of(name).read_text()
        assert rewritten(name, page) == page, "make docs writes it"
