"""Dialogues of every format and tokenizer at hand, for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from core.dialogue import Dialogue
from core.models.catalogue import CATALOGUE, ModelSpec
from core.types import Role, Turn
from tests import tiny_models
from tests.optional import FOLDER

RINNA = replace(CATALOGUE["rinna-ppo"], name="tiny-rinna")
PLAIN = replace(CATALOGUE["rinna"], name="tiny-plain")
CHAT = replace(CATALOGUE["smollm2"], name="tiny-chat", context_length=2048, max_new_tokens=128)


_FOLDER = TemporaryDirectory(prefix="henji-tiny-")  # removed when the process ends


def folder() -> Path:
    """A folder for files that all tests of a session share."""
    return Path(_FOLDER.name)


def new_folder() -> Path:
    """A new folder in it."""
    return Path(mkdtemp(dir=folder()))


@cache
def rinna_files() -> Path:
    return tiny_models.rinna(folder() / "rinna")


@cache
def chat_files(
    template: str | None = tiny_models.CHATML, tokenizer: Callable[[], str] = tiny_models.bpe
) -> Path:
    directory = folder() / f"chat-{abs(hash(template))}-{tokenizer.__name__}"
    return tiny_models.tokenizer_files(directory, template=template, tokenizer=tokenizer())


@cache
def real_vocabulary() -> Path | None:
    """Where HENJI_TEST_DATA has a SentencePiece model of real size; None where it is not set."""
    return Path(FOLDER) / "tokenizer" if FOLDER else None


KINDS: dict[str, ModelSpec] = {
    "rinna": RINNA,
    "plain": PLAIN,
    "plain-hub": replace(PLAIN, tokenizer="transformers"),
    "chatml": CHAT,
    "chatml-spaces": CHAT,
    "chatml-unigram": CHAT,
    "alternating": CHAT,
    "echo": CATALOGUE["echo"],
}
if real_vocabulary():
    KINDS["rinna-real"] = RINNA


def files(kind: str) -> Path | None:
    match kind:
        case "rinna" | "plain":
            return rinna_files()
        case "plain-hub":
            return chat_files(None)
        case "chatml":
            return chat_files()
        case "chatml-spaces":
            return chat_files(tokenizer=tiny_models.bpe_with_spaces)
        case "chatml-unigram":
            return chat_files(tokenizer=tiny_models.unigram)
        case "alternating":
            return chat_files(tiny_models.ALTERNATING)
        case "rinna-real":
            return real_vocabulary()
    return None


def load(
    kind: str,
    *,
    context_length: int | None = None,
    max_new_tokens: int | None = None,
    system_prompt: str = "",
    speaker_names: bool = False,
) -> Dialogue:
    """A dialogue of a kind, with nothing in its caches."""
    spec = KINDS[kind]
    spec = replace(
        spec,
        context_length=context_length or spec.context_length,
        max_new_tokens=max_new_tokens or spec.max_new_tokens,
    )
    return Dialogue.load(
        spec, files(kind), system_prompt=system_prompt, speaker_names=speaker_names
    )


@cache
def shared(kind: str) -> Dialogue:
    """A dialogue of a kind that keeps its caches from one test to the next, as a core does."""
    return load(kind)


def turn(ident: str | int, role: Role, text: str, name: str = "") -> Turn:
    return Turn(str(ident), role, "U1", text, 0.0, name)


def user(ident: str | int, text: str, name: str = "") -> Turn:
    return turn(ident, "user", text, name)


def said(*texts: str) -> list[Turn]:
    """User and assistant in turn, the user first."""
    return [
        turn(place, "assistant" if place % 2 else "user", text) for place, text in enumerate(texts)
    ]


def rendered(dialogue: Dialogue, turns: list[Turn], *, resume: str = "") -> str:
    """The string that a prompt's ids stand for, control tokens written out."""
    names = {ident: name for name, ident in dialogue.tokenizer.controls.items()}
    ids = dialogue.prompt(turns, low_water=0.7, resume=resume).ids
    runs = groupby(ids, names.get)
    return "".join(
        name * len(list(run)) if name else dialogue.tokenizer.decode(list(run))
        for name, run in runs
    )
