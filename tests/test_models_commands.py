"""``henji models``, ``henji models pull`` and ``henji tokenize``, and a hub to pull from."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bots.cli.models import models, tokenize
from core.errors import ModelError, UsageError
from core.models.catalogue import find_model, is_downloaded, model_directory, pull_model
from core.models.download import HubFile, pull, select_files
from core.settings import Settings
from tests import dialogues
from tests.processes import henji

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A hub with one repository, `org/tiny`, as far as a client asks of one."""

    files: dict[str, bytes]
    commit: str = COMMIT
    sizes: dict[str, int] = field(default_factory=dict)
    """What it says of files, where that is not so."""
    sha256: dict[str, str] = field(default_factory=dict)
    breaks_off: bool = False
    """Whether a big file ends in the middle, and nothing is answered from then on."""
    broken: bool = False
    address: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """The files that were asked for, and from where on."""

    def listing(self) -> dict[str, object]:
        siblings = [
            {
                "rfilename": name,
                "size": self.sizes.get(name, len(content)),
                "lfs": self.lfs(name, content) if len(content) > 100_000 else None,
            }
            for name, content in self.files.items()
        ]
        return {"id": "org/tiny", "modelId": "org/tiny", "sha": self.commit, "siblings": siblings}

    def lfs(self, name: str, content: bytes) -> dict[str, object]:
        told = self.sha256.get(name, hashlib.sha256(content).hexdigest())
        return {"size": len(content), "sha256": told, "pointerSize": 134}


