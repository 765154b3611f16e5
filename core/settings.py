"""The settings, read once at the door and passed down.

Each setting is an environment variable (``HENJI_`` and its name, or its usual name, such as
``REDIS_URL``) and a key of the same name in ``henji.toml``; the environment wins. A subclass of
`Settings` adds the settings of one platform: see `bots/platforms.py`.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Collection, Iterable, Set
from datetime import UTC, tzinfo
from difflib import get_close_matches
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, overload
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
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
from core.errors import UsageError, is_text
from core.place_rules import CEILINGS, Entry, Lane, Rules, read_rules
from core.types import Thinking

PREFIX = "HENJI_"
ROOT = 0
"""Its user id."""

ADDRESS = "an address is expected, such as http://localhost:8000"


def _check_url(url: str) -> str:
    """ValueError, without a part of the address: it may have a password."""
    try:
        parts = urlsplit(url)
        found = bool(parts.hostname) and parts.port != 0
    except ValueError:
        found = False
    if not found:
        raise ValueError(ADDRESS)
    return url


Url: TypeAlias = Annotated[
    str, StringConstraints(pattern=r"^(http|ws)s?://[^\s/]\S*$"), AfterValidator(_check_url)
]


_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


def _data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "henji"


def named(*names: str, **kwargs: Any) -> Any:
    """A field whose environment variable has another name, without ``HENJI_``."""
    return Field(validation_alias=AliasChoices(*names), **kwargs)


AnySettings = TypeVar("AnySettings", bound="Settings")


class _ConfigFile(TomlConfigSettingsSource):
    """The file's keys for one class of settings. `load_settings` checks the others."""

    def _read_file(self, file_path: Path | Traversable) -> dict[str, Any]:
        return read_config_file()

    def __call__(self) -> dict[str, Any]:
        kind = self.settings_cls
        assert issubclass(kind, Settings)  # noqa: S101 -- for the type checker
        known = {*kind.model_fields, *(environment_name(kind, name) for name in kind.model_fields)}
        return {key: value for key, value in super().__call__().items() if key in known}


