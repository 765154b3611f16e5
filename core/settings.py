"""Every setting of the project, read once at the door and passed down.

Each setting is an environment variable (``HENJI_`` and its name, or the name that everyone knows,
such as ``REDIS_URL``) and a key of the same name in ``henji.toml``; the environment wins.
"""

from __future__ import annotations

import os
import tomllib
from datetime import UTC, tzinfo
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from core.access_policy import AccessLists, Allowance, Policy
from core.errors import UsageError
from core.place_rules import Entry, Lane, Rules, read_rules

PREFIX = "HENJI_"

PLATFORMS = ("slack", "discord", "console")
"""What the name of a place or of a person may begin with."""


Url: TypeAlias = Annotated[str, StringConstraints(pattern=r"^(http|ws)s?://[^\s/]\S*$")]


def _data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "henji"


def _named(*names: str, **kwargs: Any) -> Any:
    """A field that the environment calls by a name of its own."""
    return Field(validation_alias=AliasChoices(*names), **kwargs)


class Settings(BaseSettings):
    """The settings, validated. `load_settings` makes them and words what is wrong."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        env_ignore_empty=True,
        allow_inf_nan=False,
    )

    # Where things are
    data_dir: Path = Field(default_factory=_data_dir)
    """The embedded Redis, converted models and the console's name live here."""
    redis_url: str | None = _named("REDIS_URL", "redis_url", default=None)
    """None: the embedded server."""
    buckets: int | None = Field(default=None, ge=1, le=1024)
    """Hash tags that the keys are spread over; by default 16 on a Cluster, else 1. Every process
    must have the same, from the first message on."""
    wait_replicas: int = Field(default=0, ge=0, le=100)
    """Replicas that must have a message, or a reply, before it counts; not on a Cluster."""
    wait_milliseconds: int = Field(default=1000, ge=1, le=4000)
    """Less than a command may take."""

    # The model and its engine
    model: str = Field(default="smollm2", min_length=1)
    """A name of the catalogue, a hub id, or a directory."""
    engine: Literal["torch", "openai", "echo"] = "torch"
    lane: Lane | None = None
    """The ready queue that a core serves and jobs go to; by default the model's name."""
    system_prompt: str = ""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    device: str = "auto"
    context_length: int | None = Field(default=None, ge=16, le=10**7)
    max_new_tokens: int | None = Field(default=None, ge=1, le=10**7)
    """The longest reply; by default what the model's card says."""
    temperature: float | None = Field(default=None, ge=0, le=5)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=10**6)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    speaker_names: bool = False
    """Write people's names into their turns."""
    low_water: float = Field(default=0.7, gt=0, le=1)
    """When a prompt is over its budget, old turns go until this part of it is left."""
    echo_tokens_per_second: float = Field(default=0.0, ge=0, le=10**6)
    """0: at once."""
    places: int | None = Field(default=None, ge=1, le=4096)
    """Replies that are written at once; by default 32 on a CPU, 256 on a GPU, 64 on a server."""
    step_tokens: int | None = Field(default=None, ge=16, le=10**6)
    """Tokens the torch engine computes in one step: more is faster for long prompts, fewer keeps
    the replies that stream beside them steady. By default 256 on a CPU, 2048 on a GPU."""
    cache_gb: float | None = Field(default=None, gt=0, le=10_000)
    """The torch engine's key-value cache; by default a part of the memory that is free."""
    int8_weights: bool = False
    """On a CPU: round the weights to int8, which is faster and a little less exact."""
    models: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Models of one's own: [models.NAME] tables in henji.toml."""

    # The queue
    lease_seconds: float = Field(default=15.0, ge=0.2, le=3600)
    """A core that has not renewed for so long has lost its jobs."""
    max_attempts: int = Field(default=3, ge=1, le=100)
    job_deadline_seconds: float = Field(default=3600.0, gt=0, le=43_200)
    """Past it a message is answered with a sentence only; what belongs to it is kept for a day."""
    drain_seconds: float = Field(default=20.0, ge=0, le=3600)
    """How long a core that is told to stop goes on with what it holds."""
    max_waiting: int = Field(default=10_000, ge=1, le=10**9)
    max_waiting_per_channel: int = Field(default=1_000, ge=1, le=10**9)
    max_waiting_per_person: int = Field(default=100, ge=1, le=10**9)
    max_waiting_per_thread: int = Field(default=20, ge=1, le=10**9)
    answer_together: bool = True
    """Messages of one person that wait together get one reply."""
    retention_days: float = Field(default=30.0, ge=1, le=400)
    """A thread that is quiet for so long is forgotten."""

    # Who may, and what holds where: see core/place_rules.py
    access: AccessLists = AccessLists()
    """[access]: allow and deny lists."""
    admins: tuple[Entry, ...] = ()
    """People and roles who may administer, beside those the platform says: ``slack:U024``."""
    quota: Rules = Rules()
    """[quota]: rules that hold everywhere, such as person_messages = 50."""
    role_quotas: dict[str, Allowance] = Field(default_factory=dict)
    """[role_quotas.ROLE]: messages and tokens a day for each person with the role."""
    spaces: dict[str, Rules] = Field(default_factory=dict)
    """[spaces."slack:T024"]: the rules of a Slack workspace or a Discord guild."""
    channels: dict[str, Rules] = Field(default_factory=dict)
    """[channels."slack:T024:C123"]: the rules of a channel."""
    timezone: str = "UTC"
    """At its midnight a new day of quotas begins: Asia/Tokyo, say."""
    audit_days: float = Field(default=365.0, ge=1, le=36_500)
    """How long the record of who reset, forgot, changed or read what is kept."""

    # What people see, and what operators see
    locale: Literal["auto", "ja", "en"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["people", "json"] = "people"
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """/healthz, /readyz and /metrics of each process are served here; 0: nowhere."""
    otlp_endpoint: Url | None = None
    """A collector that traces are sent to, such as http://localhost:4318/v1/traces."""
    log_content: bool = False
    """Write what people and the model say into the log."""

    # Slack and Discord
    slack_bot_token: SecretStr | None = _named("SLACK_BOT_TOKEN", "slack_bot_token", default=None)
    slack_app_token: SecretStr | None = _named("SLACK_APP_TOKEN", "slack_app_token", default=None)
    slack_signing_secret: SecretStr | None = _named(
        "SLACK_SIGNING_SECRET", "slack_signing_secret", default=None
    )
    slack_api_url: Url = _named("SLACK_API_URL", "slack_api_url", default="https://slack.com/api/")
    slack_follow_ups: Literal["always", "alone", "mention"] = "alone"
    """Messages without a mention in the bot's threads: answered always, only as long as people do
    not talk among themselves, or never."""
    slack_strangers: Literal["answer", "sentence", "ignore"] = "sentence"
    """People of other workspaces, in channels shared with them."""
    slack_allowed_bots: frozenset[str] = frozenset()
    """Ids of bots that are answered when they mention this one."""
    slack_admins: frozenset[str] = frozenset()
    """Ids of people who may do what the workspace's admins may."""
    slack_streaming: bool = True
    """Native streaming, where Slack has room for it."""
    slack_processes: int = Field(default=1, ge=1, le=10)
    """How many adapters share the workspace's rate limits."""
    slack_http_port: int | None = Field(default=None, ge=0, le=65535)
    """Events by HTTP on this port, instead of Socket Mode."""
    slack_http_host: str = "127.0.0.1"
    slack_client_id: str | None = None
    slack_client_secret: SecretStr | None = None
    """With the client id: installable in several workspaces, by OAuth."""
    discord_bot_token: SecretStr | None = _named(
        "DISCORD_BOT_TOKEN", "discord_bot_token", default=None
    )
    discord_api_url: Url | None = _named("DISCORD_API_URL", "discord_api_url", default=None)
    discord_gateway_url: Url | None = _named(
        "DISCORD_GATEWAY_URL", "discord_gateway_url", default=None
    )
    discord_answers: Literal["thread", "reply"] = "thread"
    """Whether a mention in a channel opens a thread, or is answered there."""
    discord_followups: Literal["auto", "always", "alone", "mention"] = "auto"
    """Whether people need to mention the bot again in a thread that it takes part in. ``alone``:
    not while they are alone with it, or were the last it spoke to; auto: not in the threads that it
    opened, and ``alone`` in those of others.
    """
    discord_message_content: Literal["auto", "on", "off"] = "auto"
    """Whether to ask for the Message Content intent; auto: if the developer portal grants it."""
    discord_guild: int | None = Field(default=None, ge=1, lt=2**64)
    """Register the commands in this guild alone, where they appear at once; for trying."""
    discord_shards: int | None = Field(default=None, ge=1, le=100_000)
    """How many shards there are in all; by default as many as Discord recommends."""
    discord_most_shards: int | None = Field(default=None, ge=1, le=100_000)
    """How many of them this process takes at the most; by default all that nobody holds."""

    # The remote engine
    openai_base_url: Url | None = None
    openai_api_key: SecretStr | None = None
    openai_model: str | None = None
    """What the server calls the model; by default the first that it lists."""
    openai_seeds: bool = True
    """Whether it is told each reply's seed; vLLM 0.32 on a CPU ends at the second at a time."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config_file())

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_what_cannot_be_meant(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, str) and "\0" in value:
            raise ValueError("there is a null character in it")
        if isinstance(value, bool) and field.annotation is not bool:
            raise ValueError("true and false are no value for it")
        return value

    @field_validator("data_dir")
    @classmethod
    def _find_home(cls, path: Path) -> Path:
        try:
            return path.expanduser().absolute()
        except RuntimeError as error:
            raise UsageError(f"the setting data_dir is {path}: {error}") from None

    @field_validator("redis_url")
    @classmethod
    def _read_url(cls, url: str | None) -> str | None:
        urlsplit(url or "")  # its ValueError says what is wrong
        return url

    @field_validator("quota", mode="before")
    @classmethod
    def _read_quota(cls, table: Any) -> Any:
        return table if isinstance(table, Rules) else read_rules(_parsed(table), "[quota]")

    @field_validator("spaces", "channels", mode="before")
    @classmethod
    def _read_places(cls, tables: Any, info: ValidationInfo) -> Any:
        colons = {"spaces": 1, "channels": 2}[info.field_name or ""]
        found = {}
        for place, table in _parsed(tables).items():
            where = f'[{info.field_name}."{place}"]'
            parts = place.split(":")
            if len(parts) != 1 + colons or not all(parts):
                raise UsageError(f"{where}: a name such as {'slack:T024:C123'[: 5 + 5 * colons]}")
            _know_platform(parts[0], where)
            found[place] = read_rules(table, where)
        return found

    @field_validator("access", "admins", mode="after")
    @classmethod
    def _read_lists(cls, value: Any, info: ValidationInfo) -> Any:
        lists = value.model_dump() if isinstance(value, AccessLists) else {"": value}
        for name, entries in lists.items():
            for entry in entries:
                if ":" in entry:
                    where = ".".join(filter(None, (info.field_name, name)))
                    _know_platform(entry.partition(":")[0], where)
        return value

    @field_validator("timezone")
    @classmethod
    def _know_timezone(cls, name: str) -> str:
        _zone(name)
        return name

    @property
    def policy(self) -> Policy:
        """The rules of the file, ready to decide."""
        return Policy(
            access=self.access,
            everywhere=self.quota,
            spaces=self.spaces,
            channels=self.channels,
            roles=self.role_quotas,
            admins=self.admins,
            zone=_zone(self.timezone),
        )

    @property
    def job_lane(self) -> str:
        """The lane that jobs go to and a core serves."""
        return self.lane or ("echo" if self.engine == "echo" else self.model)

    @property
    def slack_by_oauth(self) -> bool:
        """Whether workspaces install the app, rather than that its token is in the settings."""
        return self.slack_client_id is not None and self.slack_client_secret is not None

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platforms that there are tokens for."""
        by_http = self.slack_http_port is not None
        has = {
            "slack": (self.slack_bot_token and (self.slack_app_token or by_http))
            or (self.slack_by_oauth and by_http),
            "discord": self.discord_bot_token,
        }
        return tuple(name for name, tokens in has.items() if tokens)


def _know_platform(name: str, where: str) -> None:
    """UsageError for a platform that there is not: what is said of it would hold nowhere."""
    if name not in PLATFORMS:
        raise UsageError(f"{where}: there is no platform {name}, only {', '.join(PLATFORMS)}")


def _zone(name: str) -> tzinfo:
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"the setting timezone is {name!r}, which this machine does not know: Asia/Tokyo, say"
        ) from None


