"""`henji align`: what it asks for, what it leaves, and one sentence where it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.models.manifest import read_manifest
from tests import tiny_models
from tests.processes import Ran, henji
from tests.test_alignment_training import pairs, rated


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny model, the settings that name it, and a data set of pairs."""
    tiny_models.rinna(tmp_path / "base")
    lines = ["[models.tiny]", f'source = "{tmp_path / "base"}"', 'format = "rinna"']
    (tmp_path / "henji.toml").write_text("\n".join(lines))
    for name, rows in (("pairs", pairs()), ("rated", rated())):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    monkeypatch.setenv("HENJI_CONFIG", str(tmp_path / "henji.toml"))
    monkeypatch.setenv("HENJI_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


async def ran(*words: object) -> Ran:
    return await henji("align", *map(str, words))


async def test_the_cards_way_from_thumbs_to_a_policy(folder: Path) -> None:
    """SFT, then a reward model from pairs, then PPO that goes on from the first adapter."""
    first = await ran("tiny", "--data", folder / "rated.jsonl", "--method", "sft", "--steps", 4)
    assert first.status == 0, first.err
    out = folder / "data" / "adapters" / "tiny-sft"
    assert first.out == f"{out}\n"
    assert f'under [models.tiny]:\nadapter = "{out}"' in first.err
    assert "step 4/4" in first.err
    with (folder / "henji.toml").open("a") as settings:
        settings.write(f'\nadapter = "{out}"\n')
    taste = folder / "taste"
    words = ("tiny", "--data", folder / "pairs.jsonl", "--reward", "--out", taste, "--steps", 4)
    second = await ran(*words)
    assert second.status == 0, second.err
    assert "to serve it" not in second.err
    policy = folder / "policy"
    third = await ran(
        *("tiny", "--data", folder / "pairs.jsonl", "--method", "ppo", "--reward", taste),
        *("--out", policy, "--steps", 2, "--reply", 8),
    )
    assert third.status == 0, third.err
    made, started = read_manifest(policy), read_manifest(out)
    assert made is not None
    assert started is not None
    assert len(made.rewards) == 1
    assert set(started.examples) < set(made.examples)  # what it went on from is in it too


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data", "pairs.jsonl"], "--method is missing: sft, dpo, kto, ppo, or --reward"),
        (["--data", "pairs.jsonl", "--method", "dpo", "--reward", "x"], "not dpo"),
        (["--data", "pairs.jsonl", "--method", "ppo", "--reward"], "a folder; not ppo"),
        (["--data", "pairs.jsonl", "--method", "rloo"], "'rloo' is not one of"),
        (["--method", "dpo"], "Missing option '--data'"),
    ],
)
async def test_a_command_line_that_is_wrong_is_said_in_a_sentence(
    folder: Path, words: list[str], sentence: str
) -> None:
    found = await ran("tiny", *words)
    assert found.status == 2
    assert sentence in found.err


async def test_a_data_set_of_another_kind_is_said_in_a_sentence(folder: Path) -> None:
    found = await ran("tiny", "--data", folder / "rated.jsonl", "--method", "dpo")
    assert found.status == 1
    assert "line 1, has no chosen and no rejected" in found.err
    assert found.err.count("\n") == 1
