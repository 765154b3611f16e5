"""A model's files on this machine: their place, completeness and content.

Nothing here loads weights or imports torch.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import logging
import math
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from core.errors import ModelError, in_brief

log = logging.getLogger(__name__)

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""In transformers' order: an index beside a whole file is stale."""
SENTENCEPIECE_FILES = ("spiece.model", "tokenizer.model", "sentencepiece.model")


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form of a hub id, ``org/name``."""
    return _HUB_ID.fullmatch(name) is not None


# -- reading ------------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; ModelError, naming the file, where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} does not hold a JSON object")
    return value


def read_config(directory: Path) -> dict[str, Any]:
    """``config.json``: the architecture; of a model that also sees or hears, its language part."""
    return _flat(read_json(directory / "config.json"))


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else config


ARCHITECTURES = Path(__file__).with_name("architectures.json")
"""The types of models that the torch engine serves; `make architectures` writes it."""


def engine_verdict(directory: Path, context_length: int | None = None) -> str:
    """Whether the torch engine serves the model, judging by its ``config.json``.

    `context_length` is that of the settings; None: the model's own.
    """
    outer = read_json(directory / "config.json")
    elsewhere = "a vLLM server may serve it, through HENJI_ENGINE=openai"
    if isinstance(quantized := _flat(outer).get("quantization_config"), dict):
        method = quantized.get("quant_method", "unknown")
        return f"the torch engine does not load quantized weights ({method}); {elsewhere}"
    kind = str(outer.get("model_type", "unknown"))
    found = read_json(ARCHITECTURES).get(kind)
    if found is None:
        return f"the torch engine does not know the type {kind}; {elsewhere}"
    reason = found["reason"] if found["verdict"] == "refused" else None
    config = {**found["usual"], **_given(_flat(outer)), **_usual_limits(directory, _DECIDING)}
    if "is_decoder" in found["usual"] and not config["is_decoder"]:
        reason = "it is an encoder, whose tokens attend to those after them"
    if reason := reason or unserved_layers(config, context_length or _own_length(config)):
        return f"the torch engine refuses the type {kind}: {reason}; {elsewhere}"
    if found["verdict"] == "exact":
        return f"the torch engine serves the type {kind}"
    return f"whether the torch engine serves the type {kind} shows at its first start"


def _given(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if value is not None}


def _own_length(config: dict[str, Any]) -> int:
    said = _length_in(config)
    return said[1] if said else sys.maxsize


PARTIAL_LAYERS = {
    "sliding_attention": "sliding_window",
    "chunked_attention": "attention_chunk_size",
}
"""The kinds of layers that attend to a part, and the length of that part in a configuration."""


LAYER_NAMES = ("layer_types", *PARTIAL_LAYERS.values(), "alibi")
"""What `unserved_layers` reads of a configuration."""
_DECIDING = (*LAYER_NAMES, "is_decoder")


def unserved_layers(config: Mapping[str, Any], context_length: int) -> str | None:
    """Why the torch engine cannot compute layers of such a configuration; None: it can."""
    if config.get("alibi"):
        return "its attention weighs keys by their distance (ALiBi)"
    said, chunk = config.get("layer_types") or (), config.get("attention_chunk_size")
    kinds = {str(kind) for kind in (said if isinstance(said, list | tuple) else [said])}
    if unknown := sorted(kinds - {"full_attention", *PARTIAL_LAYERS}):
        return f"its layers are of the kind {unknown[0]}"
    chunked = "chunked_attention" in kinds
    if chunked and isinstance(chunk, int) and 0 < chunk < context_length:
        return f"it attends in chunks. With context_length = {chunk} it would be served exactly"
    return None


_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
_SIZES = ("num_hidden_layers", "num_attention_heads", "hidden_size")
HEADS = ("num_key_value_heads", "num_kv_heads", "multi_query", "new_decoder_architecture")
_OTHER_LIMITS = (*HEADS, "head_dim", "vocab_size")


def read_limits(directory: Path) -> dict[str, Any]:
    """``config.json``, and where it is silent, what transformers takes for such a model.

    transformers is imported only where something is missing, and a bot's host may have none.
    """
    config = read_config(directory)
    whole = "text_config" not in config and set(_SIZES) <= set(config)
    if whole and any(name in config for name in _LENGTHS):
        return config
    return {**config, **_usual_limits(directory, (*_LENGTHS, *_SIZES, *_OTHER_LIMITS))}


def _usual_limits(directory: Path, names: Sequence[str]) -> dict[str, Any]:
    """What transformers makes of a configuration; nothing where it is not here."""
    if importlib.util.find_spec("transformers") is None:
        return {}
    from transformers import AutoConfig

    try:
        config: Any = AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # a type that it does not know, or odd values: loading tells more
        log.debug("%s is no configuration of transformers': %s", directory, in_brief(error))
        return {}
    text = config.get_text_config()
    return _given({name: getattr(text, name, None) for name in names})


def read_generation_config(directory: Path) -> dict[str, Any]:
    """``generation_config.json``, or nothing where a model has none."""
    path = directory / "generation_config.json"
    return read_json(path) if path.exists() else {}


def end_ids(directory: Path) -> list[int]:
    """The ids that end a reply: those of the generation config, else those of the config."""
    for name in ("generation_config.json", "config.json"):
        path = directory / name
        said = _flat(read_json(path)).get("eos_token_id") if path.exists() else None
        ids = said if isinstance(said, list) else [] if said is None else [said]
        if wrong := [ident for ident in ids if type(ident) is not int]:
            raise ModelError(f"{path} says eos_token_id = {wrong[0]!r}, which is no id")
        if known := [ident for ident in ids if ident >= 0]:  # -1 is none
            return known
    return []


def context_length(directory: Path, known: int | None = None) -> int:
    """Tokens that the model was made to read: as its config says, else `known`, else as
    transformers takes for such a model."""
    path = directory / "config.json"
    said = _length_in(read_config(directory))
    if said and said[1] < 2 and not known:
        raise ModelError(f"{path} says {said[0]} = {said[1]}: a model that reads nothing")
    if said and said[1] >= 2:
        return said[1]
    if known:
        return known
    if usual := _length_in(read_limits(directory)):
        return usual[1]
    raise ModelError(f"{path} does not say how many tokens the model reads: set context_length")


def _length_in(config: dict[str, Any]) -> tuple[str, int] | None:
    said = ((name, config.get(name)) for name in _LENGTHS)
    return next(((name, value) for name, value in said if isinstance(value, int)), None)


TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
"""The second is that of models which also see or hear; transformers' tokenizers do not read it."""
NAMED_TEMPLATES = "additional_chat_templates"
"""A directory of more templates: each file's name is that of its template."""