@contextmanager
def hub(files: dict[str, bytes], **how: Any) -> Iterator[Hub]:
    """A hub with these files, which listens until the end of the block."""
    state = Hub(files, **how)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if state.broken:
                return self.send_error(500)
            if path.startswith("/api/models/org/tiny/revision/"):
                return self._send(json.dumps(state.listing()).encode())
            name = path.removeprefix(f"/org/tiny/resolve/{state.commit}/")
            if name in state.files:
                state.asked.append((name, self.headers.get("Range")))
                return self._send(state.files[name])
            self.send_error(404)
            return None

        def _send(self, content: bytes) -> None:
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            self.send_response(206 if start else 200)
            if start:
                of = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", of)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            if state.breaks_off and len(content) > 10_000_000:
                self.wfile.write(content[start : len(content) // 2])
                state.broken = self.close_connection = True
                return
            self.wfile.write(content[start:])

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def tiny_files() -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in dialogues.rinna_files().iterdir()}
    return {**files, "README.md": b"a card", "flax_model.msgpack": b"no"}


# -- pull ---------------------------------------------------------------------------------------


def fetch(
    place: Path, there: Hub, *, say: Callable[[str], None] = print, revision: str | None = None
) -> Path:
    return pull("org/tiny", place, revision, say, endpoint=there.address)


def test_a_model_is_fetched_and_its_commit_written_down(tmp_path: Path) -> None:
    lines: list[str] = []
    named = {"additional_chat_templates/rag.jinja": b"{{ 1 }}"}
    with hub({**tiny_files(), **named}) as there:
        directory = fetch(tmp_path, there, say=lines.append)
    here = {path.name for path in directory.iterdir()}
    assert here >= {"config.json", "spiece.model", "pytorch_model.bin"}
    assert not here & {"README.md", "flax_model.msgpack"}
    assert (directory / "additional_chat_templates" / "rag.jinja").read_text() == "{{ 1 }}"
    assert any("pytorch_model.bin" in line and "MB" in line for line in lines)
    assert COMMIT in lines[-1]

    own = Settings(data_dir=tmp_path, model="org/tiny")
    spec = find_model(own)
    assert is_downloaded(spec, own)
    assert model_directory(spec, own, print) == directory

    # the hub is gone, and the commit stays
    assert fetch(tmp_path, there, say=lines.append) == directory
    assert lines[-1] == f"org/tiny is here already, at revision {COMMIT}"


LFM2 = {"model_type": "lfm2", "layer_types": ["conv", "full_attention"]}
LLAMA_4 = {
    "model_type": "llama4",
    "text_config": {"max_position_embeddings": 131072, "layer_types": None},
}


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"model_type": "gpt_neox"}, "the torch engine serves the type gpt_neox"),
        ({"model_type": "mamba"}, "the torch engine refuses the type mamba: its attention cannot"),
        ({"model_type": "of_tomorrow"}, "the torch engine does not know the type of_tomorrow"),
        ({}, "the torch engine does not know the type unknown"),
        (
            {"model_type": "llama", "quantization_config": {"quant_method": "awq"}},
            "the torch engine does not load quantized weights (awq)",
        ),
        (LFM2, "refuses the type lfm2: its layers are of the kind conv"),
        (
            {"model_type": "lfm2", "num_hidden_layers": 3, "full_attn_idxs": [1]},
            "refuses the type lfm2: its layers are of the kind conv",
        ),
        ({"model_type": "lfm2", "full_attn_idxs": [1]}, "its layers are of the kind conv"),
        (
            {"model_type": "lfm2", "num_hidden_layers": 2, "full_attn_idxs": [0, 1]},
            "the torch engine serves the type lfm2",
        ),
        (LLAMA_4, "refuses the type llama4: it attends in chunks. With context_length = 8192"),
        (
            {"model_type": "llama4", "text_config": {"max_position_embeddings": 4096}},
            "the torch engine serves the type llama4",
        ),
        ({"model_type": "llama4_text"}, "refuses the type llama4_text: it attends in chunks"),
        ({"model_type": "falcon"}, "the torch engine serves the type falcon"),
        ({"model_type": "falcon", "alibi": True}, "its attention weighs keys by their distance"),
        ({"model_type": "doge"}, "the torch engine refuses the type doge"),
        (
            {
                "model_type": "minimax_m3_vl_text",
                "num_hidden_layers": 2,
                "sparse_attention_config": {"sparse_attention_freq": [0, 1]},
            },
            "its layers are of the kind minimax_m3_sparse",
        ),
        ({"model_type": "bert"}, "the torch engine refuses the type bert: it is an encoder"),
        ({"model_type": "bert", "is_decoder": False}, "it is an encoder"),
        ({"model_type": "bert", "is_decoder": True}, "the torch engine serves the type bert"),
        ({"model_type": "gpt_neox", "is_decoder": False}, "the torch engine serves"),
        (
            {"model_type": "llama", "layer_types": 7, "full_attn_idxs": 3},
            "refuses the type llama: its layers are of the kind 7",
        ),
    ],
)
def test_a_pull_says_before_the_weights_whether_they_can_be_served(
    tmp_path: Path, config: dict[str, Any], told: str
) -> None:
    lines: list[str] = []
    files = {**tiny_files(), "config.json": json.dumps(config).encode()}
    with hub(files) as there:
        fetch(tmp_path, there, say=lines.append)
    said = next(n for n, line in enumerate(lines) if told in line)
    weights = next(n for n, line in enumerate(lines) if "pytorch_model.bin" in line)
    assert said < weights
    assert "serves" in lines[said] or "HENJI_ENGINE=openai" in lines[said]


def test_a_pull_knows_the_context_length_of_the_settings(tmp_path: Path) -> None:
    files = {**tiny_files(), "config.json": json.dumps(LLAMA_4).encode()}
    table = {"source": "org/tiny", "context_length": 8192}
    places = [
        (Settings(data_dir=tmp_path / "a"), "org/tiny", "refuses"),
        (Settings(data_dir=tmp_path / "b", context_length=8192), "org/tiny", "serves the type"),
        (Settings(data_dir=tmp_path / "c", models={"mine": table}), "mine", "serves the type"),
    ]
    with hub(files) as there:
        for settings, name, told in places:
            lines: list[str] = []
            pull_model(name, settings, None, lines.append, endpoint=there.address)
            assert any(told in line for line in lines)


