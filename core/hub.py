"""Fetching a model from the Hugging Face hub."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.errors import ModelError
from core.model_files import PULLED, find_pulled, pulled_directory, read_json

_SMALL = re.compile(r".*\.(json|jinja|model|txt)")
_SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_PICKLED = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")


@dataclass(frozen=True, slots=True)
class HubFile:
    name: str
    size: int
    """Bytes."""


def pull(
    source: str,
    data_dir: Path,
    revision: str | None,
    progress: Callable[[str], None],
    *,
    endpoint: str | None = None,
) -> Path:
    """Fetch a model's files into the data directory, and write down the commit they are of.

    `revision` None is what was fetched before, else what the branch `main` names now. `endpoint` is
    the hub's address, where it is another than the library's. Raises ModelError with one sentence.
    """
    directory = pulled_directory(data_dir, source)
    if find_pulled(data_dir, source, revision) is not None:
        known = read_json(directory / PULLED)["revision"]
        progress(f"{source} is here already, at revision {known}")
        return directory
    commit, files = _listed(source, revision or "main", endpoint)
    _check_disk(source, directory, files)
    for number, file in enumerate(files, 1):
        progress(f"{number}/{len(files)} {file.name} ({file.size / 1e6:,.1f} MB)")
        _fetch(source, file, commit, directory, endpoint)
    (directory / PULLED).write_text(json.dumps({"source": source, "revision": commit}) + "\n")
    progress(f"{source} is here, at revision {commit}")
    return directory


def _listed(source: str, revision: str, endpoint: str | None) -> tuple[str, list[HubFile]]:
    """The commit that a revision names, and the files of it that are wanted."""
    # the hub's library is wanted here alone
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        info = HfApi(endpoint=endpoint).model_info(source, revision=revision, files_metadata=True)
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise ModelError(f"the hub does not give {source} at {revision}: {_brief(error)}") from None
    files = [HubFile(each.rfilename, each.size or 0) for each in info.siblings or ()]
    if info.sha is None:
        raise ModelError(f"the hub does not say which commit {source} is at")
    return info.sha, wanted(files)


def wanted(files: list[HubFile]) -> list[HubFile]:
    """Config, tokenizer and one set of weights: safetensors where there are some, else pickles."""
    here = [file for file in files if "/" not in file.name]
    weights = [file for file in here if _SAFETENSORS.fullmatch(file.name)]
    weights = weights or [file for file in here if _PICKLED.fullmatch(file.name)]
    if not weights:
        raise ModelError("the repository has neither safetensors nor pickled weights of PyTorch")
    return [file for file in here if _SMALL.fullmatch(file.name)] + weights


def _check_disk(source: str, directory: Path, files: list[HubFile]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    missing = sum(file.size for file in files if not _is_whole(directory, file))
    free = shutil.disk_usage(directory).free
    if missing > free:
        raise ModelError(
            f"{source} takes {missing / 1e9:.1f} GB more, "
            f"and {directory} has {free / 1e9:.1f} GB of room"
        )


def _is_whole(directory: Path, file: HubFile) -> bool:
    path = directory / file.name
    return path.exists() and path.stat().st_size == file.size


def _fetch(source: str, file: HubFile, commit: str, directory: Path, endpoint: str | None) -> None:
    from httpx2 import HTTPError
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        hf_hub_download(source, file.name, revision=commit, local_dir=directory, endpoint=endpoint)
    except (HfHubHTTPError, HTTPError, OSError) as error:
        raise ModelError(f"{file.name} of {source} was not fetched: {_brief(error)}") from None
    if file.size and not _is_whole(directory, file):
        raise ModelError(f"{directory / file.name} did not arrive whole; pull once more")


def _brief(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