def detect_format(directory: Path) -> Literal["plain", "chat-template"]:
    """Chat where the directory has a chat template, else plain continuation: nothing in a model's
    files says which other format it was tuned on."""
    if any((directory / name).exists() for name in TEMPLATE_FILES):
        return "chat-template"
    if any((directory / NAMED_TEMPLATES).glob("*.jinja")):
        return "chat-template"
    path = directory / "tokenizer_config.json"
    if path.exists() and read_json(path).get("chat_template"):
        return "chat-template"
    return "plain"


def sentencepiece_file(directory: Path) -> Path | None:
    """The directory's SentencePiece model, where it has one."""
    paths = (directory / name for name in SENTENCEPIECE_FILES)
    return next((path for path in paths if path.exists()), None)


def detect_tokenizer(directory: Path) -> Literal["sentencepiece", "transformers"]:
    """SentencePiece where its model is all there is; a ``tokenizer.json`` or a chat template, whose
    control tokens are more than the SentencePiece model knows, needs transformers."""
    if (directory / "tokenizer.json").exists() or detect_format(directory) == "chat-template":
        return "transformers"
    return "sentencepiece" if sentencepiece_file(directory) else "transformers"


def cache_values_per_token(config: dict[str, Any]) -> int | None:
    """Numbers that one token adds to the key-value cache: keys and values of every layer."""
    layers, heads = config.get("num_hidden_layers"), config.get("num_attention_heads")
    hidden = config.get("hidden_size")
    if not (isinstance(layers, int) and isinstance(heads, int) and isinstance(hidden, int)):
        return None
    head = config.get("head_dim") or hidden // (heads or 1)
    return 2 * layers * (key_heads(config) or heads) * head if isinstance(head, int) else None