def test_a_repository_of_gguf_files_alone_says_what_to_do(tmp_path: Path) -> None:
    with (
        hub({"config.json": b"{}", "tiny-Q8_0.gguf": b"GGUF"}) as there,
        pytest.raises(ModelError, match=r"tiny-Q8_0\.gguf: download one.*henji models pull"),
    ):
        fetch(tmp_path, there)


def test_an_interrupted_download_is_resumed(tmp_path: Path) -> None:
    lines: list[str] = []
    files = {**tiny_files(), "pytorch_model.bin": bytes(24_000_000)}
    with hub(files, breaks_off=True) as there, pytest.raises(ModelError, match="was not fetched"):
        fetch(tmp_path, there)
    assert not is_downloaded(
        replace(dialogues.RINNA, source="org/tiny"), Settings(data_dir=tmp_path)
    )
    with hub(files) as there:
        directory = fetch(tmp_path, there, say=lines.append)
    assert there.asked == [("pytorch_model.bin", f"bytes={10 << 20}-")]
    assert (directory / "pytorch_model.bin").read_bytes() == bytes(24_000_000)
    assert [line for line in lines if "%" in line] == ["    80 % of pytorch_model.bin"]


def test_another_revision_replaces_the_first_only_when_complete(
    tmp_path: Path,
) -> None:
    old = {**tiny_files(), "model.safetensors": bytes(20)}
    new = {**tiny_files(), "pytorch_model.bin": bytes(24_000_000)}
    with hub(old) as there:
        directory = fetch(tmp_path, there)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    other = "f" * 40
    with hub(new, commit=other, breaks_off=True) as there, pytest.raises(ModelError):
        fetch(tmp_path, there, revision=other)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    with hub(new, commit=other) as there:
        assert fetch(tmp_path, there, revision=other) == directory
    after = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert "model.safetensors" not in after  # it would be loaded first
    assert after["pytorch_model.bin"] == bytes(24_000_000)
    assert json.loads(after["henji-model.json"])["revision"] == other
    assert not list(tmp_path.rglob("*.partial")) + list(tmp_path.rglob("*.before"))


def test_a_file_with_a_wrong_checksum_is_downloaded_again(tmp_path: Path) -> None:
    files = tiny_files()
    with (
        hub(files, sha256={"spiece.model": "0" * 64}) as there,
        pytest.raises(ModelError, match=r"spiece\.model of org/tiny did not arrive whole"),
    ):
        fetch(tmp_path, there)
    with hub(files) as there:
        assert (fetch(tmp_path, there) / "spiece.model").read_bytes() == files["spiece.model"]


def test_two_downloads_at_once_become_one(tmp_path: Path) -> None:
    lines: list[str] = []
    with hub(tiny_files()) as there, ThreadPoolExecutor() as two:
        list(two.map(lambda _: fetch(tmp_path, there, say=lines.append), range(2)))
    assert len(there.asked) == len({name for name, _ in there.asked})
    assert f"org/tiny is here already, at revision {COMMIT}" in lines


def test_a_model_of_another_revision_is_not_the_one_that_is_pinned(tmp_path: Path) -> None:
    with hub(tiny_files()) as there:
        fetch(tmp_path, there)
    table = {"source": "org/tiny", "revision": "f" * 40}
    with pytest.raises(ModelError, match="henji models pull pinned"):
        find_model(Settings(data_dir=tmp_path, model="pinned", models={"pinned": table}))


def test_a_model_that_the_disk_has_no_room_for_is_not_begun(tmp_path: Path) -> None:
    with (
        hub(tiny_files(), sizes={"pytorch_model.bin": 10**18}) as there,
        pytest.raises(ModelError, match=r"takes 1000000000\.0 GB more"),
    ):
        fetch(tmp_path, there)
    assert not list(tmp_path.rglob("*.bin"))


