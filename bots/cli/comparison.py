"""The work of ``henji compare``: models answer, judges judge, and a record keeps all."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from bots import strings
from bots.cli.common import file_name, print_status
from bots.processes import SIGNALS, stop_on_signals
from bots.services import Stores, load_model, open_stores
from core.errors import OperatorError, TurnTooLong, UsageError, writing
from core.evaluation import people_page
from core.evaluation.comparison import Say, recount, table_lines
from core.evaluation.judges import (
    PROMPTS,
    RULES,
    JudgeServer,
    ServerJudge,
    judge_by_score,
    judge_by_server,
)
from core.evaluation.prompts import (
    Answer,
    Language,
    Prompt,
    Source,
    generate_answers,
    main_language,
    read_answers,
    read_prompts,
)
from core.evaluation.report import REPORT, report
from core.evaluation.run_record import JudgeConfig, Record, Setup, StoredVerdict
from core.evaluation.statistics import SIDES, Side, Verdict, Winner
from core.models.catalogue import EMBEDDED, ModelSpec, find_named, model_directory
from core.models.files import PULL_RECORD, read_json, weights_fingerprint
from core.models.manifest import digest_of_words, read_manifest, weights_digest
from core.observe.logs import printable
from core.queue_types import Place, StoredDuel
from core.settings import Settings
from core.types import Turn


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the two models, as the command line names it."""

    name: str
    answers: Path | None
    """A file with its answers; None: they are generated."""


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """The options of the command, beside the models."""

    judges: Sequence[str]
    judge_model: str | None
    raters: int
    port: int
    seed: int


def run(
    settings: Settings,
    options: CompareOptions,
    candidates: tuple[Candidate, Candidate],
    prompts: Path,
    out: Path | None,
) -> None:
    """Compare two models, or go on with an interrupted comparison."""
    asked, source = read_prompts(prompts)
    if candidates[0].name == candidates[1].name:
        raise UsageError(f"A and B are both {candidates[0].name}: there is nothing to compare")
    sides = [_Contestant.of(settings, one, asked) for one in candidates]
    _check_models_differ(settings, sides)
    setup = Setup(sides[0].details, sides[1].details, source, options.seed)
    directory = out or Path("-".join(["compare", *(file_name(one.name) for one in candidates)]))
    _run_interruptible(_compare(settings, options, setup, asked, sides, directory))
    show(settings, directory)


def judge_again(settings: Settings, options: CompareOptions, directory: Path) -> None:
    """Have the answers in a directory judged by more judges."""
    if not options.judges:
        raise UsageError("--judge is missing: it names who judges the answers")
    known = Record.read(directory)
    missing = [
        prompt.id
        for prompt in known.prompts
        for side in SIDES
        if (prompt.id, side) not in known.answers
    ]
    if missing:
        raise UsageError(
            f"{directory} lacks {len(missing)} answers: run the command that began it again"
        )
    _run_interruptible(_compare(settings, options, known.setup, known.prompts, (), directory))
    show(settings, directory)


def show(settings: Settings, directory: Path) -> None:
    """Count the verdicts in a directory, print the table, and write the report."""
    record = Record.read(directory)
    comparison = recount(record)
    for line in table_lines(_say_in("en"), comparison):
        click.echo(printable(line))
    language = main_language(record.prompts) if settings.locale == "auto" else settings.locale
    page = report(_say_in(language), language, comparison)
    with writing(directory / REPORT):
        (directory / REPORT).write_text(page, encoding="utf-8")
    print_status(f"the report: {directory / REPORT}")


def _say_in(language: Language) -> Say:
    def in_language(key: str, **values: Any) -> str:
        return strings.say(key, language, **values)

    return in_language


def _run_interruptible(work: Awaitable[None]) -> None:
    async def wait() -> None:
        await work

    try:
        asyncio.run(wait())
    except KeyboardInterrupt:
        print_status("interrupted: the same command goes on from here")
        raise