def key_heads(config: Mapping[str, Any]) -> int | None:
    """Heads of keys and values, as `HEADS` of a configuration say; None: as many as of queries."""
    if config.get("multi_query") and not config.get("new_decoder_architecture"):
        return 1
    for name in ("num_key_value_heads", "num_kv_heads"):
        if isinstance(found := config.get(name), int) and found:
            return found
    return None


def count_parameters(directory: Path) -> int | None:
    """Parameters, from the headers of safetensors files; from the size of pickled weights, in the
    precision that the config names."""
    files = weight_files(directory)
    if not all(path.exists() for path in files):
        return None
    if all(path.suffix == ".safetensors" for path in files):
        if importlib.util.find_spec("safetensors") is None:
            return None  # a machine with a bot alone
        return sum(_parameters_in(path) for path in files) or None
    config = read_config(directory)
    wide = "float32" in (config.get("dtype"), config.get("torch_dtype"))
    return sum(path.stat().st_size for path in files) // (4 if wide else 2) or None


def _parameters_in(path: Path) -> int:
    with _open_safetensors(path) as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Any]:
    """A safetensors file, whose header is checked against its length."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a whole safetensors file: {in_brief(error)}") from None


# -- whole or not -------------------------------------------------------------------------------


def weight_files(directory: Path) -> list[Path]:
    """The files with a model's weights, existing or not; nothing where none is named."""
    for name in _WEIGHTS:
        path = directory / name
        if path.exists():
            return _shards(path) if name.endswith(".index.json") else [path]
    return []


def _shards(index: Path) -> list[Path]:
    names = read_json(index).get("weight_map", {})
    return sorted({index.parent / str(name) for name in names.values()})


_ENDS = 1 << 20


def weights_fingerprint(directory: Path) -> str:
    """Differs where a model's weights do, as far as the length and both ends of each file tell."""
    digest = hashlib.sha256()
    for path in weight_files(directory):
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_ENDS)
            file.seek(max(0, size - _ENDS))
            digest.update(f"{path.name} {size}\n".encode() + head + file.read(_ENDS))
    return digest.hexdigest()


def check_weights(directory: Path) -> list[Path]:
    """The weight files of a directory, all of them there and as long as they say they are.

    They are not read through. ModelError names the one that is missing or cut short.
    """
    files = weight_files(directory)
    if not files:
        raise ModelError(f"{directory} has no weights: model.safetensors or pytorch_model.bin")
    for path in files:
        if not path.exists():
            raise ModelError(f"{path} is missing")
        if _is_cut_short(path):
            raise ModelError(f"{path} is cut short: fetch it once more")
    return files


def _is_cut_short(path: Path) -> bool:
    if path.suffix == ".safetensors":
        try:
            with _open_safetensors(path):
                return False
        except ModelError:
            return True
    with path.open("rb") as file:
        # a zip archive has its directory at the end; weights of before 2020 are none
        return file.read(4) == b"PK\x03\x04" and not zipfile.is_zipfile(path)


# -- pulled from the hub ------------------------------------------------------------------------

PULL_RECORD = "henji-model.json"
"""Written last into a pulled model's directory: its source and revision."""


def pulled_directory(data_dir: Path, source: str) -> Path:
    """Where a model of the hub lies once it is pulled."""
    return data_dir / "models" / source.replace("/", "--")


def find_pulled(data_dir: Path, source: str, revision: str | None) -> Path | None:
    """The directory of a model that was pulled whole, at this revision if one is named."""
    directory = pulled_directory(data_dir, source)
    if not (directory / PULL_RECORD).exists():
        return None
    if revision and read_json(directory / PULL_RECORD).get("revision") != revision:
        return None
    return directory


@contextmanager
def locked(path: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock among processes; `wait` is called where another holds it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
