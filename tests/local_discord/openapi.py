"""Discord's published OpenAPI document, against which every request of every test is held.

The document is not in the project. ``HENJI_TEST_DATA`` names the folder that has
``discord-openapi.json`` (github discord/discord-api-spec, ``specs/openapi.json``, MIT). Without it
the rules in `validation.py` hold alone.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tests.optional import FOLDER

Schema: TypeAlias = Mapping[str, Any]

DOCUMENT = Path(FOLDER or "/nowhere") / "discord-openapi.json"
_TYPES: Mapping[str, tuple[type, ...]] = {
    "array": (list,),
    "boolean": (bool,),
    "integer": (int,),
    "null": (type(None),),
    "number": (int, float),
    "object": (dict,),
    "string": (str,),
}
_IGNORED = frozenset(
    ("contentEncoding", "default", "deprecated", "description", "examples", "format", "title")
)


class OpenApi:
    """The document, as far as requests go."""

    def __init__(self, document: Schema) -> None:
        self._document = document
        self._routes = [(_pattern(path), item) for path, item in document["paths"].items()]

    def faults(self, method: str, path: str, body: Any) -> Iterator[str]:
        """The faults of a request by the document; `path` without the version's prefix."""
        operations = [item[method.lower()] for pattern, item in self._routes
                      if pattern.fullmatch(path) and method.lower() in item]  # fmt: skip
        if not operations:
            yield f"{method} {path} is not in the published API"
            return
        content = operations[0].get("requestBody", {}).get("content", {})
        if "application/json" in content:
            yield from self.schema_faults(content["application/json"]["schema"], body, "body")

    def schema_faults(self, schema: Schema, value: Any, at: str) -> Iterator[str]:
        """Where a value breaks a schema. A keyword that is not known here is an error."""
        for keyword, given in schema.items():
            match keyword:
                case "$ref":
                    yield from self.schema_faults(self._resolve(given), value, at)
                case "oneOf" | "anyOf":  # Discord's unions overlap: unknown fields are allowed
                    found = [list(self.schema_faults(branch, value, at)) for branch in given]
                    yield from min(found, key=lambda faults: _distance(faults, at))
                case "allOf":
                    for part in given:
                        yield from self.schema_faults(part, value, at)
                case "properties" if isinstance(value, dict):
                    for name in given.keys() & value.keys():
                        yield from self.schema_faults(given[name], value[name], f"{at}.{name}")
                case "items" if isinstance(value, list):
                    for index, item in enumerate(value):
                        yield from self.schema_faults(given, item, f"{at}[{index}]")
                case "additionalProperties" if isinstance(value, dict) and isinstance(given, dict):
                    for name in value.keys() - schema.get("properties", {}).keys():
                        yield from self.schema_faults(given, value[name], f"{at}.{name}")
                case _:
                    if not _holds(keyword, given, value):
                        yield f"{at} breaks {keyword} {given}"

    def _resolve(self, ref: str) -> Schema:
        found: Any = self._document
        for step in ref.removeprefix("#/").split("/"):
            found = found[step]
        schema: Schema = found
        return schema


def _distance(faults: Sequence[str], at: str) -> tuple[bool, int]:
    """How far a value is from a branch of a union: another ``type`` is farthest."""
    return any(fault.startswith(f"{at}.type ") for fault in faults), len(faults)


def _holds(keyword: str, given: Any, value: Any) -> bool:
    """Whether a value keeps a keyword that looks at it alone."""
    text, number = isinstance(value, str), isinstance(value, int | float)
    match keyword:
        case "type":
            kinds: Sequence[str] = [given] if isinstance(given, str) else given
            return any(_is(value, kind) for kind in kinds)
        case "const":
            return bool(value == given)
        case "enum":
            return value in given
        case "required":
            return not isinstance(value, dict) or set(given) <= value.keys()
        case "minLength" | "minItems" | "minProperties":
            return not isinstance(value, str | list | dict) or len(value) >= given
        case "maxLength" | "maxItems" | "maxProperties":
            return not isinstance(value, str | list | dict) or len(value) <= given
        case "minimum":
            return not number or value >= given
        case "maximum":
            return not number or value <= given
        case "pattern":
            return not text or re.search(given, value) is not None
        case "uniqueItems":
            return not isinstance(value, list) or all(value.count(item) == 1 for item in value)
        case "properties" | "items" | "additionalProperties":
            return True  # of another type, which the schema's `type` judges
    if keyword in _IGNORED or keyword.startswith("x-"):
        return True
    raise NotImplementedError(keyword)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES[kind])


def _pattern(path: str) -> re.Pattern[str]:
    parts = [re.escape(part) if not part.startswith("{") else "[^/]+" for part in path.split("/")]
    return re.compile("/".join(parts))


@functools.cache
def published() -> OpenApi | None:
    """The document, if there is one on this machine."""
    return OpenApi(json.loads(DOCUMENT.read_text())) if DOCUMENT.is_file() else None
