"""`henji settings` and `henji admin config --effective`: values in force, and their sources."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click
from pydantic import BaseModel, SecretStr

from bots.access import rule_text
from bots.cli.common import example, open_all_settings, print_json, print_text
from bots.platforms import AllSettings
from core.observe.logs import REDACTED
from core.place_rules import NAMES, Rules
from core.settings import Settings, config_file, source_of

UNSET = "-"

_DEFAULTS = {*NAMES} & {*Settings.model_fields} - {"models"}
"""The rules with a setting of the same name and meaning."""


@dataclass(frozen=True, slots=True)
class Row:
    """One value in force, as it is printed."""

    name: str
    value: str
    source: str


@click.command(epilog=example("henji settings", "henji settings --json"))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def settings(as_json: bool) -> None:
    """Print every setting, and where it comes from.

    The sources are variables of the environment, the settings file and defaults. Secrets are not
    shown.
    """
    open_all_settings(log_level="warning")
    if not as_json:
        path = config_file()
        missing = "" if path.is_file() else " (there is none)"
        print_text(f"settings file: {path.absolute()}{missing}")
    print_rows(list(rows_of(AllSettings.load())), as_json)


def print_rows(rows: Sequence[Row], as_json: bool) -> None:
    """Print a table, or JSON lines."""
    if as_json:
        for row in rows:
            print_json(asdict(row))
        return
    names, values = max(len(row.name) for row in rows), max(len(row.value) for row in rows)
    for row in rows:
        print_text(f"{row.name:{names}}  {row.value:{min(values, 40)}}  {row.source}")


def rows_of(every: AllSettings) -> Iterator[Row]:
    """The settings of every process, then those of each platform."""
    yield from _rows(every, every.core, list(Settings.model_fields))
    for own in every.platforms.values():
        fields = [name for name in type(own).model_fields if name not in Settings.model_fields]
        yield from _rows(every, own, fields)


def _rows(every: AllSettings, settings: Settings, names: Sequence[str]) -> Iterator[Row]:
    for name in names:
        shown = every.redaction.redact(_shown(getattr(settings, name)))
        yield Row(name, shown, source_of(type(settings), name))


def _shown(value: Any) -> str:
    match value:
        case None | "":
            return UNSET
        case SecretStr():
            return REDACTED
        case bool():
            return str(value).lower()
        case frozenset() | tuple():
            return json.dumps(sorted(value), ensure_ascii=False) if value else UNSET
        case BaseModel() | dict():
            plain = _plain(value)
            return json.dumps(plain, ensure_ascii=False) if plain else UNSET
    return str(value)


def _plain(value: Any) -> Any:
    """Tables without their unset keys."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value


def effective_rules(settings: Settings, layers: dict[str, Rules], held: Rules) -> Iterator[Row]:
    """Each rule of a place, from the first layer that sets it, or else from the settings.

    `held`: the merged layers, under the ceilings.
    """
    for name in NAMES:
        found = ((source, getattr(rules, name)) for source, rules in layers.items())
        source, value = next((pair for pair in found if pair[1] is not None), ("", None))
        if getattr(held, name) != value:
            yield Row(name, rule_text(getattr(held, name)), "[ceilings]")
        elif source:
            yield Row(name, rule_text(value), source)
        elif name in _DEFAULTS and (value := getattr(settings, name)) not in (None, ""):
            yield Row(name, str(value), source_of(type(settings), name))
