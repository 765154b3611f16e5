"""``henji compare``: the command line. The work is in `bots.cli.comparison`."""

from __future__ import annotations

from pathlib import Path

import click

from bots.cli.common import example, open_settings, operator_name, parse_place
from core.errors import UsageError

_FILE = click.Path(path_type=Path)


@click.command(
    epilog=example(
        "henji compare rinna-ppo rinna-sft-v2 --prompts questions.jsonl --judge people",
        "henji compare new old --prompts q.jsonl --answers-b old.jsonl --judge http://host:8000/v1",
        "henji compare --out compare-new-old --judge rule:shorter",
        "henji compare --recount compare-new-old",
        "henji compare rinna-ppo rinna-sft-v2 --from-channel slack:T024:C123",
    )
)
@click.argument("a", required=False)
@click.argument("b", required=False)
@click.option("--prompts", type=_FILE, metavar="FILE", help="The prompts: JSONL.")
@click.option("--answers-a", type=_FILE, metavar="FILE", help="A's answers, if they exist already.")
@click.option("--answers-b", type=_FILE, metavar="FILE", help="B's answers, if they exist already.")
@click.option(
    "--judge",
    "judges",
    multiple=True,
    metavar="JUDGE",
    help="people, rule:NAME, reward:DIR or an OpenAI-compatible server's URL; may be repeated.",
)
@click.option("--judge-model", metavar="NAME", help="The judge's name on the server.")
@click.option(
    "--raters", type=click.IntRange(1, 100), default=1, show_default=True, help="How many people."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    help="Of the page for people; by default a free one.",
)
@click.option(
    "--from-channel",
    "place",
    metavar="PLACE",
    help="Count the votes of duels there: platform:space or platform:space:channel.",
)
@click.option("--seed", type=click.IntRange(0, 2**53), default=7, show_default=True)
@click.option(
    "--out", type=_FILE, metavar="DIR", help="The directory of the comparison: compare-A-B."
)
@click.option("--recount", type=_FILE, metavar="DIR", help="Count the verdicts in DIR again.")
def compare(
    a: str | None,
    b: str | None,
    prompts: Path | None,
    answers_a: Path | None,
    answers_b: Path | None,
    judges: tuple[str, ...],
    judge_model: str | None,
    raters: int,
    port: int,
    place: str | None,
    seed: int,
    out: Path | None,
    recount: Path | None,
) -> None:
    """Compare two models on the same prompts.

    Both models answer, judges judge, and a table is printed: win, tie, loss, and what it can show.
    A report, and everything that was said, are kept in a directory; an interrupted run goes on
    where it stopped. Without A and B, more judges judge the answers in the directory.
    """
    # only this process reads it: a bot has no use for the evaluation
    from bots.cli.comparison import (
        Candidate,
        CompareOptions,
        check_names,
        compare_votes,
        judge_again,
        run,
        show,
    )

    settings = open_settings(log_level="warning")
    if recount is not None:
        if a or prompts or judges or out:
            raise UsageError("--recount counts existing verdicts: it goes with no other option")
        show(settings, recount)
        return
    if place is not None:
        if prompts or answers_a or answers_b or judges:
            raise UsageError("--from-channel counts votes: it goes with --out and --seed alone")
        names = check_names(a, b)
        compare_votes(settings, names, parse_place(place), operator_name(), seed, out)
        return
    options = CompareOptions(
        judges=judges, judge_model=judge_model, raters=raters, port=port, seed=seed
    )
    if a is None:
        if out is None or prompts or answers_a or answers_b:
            raise UsageError("two models are compared: name A and B, or a comparison with --out")
        judge_again(settings, options, out)
        return
    if b is None:
        raise UsageError("two models are compared: name B, too")
    if prompts is None:
        raise UsageError("--prompts names no file with prompts")
    candidates = (Candidate(a, answers_a), Candidate(b, answers_b))
    run(settings, options, candidates, prompts, out)