async def _compare(
    settings: Settings,
    options: CompareOptions,
    setup: Setup,
    prompts: Sequence[Prompt],
    sides: Sequence[_Contestant],
    directory: Path,
) -> None:
    async with AsyncExitStack() as stack:
        # a missing judge is reported before two models have answered for hours
        judges = [await _judge(settings, options, setup, name, stack) for name in options.judges]
        record = stack.enter_context(Record.open(directory, setup, prompts))
        for side, contestant in zip(SIDES, sides, strict=False):
            await _answer(settings, record, side, contestant)
        for judge in judges:
            record.begin_judge(judge.config)
            await judge.judge(record)


# -- the two models ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Contestant:
    """One side, ready to answer."""

    details: dict[str, Any]
    """Everything that is needed to reproduce the answers."""
    spec: ModelSpec | None
    answers: Path | None

    @classmethod
    def of(cls, settings: Settings, one: Candidate, prompts: Sequence[Prompt]) -> _Contestant:
        if one.answers is not None:
            _, source = read_answers(one.answers, "a", prompts)
            given = {"file": source.name, "sha256": source.sha256}
            return cls({"name": one.name, "answers": given}, None, one.answers)
        spec = find_named(one.name, settings)
        return cls(_details(settings, spec, prompts), spec, None)


def _details(settings: Settings, spec: ModelSpec, prompts: Sequence[Prompt]) -> dict[str, Any]:
    known = asdict(replace(spec, shape=None))
    del known["shape"]
    if spec.format != "echo":
        known |= _weights(settings, spec)
    if spec.adapter and settings.engine == "torch":
        known |= adapter_details(Path(spec.adapter).expanduser(), prompts)
    known["system_prompt"] = settings.system_prompt
    known["engine"] = _engine(settings, spec)
    return known


def _weights(settings: Settings, spec: ModelSpec) -> dict[str, Any]:
    """The identity of the weights, as far as this machine knows it."""
    directory = model_directory(spec, settings, print_status)
    known: dict[str, Any] = {}
    if (directory / PULL_RECORD).exists():
        known["revision"] = read_json(directory / PULL_RECORD).get("revision")
    if settings.engine == "torch" and spec.source != EMBEDDED:  # converted on each machine
        known["weights"] = weights_fingerprint(directory)
    return known


