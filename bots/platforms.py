"""Finds the platforms by looking into the folders of `bots/`.

A folder with a `platform.py` is a platform. With a `settings.py` it has a process: `henji NAME`
runs its `bot.py`, and `henji up` and `henji doctor` know it. Finding it imports only `settings.py`,
which must need no package of the platform's extra.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, overload

from core.errors import UsageError
from core.observe.logs import Redaction
from core.ports import Secrets
from core.settings import AnySettings, Settings, load_settings, misspelt_variables, secret_settings

ROOM = Path(__file__).parent

OpenSecrets: TypeAlias = Callable[[], AbstractAsyncContextManager[Secrets]]
"""Opens the secrets in Redis, for `examine` of a platform's `setup_checks.py`."""


class PlatformSettings(Settings):
    """The settings of a platform's process: the common ones, and the platform's.

    `bots/NAME/settings.py` has the subclass ``NameSettings``.
    """

    title: ClassVar[str]
    """The platform's name for people."""
    example: ClassVar[str]
    """A command line that starts the process, for its help."""
    packages: ClassVar[tuple[str, ...]] = ()
    """The import names that the platform's extra installs. The extra has the platform's name."""
    secret_patterns: ClassVar[tuple[re.Pattern[str], ...]] = ()
    """Forms of the platform's secrets, as `core.observe.logs.Redaction` takes them."""

    @abstractmethod
    def require(self) -> None:
        """UsageError for the first setting that is missing, and where it comes from."""

    @property
    def has_tokens(self) -> bool:
        """Whether any secret of the platform is set."""
        own = set(secret_settings(type(self))) - set(secret_settings(Settings))
        return any(getattr(self, name) is not None for name in own)


def names() -> tuple[str, ...]:
    """Every platform: the first part of the name of a place or of a person."""
    return tuple(sorted(path.parent.name for path in ROOM.glob("*/platform.py")))


@cache
def settings_classes() -> Mapping[str, type[PlatformSettings]]:
    """The settings of each platform that has a process, by the platform's name."""
    with_settings = [name for name in names() if (ROOM / name / "settings.py").exists()]
    modules = {name: import_module(f"bots.{name}.settings") for name in with_settings}
    return {name: getattr(found, f"{name.capitalize()}Settings") for name, found in modules.items()}


def extra_of(package: str) -> str | None:
    """The platform, and so the extra, that needs a package."""
    return next(
        (name for name, kind in settings_classes().items() if package in kind.packages), None
    )


@overload
def load(**overrides: Any) -> Settings: ...
@overload
def load(kind: type[AnySettings], **overrides: Any) -> AnySettings: ...
def load(kind: type[Settings] = Settings, **overrides: Any) -> Settings:
    """The settings of one class; the names of every platform's settings are known.

    UsageError, one sentence, where one is wrong.
    """
    settings = load_settings(kind, settings_classes().values(), **overrides)
    for where, platform in _platforms_named(settings):
        if platform not in names():
            raise UsageError(f"{where}: there is no platform {platform}, only {', '.join(names())}")
    _check_collecting(settings)
    return settings


def _check_collecting(settings: Settings) -> None:
    """UsageError if the file sets `collect` on a platform that is not permitted for training."""
    for table in ("spaces", "channels"):
        for place, rules in getattr(settings, table).items():
            try:
                settings.policy.check(place.partition(":")[0], "collect", rules.collect)
            except UsageError as error:
                raise UsageError(f'[{table}."{place}"]: {error}') from None


def _platforms_named(settings: Settings) -> Iterator[tuple[str, str]]:
    """Each setting that names a platform, and the name."""
    for table in ("spaces", "channels"):
        for place in getattr(settings, table):
            yield f'[{table}."{place}"]', place.partition(":")[0]
    lists = {f"access.{name}": entries for name, entries in settings.access}
    yield from (("training_permitted", name) for name in settings.training_permitted)
    for where, entries in {**lists, "admins": settings.admins}.items():
        yield from ((where, entry.partition(":")[0]) for entry in entries if ":" in entry)


@dataclass(frozen=True, slots=True)
class AllSettings:
    """The settings of every process, and those of each platform by its name."""

    core: Settings
    platforms: Mapping[str, PlatformSettings]

    @classmethod
    def load(cls, **overrides: Any) -> AllSettings:
        """UsageError, one sentence, where one is wrong."""

        def one(kind: type[AnySettings]) -> AnySettings:
            own = kind.model_fields.keys() & overrides.keys()
            return load(kind, **{name: overrides[name] for name in own})

        return cls(one(Settings), {name: one(kind) for name, kind in settings_classes().items()})

    def with_defaults(self, **values: Any) -> AllSettings:
        """The same, with these values for settings that are not set."""
        unset = {
            name: value for name, value in values.items() if name not in self.core.model_fields_set
        }
        platforms = {
            name: settings.model_copy(update=unset) for name, settings in self.platforms.items()
        }
        return AllSettings(self.core.model_copy(update=unset), platforms)

    @property
    def bots(self) -> tuple[str, ...]:
        """The platforms with tokens. UsageError where they are incomplete or misspelt."""
        found = [name for name, settings in self.platforms.items() if settings.has_tokens]
        for name in found:
            self.require(name)
        for name, settings in self.platforms.items():
            if not settings.has_tokens and (misspelt := _misspelt(name)):
                raise UsageError(misspelt[0])
        return tuple(found)

    def require(self, name: str) -> PlatformSettings:
        """The complete settings of a platform. UsageError for what is missing or misspelt."""
        settings = self.platforms[name]
        try:
            settings.require()
        except UsageError as error:
            misspelt = _misspelt(name)
            raise UsageError("; ".join([str(error), *misspelt])) from None
        return settings

    @property
    def redaction(self) -> Redaction:
        """The secrets to remove from logs."""
        return Redaction.of(*self.platforms.values(), patterns=secret_patterns())


def secret_patterns() -> tuple[re.Pattern[str], ...]:
    """The patterns of every platform's secrets."""
    return tuple(
        pattern for kind in settings_classes().values() for pattern in kind.secret_patterns
    )


def _misspelt(name: str) -> list[str]:
    every = settings_classes()
    return misspelt_variables(every[name], every.values())
