"""Downloads from the Hugging Face hub.

The library's `snapshot_download` is not used: it verifies no SHA-256 checksum of a plain download,
and only warns when the disk is too small.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import ModelError, in_brief
from core.models.files import (
    NAMED_TEMPLATES,
    PULL_RECORD,
    engine_verdict,
    find_pulled,
    locked,
    pulled_directory,
    read_json,
)

_SMALL = re.compile(rf"[^/]*\.(json|jinja|model|txt)|{NAMED_TEMPLATES}/[^/]*\.jinja")
_SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_PICKLED = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
_PARTIAL_COMMIT = "henji-fetching"
"""The file in a partial download that names its commit."""
_PROGRESS_BYTES = 10_000_000
"""Bytes of a file whose progress is reported."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class HubFile:
    name: str
    size: int
    """Bytes."""
    sha256: str | None = None
    """From the hub; large files have one."""


def pull(
    source: str,
    data_dir: Path,
    revision: str | None,
    progress: Progress,
    *,
    endpoint: str | None = None,
    context_length: int | None = None,
) -> Path:
    """Download a model's files into the data directory, and record their commit.

    `revision` None is the downloaded one if there is one, else the head of `main`. `endpoint`
    replaces the library's address of the hub, and `context_length` is that of the settings. The
    next call resumes an interrupted download. A model of another revision stays until the new one
    is complete. Raises ModelError with one sentence.
    """
    directory = pulled_directory(data_dir, source)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"{directory.parent} cannot be made: {error.strerror}") from None
    lock = directory.with_name(f"{directory.name}.lock")
    with locked(lock, lambda: progress(f"waiting for another process, which is fetching {source}")):
        if find_pulled(data_dir, source, revision) is not None:
            known = read_json(directory / PULL_RECORD).get("revision")
            progress(f"{source} is here already, at revision {known}")
            return directory
        commit, files = _list_files(source, revision or "main", endpoint)
        partial = _begin_partial(directory, commit)
        _check_disk(source, partial, files)
        for number, file in enumerate(files, 1):
            if _is_weights(file) and number > 1 and not _is_weights(files[number - 2]):
                progress(
                    f"{source}: {engine_verdict(partial, context_length)}"
                )  # small files come first
            progress(f"{number}/{len(files)} {file.name} ({file.size / 1e6:,.1f} MB)")
            _fetch(source, file, commit, partial, endpoint, progress)
        _finish(source, commit, partial, directory)
    progress(f"{source} is here, at revision {commit}")
    return directory


# -- what there is --------------------------------------------------------------------------------


def _list_files(source: str, revision: str, endpoint: str | None) -> tuple[str, list[HubFile]]:
    """The commit that a revision names, and the files of it that are wanted."""
    # only this function needs the hub's library
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi(endpoint=endpoint).model_info(source, revision=revision, files_metadata=True)
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"the hub does not give {source} at {revision}: {in_brief(error)}"
        ) from None
    files = [
        HubFile(each.rfilename, each.size or 0, each.lfs.sha256 if each.lfs else None)
        for each in info.siblings or ()
    ]
    if info.sha is None:
        raise ModelError(f"the hub does not say which commit {source} is at")
    return info.sha, select_files(files)


def select_files(files: list[HubFile]) -> list[HubFile]:
    """Config, tokenizer and one set of weights: safetensors where there are some, else pickles."""
    top_level = [file for file in files if "/" not in file.name]
    weights = [file for file in top_level if _SAFETENSORS.fullmatch(file.name)]
    weights = weights or [file for file in top_level if _PICKLED.fullmatch(file.name)]
    if not weights and (gguf := [file.name for file in files if file.name.endswith(".gguf")]):
        raise ModelError(
            f"the repository has GGUF files alone, such as {gguf[0]}: download one of them, and "
            "`henji models pull FILE.gguf` converts it"
        )
    if not weights:
        raise ModelError("the repository has neither safetensors nor pickled weights of PyTorch")
    return [file for file in files if _SMALL.fullmatch(file.name)] + weights


def _is_weights(file: HubFile) -> bool:
    return bool(_SAFETENSORS.fullmatch(file.name) or _PICKLED.fullmatch(file.name))


# -- fetching it ----------------------------------------------------------------------------------


def _begin_partial(directory: Path, commit: str) -> Path:
    """The directory to download a commit's files to; files of another commit there are deleted."""
    partial = directory.with_name(f"{directory.name}.partial")
    named = partial / _PARTIAL_COMMIT
    if named.exists() and named.read_text().strip() != commit:
        shutil.rmtree(partial)
    partial.mkdir(exist_ok=True)
    named.write_text(f"{commit}\n")
    return partial


def _check_disk(source: str, partial: Path, files: list[HubFile]) -> None:
    missing = sum(file.size - _size_of(partial / file.name) for file in files)
    free = shutil.disk_usage(partial).free
    if missing > free:
        raise ModelError(
            f"{source} takes {missing / 1e9:.1f} GB more, "
            f"and {partial.parent} has {free / 1e9:.1f} GB of room"
        )


def _size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch(
    source: str, file: HubFile, commit: str, partial: Path, endpoint: str | None, progress: Progress
) -> None:
    """Download a file, or the rest of it."""
    from httpx2 import HTTPError
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public

    path = partial / file.name
    path.parent.mkdir(exist_ok=True)
    done = _size_of(path)
    url = hf_hub_url(source, file.name, revision=commit, endpoint=endpoint)
    try:
        with path.open("ab") as into:
            http_get(
                url,
                into,
                resume_size=done,
                headers=build_hf_headers(),
                expected_size=file.size or None,
                tqdm_class=_bar(file, progress),
            )
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        raise ModelError(f"{file.name} of {source} was not fetched: {in_brief(error)}") from None
    if not _is_whole(path, file):
        path.unlink()
        raise ModelError(f"{file.name} of {source} did not arrive whole; pull once more")


def _is_whole(path: Path, file: HubFile) -> bool:
    if file.size and path.stat().st_size != file.size:
        return False
    if file.sha256 is None:
        return True
    with path.open("rb") as whole:
        return hashlib.file_digest(whole, "sha256").hexdigest() == file.sha256


def _bar(file: HubFile, progress: Progress) -> Any:
    """A class in the place of the library's progress bar, which shows one in a terminal alone."""

    class Bar:
        def __init__(self, *_: object, initial: int = 0, **__: object) -> None:
            self._done = initial
            self._reported = initial * 10 // max(1, file.size)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, size: int) -> None:
            self._done += size
            tenth = self._done * 10 // max(1, file.size)
            if file.size >= _PROGRESS_BYTES and self._reported < tenth < 10:
                self._reported = tenth
                progress(f"    {tenth}0 % of {file.name}")

    return Bar


def _finish(source: str, commit: str, partial: Path, directory: Path) -> None:
    """Replace the model's directory by the complete download."""
    (partial / _PARTIAL_COMMIT).unlink()
    (partial / PULL_RECORD).write_text(json.dumps({"source": source, "revision": commit}) + "\n")
    before = directory.with_name(f"{directory.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if directory.exists():
        directory.rename(before)
    partial.rename(directory)
    shutil.rmtree(before, ignore_errors=True)