class Settings(BaseSettings):
    """The settings that every process has, validated. `load_settings` names the wrong one."""

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
    """The directory of the embedded Redis and of converted models."""
    redis_url: str | None = named("REDIS_URL", "redis_url", default=None)
    """None: the embedded server."""
    buckets: int | None = Field(default=None, ge=1, le=1024)
    """Hash tags that the keys are spread over; by default 16 on a Cluster, else 1. It must be the
    same in every process, and never change."""
    wait_replicas: int = Field(default=0, ge=0, le=100)
    """Replicas that must have stored a message or a reply before it counts. Not on a Cluster."""
    wait_milliseconds: int = Field(default=1000, ge=1, le=4000)
    """How long to wait for them: less than a command may take."""

    # The model and its engine
    model: str = Field(default="smollm2", min_length=1)
    """A name of the catalogue, a hub id, or a directory."""
    engine: Literal["torch", "openai", "echo"] = "torch"
    lane: Lane | None = None
    """The queue that jobs go to and a core serves; by default the model's name."""
    system_prompt: str = ""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    device: str = "auto"
    context_length: int | None = Field(default=None, ge=16, le=10**7)
    max_new_tokens: int | None = Field(default=None, ge=1, le=10**7)
    """The longest reply; by default the length on the model's card."""
    max_thinking_tokens: int | None = Field(default=None, ge=1, le=10**7)
    """The longest thought before a reply; by default a quarter of the context, 4096 at most."""
    thinking: Thinking | None = None
    """on or off, for a model whose template has a switch; by default as the template has it."""
    temperature: float | None = Field(default=None, ge=0, le=5)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=10**6)
    repetition_penalty: float | None = Field(default=None, gt=0, le=10)
    speaker_names: bool = False
    """Write people's names into their turns."""
    low_water: float = Field(default=0.7, gt=0, le=1)
    """When a prompt is over its budget, old turns are dropped down to this part of it."""
    echo_tokens_per_second: float = Field(default=0.0, ge=0, le=10**6)
    """The speed of the echo engine; 0: no limit."""
    places: int | None = Field(default=None, ge=1, le=4096)
    """Replies generated at the same time; by default 32 on a CPU, 256 on a GPU, 64 on a server."""
    step_tokens: int | None = Field(default=None, ge=16, le=10**6)
    """Tokens the torch engine computes in one step: more is faster for long prompts, fewer keeps
    the replies that stream beside them steady. By default 256 on a CPU, 2048 on a GPU."""
    cache_gb: float | None = Field(default=None, gt=0, le=10_000)
    """The torch engine's key-value cache; by default a part of the free memory."""
    loop_guard: bool | None = None
    """End a reply where the model repeats itself for ever; the default is on for rinna's models."""
    int8_weights: bool = False
    """On a CPU: round the weights to int8, which is faster and a little less exact."""
    models: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Your own models: [models.NAME] tables in henji.toml."""

    # The queue
    lease_seconds: float = Field(default=15.0, ge=0.2, le=3600)
    """A core loses its jobs when it has not renewed its lease for so long."""
    max_attempts: int = Field(default=3, ge=1, le=100)
    job_deadline_seconds: float = Field(default=3600.0, gt=0, le=43_200)
    """After so long a message is answered by a sentence, not by the model."""
    drain_seconds: float = Field(default=20.0, ge=0, le=3600)
    """How long a core goes on with its jobs after it was told to stop."""
    max_waiting: int = Field(default=10_000, ge=1, le=10**9)
    max_waiting_per_channel: int = Field(default=1_000, ge=1, le=10**9)
    max_waiting_per_person: int = Field(default=100, ge=1, le=10**9)
    max_waiting_per_thread: int = Field(default=20, ge=1, le=10**9)
    answer_together: bool = True
    """Messages of one person that wait together get one reply."""
    retention_days: float = Field(default=30.0, ge=1, le=400)
    """A thread is forgotten after so long without a message."""

    # Access, quotas and behaviour: see core/place_rules.py
    access: AccessLists = AccessLists()
    """[access]: allow and deny lists."""
    admins: tuple[Entry, ...] = ()
    """Admins beside the platform's own, people or roles: ``slack:U024``."""
    quota: Rules = Rules()
    """[quota]: rules that hold everywhere, such as person_messages = 50."""
    ceilings: Rules = Rules()
    """[ceilings]: what no place can lift: quotas, max_new_tokens, max_thinking_tokens and
    retention_days."""
    person_quota: Allowance = Allowance()
    """[person_quota]: messages and tokens a day for each person, in all spaces together."""
    role_quotas: dict[str, Allowance] = Field(default_factory=dict)
    """[role_quotas.ROLE]: messages and tokens a day for each person with the role."""
    spaces: dict[str, Rules] = Field(default_factory=dict)
    """[spaces."slack:T024"]: the rules of a Slack workspace or a Discord guild."""
    channels: dict[str, Rules] = Field(default_factory=dict)
    """[channels."slack:T024:C123"]: the rules of a channel."""
    summary_prompts: dict[str, str] = Field(default_factory=dict)
    """[summary_prompts]: by lane, what its model is told before the messages that it sums up."""
    training_permitted: tuple[str, ...] = ()
    """Platforms where the rule `collect` may be set: see core/alignment/README.md first."""
    timezone: str = "UTC"
    """Quotas restart at its midnight. Such as Asia/Tokyo."""
    audit_days: float = Field(default=365.0, ge=1, le=36_500)
    """The lifetime of the audit log's entries."""

    # Language, logs and metrics
    locale: Literal["auto", "ja", "en"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["people", "json"] = "people"
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """The port of /healthz, /readyz and /metrics; 0: none."""
    otlp_endpoint: Url | None = None
    """A collector of traces, such as http://localhost:4318/v1/traces."""
    log_content: bool = False
    """Write the words of people and of the model into the log."""

    # The remote engine
    openai_base_url: Url | None = None
    openai_api_key: SecretStr | None = None
    openai_model: str | None = None
    """The server's name of the model; by default the first that it lists."""
    openai_api: Literal["completions", "llama.cpp", "chat"] = "completions"
    """How the server is asked: completions and llama.cpp's /completion with token ids, or chat with
    messages. With chat, context_length counts characters, and the server decides what is text."""
    openai_timeout: float = Field(default=300.0, gt=0, le=3600)
    """Seconds without a word from the server after which a reply is given up."""
    openai_seeds: bool = True
    """Send each reply's seed. vLLM 0.32 on a CPU crashes at a second seeded request."""

    # Comparing models
    judge_api_key: SecretStr | None = None
    """The key of the server that judges."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _ConfigFile(settings_cls, config_file())

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_nulls_and_misused_booleans(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[info.field_name or ""]
        if isinstance(value, str) and "\0" in value:
            raise ValueError("there is a null character in it")
        if isinstance(value, str) and info.field_name in secret_settings(cls):
            value = value.strip() or None  # such as the end of a line in a file of variables
            if value and _CONTROLS.search(value):  # of a file with two lines: no header takes it
                raise ValueError("there is a line end or another control character in it")
        if isinstance(value, bool) and field.annotation is not bool:
            raise ValueError("true and false are no value for it")
        return value

    @field_validator("data_dir")
    @classmethod
    def _expand_home(cls, path: Path) -> Path:
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

    @field_validator("ceilings", mode="before")
    @classmethod
    def _read_ceilings(cls, table: Any) -> Any:
        rules = table if isinstance(table, Rules) else read_rules(_parsed(table), "[ceilings]")
        if wrong := [name for name in rules.set_here() if name not in CEILINGS]:
            raise UsageError(f"[ceilings]: {wrong[0]} has none; there are {', '.join(CEILINGS)}")
        return rules

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
            found[place] = read_rules(table, where)
        return found

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, name: str) -> str:
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
            ceilings=self.ceilings,
            person=self.person_quota,
            admins=self.admins,
            training_permitted=self.training_permitted,
            zone=_zone(self.timezone),
            system_prompt=self.system_prompt,
        )

    @property
    def model_host(self) -> str:
        """The host that is sent people's words to be answered; empty: this one."""
        if self.engine != "openai" or not self.openai_base_url:
            return ""
        return urlsplit(self.openai_base_url).hostname or ""

    @property
    def job_lane(self) -> str:
        """The lane that jobs go to and a core serves."""
        return self.lane or ("echo" if self.engine == "echo" else self.model)


def _zone(name: str) -> tzinfo:
    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"the setting timezone is {name!r}, which this machine does not know: Asia/Tokyo, say"
        ) from None


