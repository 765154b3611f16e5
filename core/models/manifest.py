"""The manifest beside an adapter: the record of its training.

A trained adapter cannot forget. Its manifest holds no words, but digests of them: enough to say
which adapters hold somebody's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from core.errors import ModelError
from core.models.files import read_json

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The record of an adapter's training."""

    method: str
    model: str
    """The name of the model it was trained on, as the command had it."""
    base: str
    """That model's source."""
    base_weights: str
    """The fingerprint of that model's files."""
    revision: str | None
    fingerprint: str
    """Of the dialogue that made the ids."""
    data: str
    """The digest of the data set's file."""
    examples: tuple[str, ...]
    """The digest of each example."""
    words: tuple[str, ...]
    """The digest of each thing that a person said in them."""
    options: dict[str, Any] = field(default_factory=dict)
    result: dict[str, float] = field(default_factory=dict)
    """The last numbers of the training, and those of the examples that were held out."""
    authors: tuple[str, ...] = ()
    """The digest of everybody whose words are in them, where the data set tells."""
    rewards: tuple[str, ...] = ()
    """The reward models that it was trained against, by `weights_digest` of their adapters."""

    def write(self, directory: Path) -> None:
        text = json.dumps(asdict(self), ensure_ascii=False, indent=1)
        (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest beside an adapter; None where it was made elsewhere."""
    path = directory / MANIFEST
    if not path.is_file():
        return None
    told = read_json(path)
    known = {one.name: told[one.name] for one in fields(Manifest) if one.name in told}
    for name in ("examples", "words", "authors", "rewards"):
        known[name] = tuple(known.get(name, ()))
    try:
        return Manifest(**known)
    except TypeError as error:
        raise ModelError(f"{path} is no manifest of an adapter: {error}") from None


def weights_digest(adapter: Path) -> str:
    """The digest of an adapter's weights, which names it in other adapters' manifests."""
    path = adapter.expanduser() / ADAPTER_WEIGHTS
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None


def digest_of_words(text: str) -> str:
    """The digest of a person's text, to find the adapters that were trained on it."""
    return sha256(text)


def sha256(text: str) -> str:
    """The digest of a text, whatever is in it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def adapters_with(
    adapters: Iterable[Path], words: Collection[str], author: str = ""
) -> Iterator[Path]:
    """The adapters that were trained on any of these `words`, or on an author's: all digests."""
    for directory in adapters:
        manifest = read_manifest(directory)
        if manifest and (author in manifest.authors or not set(words).isdisjoint(manifest.words)):
            yield directory