def _parsed(table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise UsageError("spaces, channels and quota are tables in henji.toml")
    return table


def is_text(words: str) -> bool:
    """Whether words that came from outside are text: what could not be decoded is not."""
    try:
        words.encode()
    except UnicodeEncodeError:
        return False
    return True


def config_file() -> Path:
    """``HENJI_CONFIG``, or ``henji.toml`` where the command was started."""
    return Path(os.environ.get(PREFIX + "CONFIG", "henji.toml"))


def load_settings(**overrides: Any) -> Settings:
    """The settings of this process; UsageError, one sentence, where one is wrong."""
    _check_config_file()
    _check_environment_names()
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**_secrets_from_files(), **given)
    except ValidationError as error:
        raise UsageError(_sentence(error)) from None
    except SettingsError as error:  # a list or table in the environment that is no JSON
        raise UsageError(f"{str(error).split(chr(10))[0]}: it must be JSON") from None


def environment_name(setting: str) -> str:
    """What the environment calls a setting."""
    alias = Settings.model_fields[setting].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else PREFIX + setting.upper()


def _secret_settings() -> list[str]:
    """Those that ``NAME_FILE`` may hold, as containers are given secrets."""
    fields = Settings.model_fields.items()
    secret = [name for name, field in fields if SecretStr in get_args(field.annotation)]
    return [*secret, "redis_url"]