def _parsed(table: Any) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise UsageError("spaces, channels, quota and ceilings are tables in henji.toml")
    return table


def config_file() -> Path:
    """``HENJI_CONFIG``, or ``henji.toml`` where the command was started."""
    return Path(os.environ.get(PREFIX + "CONFIG") or "henji.toml")


def read_config_file() -> dict[str, Any]:
    """The keys of the settings file, none where there is none; UsageError where it is unfit."""
    path = config_file()
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and str(path) != os.devnull:
            # Docker makes a directory where a mounted file is missing; a pipe is read only once
            kind = "a directory" if stat.S_ISDIR(mode) else "a pipe or a device"
            raise UsageError(f"{path} is {kind}: the settings are expected in a file")
        return tomllib.loads(path.read_text("utf-8-sig"))  # some editors begin with U+FEFF
    except FileNotFoundError:
        if os.environ.get(PREFIX + "CONFIG"):
            raise UsageError(f"{PREFIX}CONFIG names {path}, which does not exist") from None
        if path.is_symlink():
            raise UsageError(f"{path} links to {path.readlink()}, which does not exist") from None
        return {}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None


@overload
def load_settings(**overrides: Any) -> Settings: ...
@overload
def load_settings(
    kind: type[AnySettings], known: Collection[type[Settings]] = (), **overrides: Any
) -> AnySettings: ...
def load_settings(
    kind: type[Settings] = Settings, known: Collection[type[Settings]] = (), **overrides: Any
) -> Settings:
    """The settings of this process; UsageError, one sentence, where one is wrong.

    `known`: other classes of settings, whose variables and keys are also accepted.
    """
    kinds = (kind, *known)
    _check_config_file({name for each in kinds for name in each.model_fields})
    _check_environment_names(kinds)
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return kind(**_secrets_from_files(kind), **given)
    except ValidationError as error:
        raise UsageError(_sentence(kind, error)) from None
    except SettingsError as error:  # a list or table in the environment that is no JSON
        raise UsageError(_not_json(kind, error)) from None


def environment_name(kind: type[Settings], setting: str) -> str:
    """The environment variable of a setting."""
    alias = kind.model_fields[setting].validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else PREFIX + setting.upper()


def source_of(kind: type[Settings], setting: str) -> str:
    """Where a setting comes from: a variable, the file, or ``default``."""
    name = environment_name(kind, setting)
    for variable in (name, f"{name}_FILE"):
        if os.environ.get(variable):
            return variable
    keys = read_config_file()
    return str(config_file()) if setting in keys or name in keys else "default"


def misspelt_variables(kind: type[Settings], known: Collection[type[Settings]]) -> list[str]:
    """A sentence for each variable that is close to one of an unset secret of the class's own.

    `known`: all classes of settings; their variables are also accepted.
    """
    own = _variables_of_secrets(kind) - _variables_of_secrets(Settings)
    unset = {name for name in own if not os.environ.get(name)}
    meant = {name for each in known for name in _variables_of_secrets(each)}
    near = {
        name: get_close_matches(name, unset, n=1, cutoff=0.8) for name in os.environ.keys() - meant
    }
    return [f"{name} is set: did you mean {found[0]}?" for name, found in near.items() if found]


