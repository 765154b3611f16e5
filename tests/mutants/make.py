"""Mutants of a file, each one edit of its text, by rule: a comparison flipped, a call dropped, a
constant off by one, an argument forgotten. Pure."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PLACES = (
    "storage/scripts", "core/worker.py", "core/running_job.py", "bots/delivery.py", "bots/view.py",
)  # fmt: skip
"""The code that mutants are made of."""


@dataclass(frozen=True, slots=True)
class Mutant:
    file: Path
    line: int
    rule: str
    start: int
    """Characters from the file's beginning."""
    end: int
    text: str
    """Stands in place of the characters from `start` to `end`."""
    was: str
    """The line as it is, without its indent."""
    became: str
    """The line as the mutant has it."""
    nth: int
    """Counts the same edits of equal lines in the file, from 1."""
    function: int = 0
    """The line at which the Python function around it begins."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.rule}: {self.was} -> {self.became}"

    @property
    def key(self) -> str:
        """Names the mutant also when lines above it have moved."""
        nth = f" ({self.nth})" if self.nth > 1 else ""
        return f"{self.file} | {self.rule} | {self.was} -> {self.became}{nth}"

    def applied(self, text: str) -> str:
        return text[: self.start] + self.text + text[self.end :]


def mutants_of(file: Path, text: str) -> Iterator[Mutant]:
    """Every mutant of a Lua script or a Python module."""
    edits = _of_lua(text) if file.suffix == ".lua" else _of_python(text)
    begins = {} if file.suffix == ".lua" else _functions(text)
    lines, equal = text.splitlines(), Counter[tuple[str, str, str]]()
    for rule, start, end, replacement in edits:
        line = text.count("\n", 0, start) + 1
        was, before = lines[line - 1].strip(), text[:start].rpartition("\n")[2].lstrip()
        became = before + replacement + text[end:].partition("\n")[0]
        equal[rule, was, became] += 1
        nth, function = equal[rule, was, became], begins.get(line, 0)
        yield Mutant(file, line, rule, start, end, replacement, was, became, nth, function)


def _functions(text: str) -> dict[int, int]:
    """Line -> the first line of the innermost function around it."""
    begins: dict[int, int] = {}
    for node in ast.walk(ast.parse(text)):  # an outer function comes before those in it
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            begin = min(line.lineno for line in (node, *node.decorator_list))
            begins |= dict.fromkeys(range(begin, (node.end_lineno or begin) + 1), begin)
    return begins


Edit = tuple[str, int, int, str]

FLIPPED = {"==": "~=", "~=": "==", "<": ">=", ">": "<=", "<=": ">", ">=": "<"}


def _of_lua(text: str) -> Iterator[Edit]:
    code = re.sub(r"--[^\n]*", lambda comment: " " * len(comment[0]), text)
    blank = re.sub(r"'[^'\n]*'", lambda string: "'" + " " * (len(string[0]) - 2) + "'", code)
    for found in re.finditer(r"(?<![<>=~])(==|~=|<=|>=|<|>)(?![=])", blank):
        yield "comparison flipped", *found.span(), FLIPPED[found[1]]
    for found in re.finditer(r"(?m)^ *((?:call|[a-z_]+)\([^\n]*\))$", blank):
        if found[1].count("(") == found[1].count(")"):
            yield "call dropped", *found.span(1), "do end"
    for found in re.finditer(r"(?<![\w.'])(\d+)(?![\w.'])", blank):
        yield "constant off by one", *found.span(1), str(int(found[1]) + 1)
    for found in re.finditer(r"(, [\w.]+|, '[^'\n]*')\)", blank):
        yield "argument forgotten", *found.span(1), ""


COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "!=", ast.NotEq: "==", ast.Lt: ">=", ast.Gt: "<=", ast.LtE: ">", ast.GtE: "<",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip


def _of_python(text: str) -> Iterator[Edit]:
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    encoded = text.encode()

    def at(line: int, column: int) -> int:
        return len(encoded[: starts[line - 1] + column].decode())

    def span(node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)

    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Compare(left=left, ops=[operator], comparators=[right]):
                between = text[span(left)[1] : span(right)[0]]  # with parentheses, it may be
                found = re.search(r"==|!=|<=|>=|<|>|\bis not\b|\bnot in\b|\bis\b|\bin\b", between)
                assert found
                start = span(left)[1] + found.start()
                yield (
                    "comparison flipped",
                    start,
                    start + len(found[0]),
                    COMPARISONS[type(operator)],
                )
            case ast.Expr(value=ast.Call() | ast.Await()):
                if not text.startswith("log.", span(node)[0]):  # nobody relies on a line in the log
                    yield "call dropped", *span(node), "pass"
            case ast.Constant(value=int() as number) if not isinstance(number, bool):
                yield "constant off by one", *span(node), str(number + 1)
            case ast.Call(args=[_, *_, last], keywords=[]):
                yield "argument forgotten", span(node.args[-2])[1], span(last)[1], ""
