"""``henji models``, ``henji models pull`` and ``henji tokenize``, and a hub to pull from."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bots.cli_models import models, tokenize
from core.errors import ModelError
from core.hub import HubFile, pull, wanted
from core.models import find_model, is_here, model_directory
from core.settings import Settings
from tests import dialogues

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(files: dict[str, bytes], *, sizes: dict[str, int] | None = None) -> Iterator[str]:
    """The address of a hub with one repository, `org/tiny`, as far as a client asks of one."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            if path.startswith("/api/models/org/tiny/revision/"):
                return self._send(json.dumps(_listing(files, sizes or {})).encode(), {}, body)
            name = path.removeprefix(f"/org/tiny/resolve/{COMMIT}/")
            if name in files:
                etag = hashlib.sha256(files[name]).hexdigest()
                headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
                return self._send(files[name], headers, body)
            self.send_error(404)
            return None

        def _send(self, content: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _listing(files: dict[str, bytes], sizes: dict[str, int]) -> dict[str, object]:
    siblings = [
        {"rfilename": name, "size": sizes.get(name, len(content))}
        for name, content in files.items()
    ]
    return {"id": "org/tiny", "modelId": "org/tiny", "sha": COMMIT, "siblings": siblings}


def tiny_files() -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in dialogues.rinna_files().iterdir()}
    return {**files, "README.md": b"a card", "flax_model.msgpack": b"no"}


# -- pull ---------------------------------------------------------------------------------------


def test_a_model_is_fetched_and_its_commit_written_down(tmp_path: Path) -> None:
    lines: list[str] = []
    with hub(tiny_files()) as endpoint:
        directory = pull("org/tiny", tmp_path, None, lines.append, endpoint=endpoint)
    here = {path.name for path in directory.iterdir() if path.is_file()}
    assert here >= {"config.json", "spiece.model", "pytorch_model.bin"}
    assert not here & {"README.md", "flax_model.msgpack"}
    assert any("pytorch_model.bin" in line and "MB" in line for line in lines)
    assert COMMIT in lines[-1]

    own = Settings(data_dir=tmp_path, model="org/tiny")
    spec = find_model(own)
    assert is_here(spec, own)
    assert model_directory(spec, own, print) == directory

    # the hub is gone, and the commit stays
    assert pull("org/tiny", tmp_path, None, lines.append, endpoint=endpoint) == directory
    assert lines[-1] == f"org/tiny is here already, at revision {COMMIT}"


def test_a_model_of_another_revision_is_not_the_one_that_is_pinned(tmp_path: Path) -> None:
    with hub(tiny_files()) as endpoint:
        pull("org/tiny", tmp_path, None, print, endpoint=endpoint)
    table = {"source": "org/tiny", "revision": "f" * 40}
    with pytest.raises(ModelError, match="henji models pull pinned"):
        find_model(Settings(data_dir=tmp_path, model="pinned", models={"pinned": table}))


def test_a_model_that_the_disk_has_no_room_for_is_not_begun(tmp_path: Path) -> None:
    with (
        hub(tiny_files(), sizes={"pytorch_model.bin": 10**18}) as endpoint,
        pytest.raises(ModelError, match=r"takes 1000000000\.0 GB more"),
    ):
        pull("org/tiny", tmp_path, None, print, endpoint=endpoint)
    assert not list(tmp_path.rglob("*.bin"))


def test_a_model_that_the_hub_does_not_have_is_named(tmp_path: Path) -> None:
    with hub({}) as endpoint, pytest.raises(ModelError, match="does not give org/none at main"):
        pull("org/none", tmp_path, None, print, endpoint=endpoint)


def test_a_hub_that_does_not_answer_is_told_in_one_sentence(tmp_path: Path) -> None:
    with hub({}) as endpoint:
        pass
    with pytest.raises(ModelError, match="does not give org/tiny") as caught:
        pull("org/tiny", tmp_path, None, print, endpoint=endpoint)
    assert "\n" not in str(caught.value)


def test_safetensors_are_wanted_before_pickles() -> None:
    names = ["config.json", "pytorch_model.bin", "model-00001-of-00002.safetensors"]
    names += ["model-00002-of-00002.safetensors", "model.safetensors.index.json", "tf_model.h5"]
    kept = {file.name for file in wanted([HubFile(name, 1) for name in names])}
    assert kept == set(names) - {"pytorch_model.bin", "tf_model.h5"}
    with pytest.raises(ModelError, match="neither"):
        wanted([HubFile("config.json", 1)])


# -- the commands -------------------------------------------------------------------------------


def run(command: object, *arguments: str, **environment: str) -> Result:
    assert callable(command)
    return CliRunner().invoke(command, arguments, env=environment, catch_exceptions=False)  # type: ignore[arg-type]  # a click command


def test_the_list_says_what_each_model_takes(tmp_path: Path) -> None:
    told = run(models, HENJI_DATA_DIR=str(tmp_path)).output
    (line,) = [line for line in told.splitlines() if line.startswith("rinna-ppo ")]
    assert line.split()[2:] == ["3.61", "B", "7.21", "GB", "830", "MB", "2048", "tokens", "no"]
    assert "smollm2" in told
    told = run(models, HENJI_DATA_DIR=str(tmp_path), HENJI_DTYPE="float32").output
    assert "14.43 GB" in told


def test_the_limits_of_one_model_are_not_those_of_the_others_in_the_list(tmp_path: Path) -> None:
    limits = {"HENJI_MODEL": "smollm2", "HENJI_CONTEXT_LENGTH": "4096"}
    told = run(models, HENJI_DATA_DIR=str(tmp_path), **limits)
    reads = {line.split()[0]: line for line in told.output.splitlines() if "tokens  " in line}
    assert "4096 tokens" in reads["smollm2"]
    assert "2048 tokens" in reads["rinna-ppo"]


def test_tokenize_shows_pieces_ids_and_count(tmp_path: Path) -> None:
    model = str(dialogues.rinna_files())
    told = run(tokenize, "--model", model, "--json", "  吾輩は猫 გ")
    shown = json.loads(told.output)
    assert set(shown) == {"pieces", "ids", "count", "decoded"}
    assert shown["pieces"][:2] == ["\u2581", "\u2581"]
    assert shown["decoded"] == "  吾輩は猫 გ"
    assert shown["count"] == len(shown["ids"]) == len(shown["pieces"])
    table = run(tokenize, "--model", model, "吾輩").output.splitlines()
    assert table[-1] == f"{len(table) - 1} tokens"


def test_tokenize_shows_the_prompt_of_one_turn() -> None:
    told = run(tokenize, "--prompt", "--json", "hi", HENJI_ENGINE="echo")
    assert json.loads(told.output)["pieces"] == ["<user>", "h", "i", "<end>", "<assistant>"]