def test_a_model_that_the_hub_does_not_have_is_named(tmp_path: Path) -> None:
    with hub({}) as there, pytest.raises(ModelError, match="does not give org/none at main"):
        pull("org/none", tmp_path, None, print, endpoint=there.address)


def test_a_malformed_hub_id_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not give org/a\.\.b") as caught:
        pull("org/a..b", tmp_path, None, print)
    assert "\n" not in str(caught.value)


def test_a_silent_hub_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with hub({}) as there:
        pass
    with pytest.raises(ModelError, match="does not give org/tiny") as caught:
        fetch(tmp_path, there)
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("in the way")
    with hub({}) as there, pytest.raises(ModelError, match="models cannot be made"):
        fetch(tmp_path, there)


def test_a_table_over_a_model_of_the_catalogue_is_fetched_at_the_revision_it_names(
    tmp_path: Path,
) -> None:
    """Also where it has the catalogue's own name."""
    for name in ("warm", "rinna-ppo"):
        table = {"source": "rinna-ppo", "revision": "f" * 40}
        own = Settings(data_dir=tmp_path, model=name, models={name: table})
        with hub({}) as there, pytest.raises(ModelError, match=f"ppo at {'f' * 40}"):
            pull_model(name, own, None, print, endpoint=there.address)


@pytest.mark.parametrize("name", ["nope", "echo", "here", "sourceless"])
def test_a_model_that_is_not_on_the_hub_cannot_be_pulled(tmp_path: Path, name: str) -> None:
    tables: dict[str, dict[str, Any]] = {"here": {"source": str(tmp_path)}, "sourceless": {}}
    with pytest.raises(UsageError, match=name) as caught:
        pull_model(name, Settings(data_dir=tmp_path, models=tables), None, print)
    assert "\n" not in str(caught.value)


async def test_the_command_fetches_a_model_and_prints_where_it_is(tmp_path: Path) -> None:
    with hub(tiny_files()) as there:
        given = {"HENJI_DATA_DIR": str(tmp_path), "HF_ENDPOINT": there.address}
        ran = await henji("models", "pull", "org/tiny", **given)
    assert (ran.status, ran.out) == (0, f"{tmp_path / 'models' / 'org--tiny'}\n")
    assert ran.err.splitlines()[-1] == f"org/tiny is here, at revision {COMMIT}"


def test_safetensors_are_wanted_before_pickles() -> None:
    names = ["config.json", "pytorch_model.bin", "model-00001-of-00002.safetensors"]
    names += ["model-00002-of-00002.safetensors", "model.safetensors.index.json", "tf_model.h5"]
    names += ["additional_chat_templates/rag.jinja", "original/params.json"]
    kept = {file.name for file in select_files([HubFile(name, 1) for name in names])}
    assert kept == set(names) - {"pytorch_model.bin", "tf_model.h5", "original/params.json"}
    with pytest.raises(ModelError, match="neither"):
        select_files([HubFile("config.json", 1)])


# -- the commands -------------------------------------------------------------------------------


def run(command: object, *arguments: str, **environment: str) -> Result:
    assert callable(command)
    return CliRunner().invoke(command, arguments, env=environment, catch_exceptions=False)  # type: ignore[arg-type]  # a click command


def test_the_list_has_the_memory_of_each_model(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_no_token_acts_on_a_terminal(words: tuple[str, ...]) -> None:
    told = run(tokenize, *words, "\x1b]0;owned\x07\x9b2J\u202e", HENJI_ENGINE="echo")
    assert told.output.replace("\n", "").isprintable()


def test_tokenize_shows_the_prompt_of_one_turn() -> None:
    told = run(tokenize, "--prompt", "--json", "hi", HENJI_ENGINE="echo")
    assert json.loads(told.output)["pieces"] == ["<user>", "h", "i", "<end>", "<assistant>"]
