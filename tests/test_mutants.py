"""The bugs that `make mutants` plants follow its rules."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants.__main__ import JUDGES, all_mutants, known_equivalent
from tests.mutants.make import mutants_of
from tests.mutants.reach import ROOT

LUA = """-- a < comment
local x = 1
if x == 2 then call('DEL', K('job', J)) end
touch('job', J)
"""

PYTHON = """def f(a, b):
    if a < b:
        g(a, 7)
    return h(a)
"""


@pytest.mark.parametrize(("name", "text"), [("a.lua", LUA), ("a.py", PYTHON)])
def test_each_rule_makes_its_mutants(name: str, text: str) -> None:
    found = {(m.rule, m.applied(text)) for m in mutants_of(Path(name), text)}
    rules = {rule for rule, _ in found}
    assert rules == {
        "comparison flipped", "call dropped", "constant off by one", "argument forgotten",
    }  # fmt: skip
    assert all(mutated != text for _, mutated in found)


def test_a_comment_is_no_code() -> None:
    assert all("comment" not in mutant.was for mutant in mutants_of(Path("a.lua"), LUA))


def test_every_python_mutant_is_python() -> None:
    mutants = [mutant for mutant in all_mutants() if mutant.file.suffix == ".py"]
    assert len(mutants) > 200
    for mutant in mutants:
        ast.parse(mutant.applied((ROOT / mutant.file).read_text()))


def test_no_two_mutants_have_the_same_key() -> None:
    text = "if a(1, 1) then b(1) end\nf(A, B)\nf(A, B)\n"
    keys = [mutant.key for mutant in mutants_of(Path("a.lua"), text)]
    assert len(keys) == len(set(keys)) == 8


def test_the_list_of_equivalent_mutants_is_current_and_gives_reasons() -> None:
    keys = {mutant.key for mutant in all_mutants()}
    for key, reason in known_equivalent().items():
        assert key in keys, key
        assert reason


def test_the_tests_that_judge_mutants_exist() -> None:
    assert all((ROOT / test).is_file() for test in JUDGES)