def _secrets_from_files() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for setting in _secret_settings():
        name = environment_name(setting)
        path = os.environ.get(f"{name}_FILE")
        if not path:
            continue
        if os.environ.get(name):
            raise UsageError(f"both {name} and {name}_FILE are set: one of them must go")
        try:
            found[setting] = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{name}_FILE cannot be read: {error}") from None
    return found


def _check_config_file() -> None:
    path = config_file()
    if PREFIX + "CONFIG" in os.environ and not path.exists():
        raise UsageError(f"{PREFIX}CONFIG names {path}, which does not exist")
    try:
        tomllib.loads(path.read_text() if path.is_file() else "")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None


def _check_environment_names() -> None:
    known = {environment_name(name) for name in Settings.model_fields} | {PREFIX + "CONFIG"}
    known |= {f"{environment_name(name)}_FILE" for name in _secret_settings()}
    for name, value in os.environ.items():
        if name.startswith(PREFIX) and name not in known:
            raise UsageError(f"{name} is not a setting of henji{_nearest(name, known)}")
        if name in known and not is_text(value):
            raise UsageError(f"{name} is wrong: it is not text")


def _nearest(name: str, known: set[str]) -> str:
    plain = {known_name.removeprefix(PREFIX): known_name for known_name in known}
    close = get_close_matches(name.removeprefix(PREFIX), plain, n=1)
    return f"; did you mean {plain[close[0]]}?" if close else ""


def _sentence(error: ValidationError) -> str:
    """What is wrong with which setting, and where it is set. The value is not shown: it may be a
    secret."""
    fault = error.errors()[0]
    wrong = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "string_pattern_mismatch":
        wrong = "an id or a name is expected, such as slack:U024"
        if "http" in str(fault["ctx"]):
            wrong = "an address is expected, such as http://localhost:8000"
    place = [str(part) for part in fault["loc"]]
    setting = next((n for n in Settings.model_fields if environment_name(n) == place[0]), place[0])
    if fault["type"] == "extra_forbidden":
        known = set(Settings.model_fields)
        return f"{setting} in {config_file()} is not a setting of henji{_nearest(setting, known)}"
    if os.environ.get(name := environment_name(setting)):
        return f"{name} is wrong: {wrong}"
    return f"{'.'.join([setting, *place[1:]])} in {config_file()} is wrong: {wrong}"