def _variables_of_secrets(kind: type[Settings]) -> set[str]:
    names = {environment_name(kind, setting) for setting in secret_settings(kind)}
    return names | {f"{name}_FILE" for name in names}


def secret_settings(kind: type[Settings]) -> list[str]:
    """The settings that are never shown. ``NAME_FILE`` may name a file that holds one."""
    fields = kind.model_fields.items()
    secret = [name for name, field in fields if SecretStr in get_args(field.annotation)]
    return [*secret, "redis_url"]


def _secrets_from_files(kind: type[Settings]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for setting in secret_settings(kind):
        name = environment_name(kind, setting)
        path = os.environ.get(f"{name}_FILE")
        if not path:
            continue
        if os.environ.get(name):
            raise UsageError(f"both {name} and {name}_FILE are set: one of them must go")
        try:
            found[setting] = Path(path).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{name}_FILE cannot be read: {error}") from None
    return found


def _check_config_file(known: Set[str]) -> None:
    path, keys = config_file(), read_config_file()
    if keys and path.stat().st_mode & stat.S_IWOTH:
        raise UsageError(f"every user of this machine can write {path}: run chmod o-w {path}")
    if keys and _is_planted(path):
        raise UsageError(f"{path} is another user's, where every user can put files: move it")
    for key in keys:
        if key not in known:
            raise UsageError(f"{key} in {path} is not a setting of henji{nearest(key, known)}")


def _is_planted(path: Path) -> bool:
    """Whether a file in a folder such as /tmp is neither this user's nor root's."""
    owners = {path.lstat().st_uid, path.stat().st_uid}  # of a link, and of its target
    everyones = path.absolute().parent.stat().st_mode & stat.S_IWOTH
    return bool(everyones) and not owners <= {os.getuid(), ROOT}


def _check_environment_names(kinds: Collection[type[Settings]]) -> None:
    known = {PREFIX + "CONFIG"}
    for kind in kinds:
        known |= {environment_name(kind, setting) for setting in kind.model_fields}
        known |= _variables_of_secrets(kind)
    for name, value in os.environ.items():
        capitals = name.upper()  # pydantic reads a variable in any case
        if name not in known and (capitals in known or capitals.startswith(PREFIX)):
            raise UsageError(f"{name} is not a setting of henji{nearest(name, known)}")
        if name in known and not is_text(value):
            raise UsageError(f"{name} is wrong: it is not text")


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: the known name that it is close to, if any."""
    plain = {known_name.removeprefix(PREFIX).lower(): known_name for known_name in known}
    close = get_close_matches(name.upper().removeprefix(PREFIX).lower(), plain, n=1)
    return f"; did you mean {plain[close[0]]}?" if close else ""


def _not_json(kind: type[Settings], error: SettingsError) -> str:
    field = re.search(r'field "(\w+)"', str(error))
    name = environment_name(kind, field[1]) if field else "a setting"
    return f'{name} is wrong: a list or a table must be JSON here, such as ["slack:U024"]'


def _expected(pattern: str) -> str:
    if "http" in pattern:
        return ADDRESS
    if pattern.startswith((r"^\d", "^[A-Z]")):
        return "an id is expected, not a name"
    return f"an id or a name is expected{', such as slack:U024' * (':)?' in pattern)}"


def _sentence(kind: type[Settings], error: ValidationError) -> str:
    """Names the wrong setting, its fault and its source, but not its value: it may be a secret."""
    fault = error.errors()[0]
    wrong = fault["msg"].removeprefix("Value error, ")
    if fault["type"] in ("tuple_type", "frozen_set_type"):
        wrong = 'a list is expected, such as ["slack:U024"]'
    if fault["type"] in ("dict_type", "model_type"):
        wrong = "a table is expected"
    if fault["type"] == "string_pattern_mismatch":
        wrong = _expected(fault["ctx"]["pattern"])
    place = [str(part) for part in fault["loc"]]
    setting = next(
        (name for name in kind.model_fields if environment_name(kind, name) == place[0]), place[0]
    )
    name = environment_name(kind, setting) if setting in kind.model_fields else setting
    here = [setting, *place[1:]]
    if fault["type"] == "extra_forbidden":
        known = AccessLists.model_fields if setting == "access" else Allowance.model_fields
        wrong = f"there is no such setting{nearest(place[-1], known)}"
    for variable in (name, f"{name}_FILE"):
        if os.environ.get(variable):
            return f"{'.'.join([variable, *place[1:]])} is wrong: {wrong}"
    return f"{'.'.join(here)} in {config_file()} is wrong: {wrong}"