def adapter_details(directory: Path, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """The adapter's digest, and its rewards and training prompts, if it has a manifest."""
    known: dict[str, Any] = {"adapter_weights": weights_digest(directory)}
    if manifest := read_manifest(directory):
        words = set(manifest.words)
        known["rewards"] = list(manifest.rewards)
        known["trained_on"] = sum(
            digest_of_words(prompt.turns[-1].text) in words for prompt in prompts
        )
    return known


def _engine(settings: Settings, spec: ModelSpec) -> str:
    return "echo" if spec.format == "echo" else settings.engine


def _check_models_differ(settings: Settings, sides: Sequence[_Contestant]) -> None:
    one, two = ({**side.details, "name": ""} for side in sides)
    if one == two:
        names = " and ".join(side.details["name"] for side in sides)
        raise UsageError(f"{names} are the same model with the same sampling: nothing to compare")
    served = [side.spec.adapter for side in sides if side.spec and side.spec.format != "echo"]
    if settings.engine == "openai" and len(served) == 2 and served[0] == served[1]:
        raise UsageError(
            "the server tells the two models apart by the key adapter of [models.NAME], "
            "and both have the same: give answers with --answers-a and --answers-b, or adapters"
        )


async def _answer(settings: Settings, record: Record, side: Side, contestant: _Contestant) -> None:
    """Have one model answer the prompts that it has not answered yet."""
    missing = [prompt for prompt in record.prompts if (prompt.id, side) not in record.answers]
    if not missing:
        return
    if contestant.answers is not None:
        given, _ = read_answers(contestant.answers, side, missing)
        for answer in given:
            record.add_answer(answer)
    elif contestant.spec is not None:
        await _generate(settings, record, side, contestant.spec, missing)
        gc.collect()  # the other model may need the memory
        _empty_gpu_cache()


async def _generate(
    settings: Settings, record: Record, side: Side, spec: ModelSpec, missing: Sequence[Prompt]
) -> None:
    own = settings.model_copy(update={"engine": _engine(settings, spec)})
    model = await load_model(own, spec)
    progress = Progress(f"answers of {spec.name}")
    try:
        found = generate_answers(model.engine, model.dialogue, missing, side, record.setup.seed)
        async with aclosing(found) as answers:
            async for answer in answers:
                record.add_answer(answer)
                done = sum(known == side for _, known in record.answers)
                progress(done, len(record.prompts))
    finally:
        await model.engine.close()


def _empty_gpu_cache() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


# -- judges --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Judge:
    """A judge, ready to judge."""

    config: JudgeConfig
    judge: Callable[[Record], Awaitable[None]]


async def _judge(
    settings: Settings, options: CompareOptions, setup: Setup, name: str, stack: AsyncExitStack
) -> _Judge:
    """UsageError for an unknown judge, OperatorError for one that does not work."""
    kind, _, which = name.partition(":")
    match kind:
        case "people" if not which:
            return _people(options)
        case "rule":
            return _rule(which)
        case "reward" if which:
            return _reward(settings, setup, which)
        case "http" | "https":
            return await _server(settings, options, name, stack)
    raise UsageError(
        f"--judge {name} is no judge: people, rule:NAME, reward:DIR and a server's URL such as "
        "http://localhost:8000/v1 are"
    )


def _rule(name: str) -> _Judge:
    rule = RULES.get(name)
    if rule is None:
        raise UsageError(f"--judge rule:{name} is no rule: {', '.join(RULES)} are")
    config = JudgeConfig(f"rule:{name}", "rule", both_orders=False)

    async def judge(record: Record) -> None:
        judge_by_score(record, config, rule, Progress(f"pairs by {config.name}"))

    return _Judge(config, judge)


def _reward(settings: Settings, setup: Setup, which: str) -> _Judge:
    # torch is wanted for this judge alone
    from core.alignment.reward import Scorer, manifest_of

    directory = Path(which).expanduser()
    manifest_of(directory)
    digest = weights_digest(directory)
    for side in (setup.a, setup.b):
        if digest in side.get("rewards", ()):
            raise UsageError(
                f"{side['name']} was trained to please the reward model {directory}, "
                "so it cannot judge it"
            )
    name = f"reward:{directory.name} ({digest[:8]})"
    config = JudgeConfig(name, "reward", both_orders=False, details={"weights": digest})

    async def judge(record: Record) -> None:
        model = Scorer.open(directory, settings, print_status)

        def score(prompt: Prompt, text: str) -> float:
            try:
                return model.score(prompt.turns, text)
            except TurnTooLong:
                return float("nan")

        judge_by_score(record, config, score, Progress(f"pairs by {config.name}"))

    return _Judge(config, judge)


async def _server(
    settings: Settings, options: CompareOptions, url: str, stack: AsyncExitStack
) -> _Judge:
    key = settings.judge_api_key
    server = JudgeServer(
        url, key=key.get_secret_value() if key else None, model=options.judge_model
    )
    judge = await ServerJudge.open(server)
    stack.push_async_callback(judge.close)
    told = hashlib.sha256(repr(PROMPTS).encode()).hexdigest()[:16]
    config = JudgeConfig(
        f"server:{judge.model} ({server.shown})",
        "server",
        both_orders=True,
        details={"temperature": 0, "prompts": told},
    )

    async def judge_all(record: Record) -> None:
        await judge_by_server(record, config, judge, Progress(f"verdicts of {judge.model}"))

    return _Judge(config, judge_all)


def _people(options: CompareOptions) -> _Judge:
    raters = [str(number) for number in range(1, options.raters + 1)]

    async def judge(record: Record) -> None:
        progress = Progress("votes")
        page = people_page.PeoplePage(record, raters, _say_in, progress)
        stop = stop_on_signals()
        try:
            async with people_page.serving(page, options.port) as links:
                for rater, link in links.items():
                    print_status(f"person {rater}: {link}")
                print_status(
                    "Ctrl-C ends the page and prints the table; the same command goes on with it"
                )
                await stop.wait()
        finally:
            for number in SIGNALS:
                asyncio.get_running_loop().remove_signal_handler(number)

    return _Judge(people_page.CONFIG, judge)


# -- progress ------------------------------------------------------------------------------------


class Progress:
    """Shows progress on standard error: in place on a terminal, else at each tenth."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._tenth = -1

    def __call__(self, done: int, total: int) -> None:
        line = printable(f"{self._what}: {done} of {total}")
        if sys.stderr.isatty():
            click.echo(f"\r{line}\x1b[K", err=True, nl=done >= total)
        elif (tenth := 10 * done // max(1, total)) != self._tenth:
            self._tenth = tenth
            print_status(line)


# -- votes ---------------------------------------------------------------------------------------

FORGOTTEN = "(not remembered any more)"


@dataclass(frozen=True, slots=True)
class VotedDuel:
    """A duel of the two models, with its question, and its voters' pseudonyms."""

    duel: StoredDuel
    question: Turn
    raters: dict[str, str]


def compare_votes(
    settings: Settings, names: tuple[str, str], place: Place, by: str, seed: int, out: Path | None
) -> None:
    """Write the votes of a place as a comparison's directory, and print its table."""
    found = asyncio.run(_read(settings, names, place, by))
    told = hashlib.sha256(repr([(one.duel.job, one.raters) for one in found]).encode())
    told.update(repr([sorted(one.duel.votes.items()) for one in found]).encode())
    source = Source(f"duels in {place}", told.hexdigest())
    directory = out or Path("-".join(["votes", *map(file_name, names)]))
    setup = Setup({"name": names[0]}, {"name": names[1]}, source, seed)
    prompts = [Prompt(one.duel.job, (one.question,)) for one in found]
    with Record.open(directory, setup, prompts) as record:
        if not record.verdicts:
            _fill(record, names[0], place, found)
    show(settings, directory)


async def _read(
    settings: Settings, names: tuple[str, str], place: Place, by: str
) -> Sequence[VotedDuel]:
    """The duels of the two models that have votes. OperatorError where there are none."""
    async with open_stores(settings) as stores:
        await stores.audit.append(place, by, "read", "votes")
        every = [duel async for duel in stores.preferences.duels(place)]
        voted = [duel for duel in every if duel.votes and _models(duel) == sorted(names)]
        found = [await _with_question(stores, place, duel) for duel in voted]
    if found:
        return found
    pairs = sorted({" and ".join(_models(duel)) for duel in every if duel.votes})
    there = f"there are votes on {'; '.join(pairs)}" if pairs else "nobody has voted there"
    raise OperatorError(f"{place} has no votes on {names[0]} and {names[1]}: {there}")


def _models(duel: StoredDuel) -> list[str]:
    return sorted(answer.model for answer in duel.answers)


async def _with_question(stores: Stores, place: Place, duel: StoredDuel) -> VotedDuel:
    turns = [stored.turn for stored in await stores.history.turns(duel.thread)]
    known = next((turn.text for turn in turns if turn.id == duel.question), FORGOTTEN)
    raters = {person: (await stores.preferences.digest(place, person))[:8] for person in duel.votes}
    return VotedDuel(duel, Turn("1", "user", "", known, 0.0), raters)


def _fill(record: Record, first: str, place: Place, found: Sequence[VotedDuel]) -> None:
    config = JudgeConfig(f"people:{place}", "people", both_orders=False)
    record.begin_judge(config)
    for one in found:
        sides = _sides(one.duel, first)
        for side, answer in zip(sides, one.duel.answers, strict=True):
            record.add_answer(Answer(one.duel.job, side, answer.text))
        for person, rater in one.raters.items():
            winner = _winner(one.duel, person, sides)
            verdict = Verdict(one.duel.job, winner, sides[0], rater)
            record.add_verdict(StoredVerdict(config.name, verdict))


def _sides(duel: StoredDuel, first: str) -> tuple[Side, Side]:
    """The sides whose answers were shown as A and as B."""
    return ("a", "b") if duel.answers[0].model == first else ("b", "a")


def _winner(duel: StoredDuel, person: str, sides: tuple[Side, Side]) -> Winner:
    match duel.votes[person]:
        case "a":
            return sides[0]
        case "b":
            return sides[1]
        case "tie":
            return "tie"
    return "both bad"


def check_names(a: str | None, b: str | None) -> tuple[str, str]:
    """UsageError unless they are two different models."""
    if a is None or b is None:
        raise UsageError("two models are compared: name A and B")
    if a == b:
        raise UsageError(f"A and B are both {a}: two samples of one model have no table")
    return a, b
