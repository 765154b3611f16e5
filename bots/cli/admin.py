"""`henji admin`: inspect and delete what the bot remembers, and set rules."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, astuple, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bots import strings
from bots.access import PERSONA, check_prompt, rule_text
from bots.cli.common import (
    check_platform,
    example,
    open_settings,
    operator_name,
    parse_place,
    print_json,
    print_status,
    print_text,
)
from bots.cli.settings import effective_rules, print_rows
from bots.cli.status import status
from bots.duels import kept_of
from bots.one_off_jobs import OneOffJobs
from bots.services import Stores, open_stores, process_name
from core.errors import OperatorError, UsageError
from core.models.manifest import adapters_with, digest_of_words
from core.observe.logs import printable
from core.place_rules import NO_RULES, UNSETTING, persona_from_text, rule_from_text, unsets
from core.queue_types import DailyTotal, DeadLetter, Opinion, Place, StoredTurn
from core.settings import Settings
from core.types import ThreadKey
from core.window import read_now
from storage.usage import UsedBy

if TYPE_CHECKING:
    from core.alignment.datasets import Form

Work = Callable[[Stores, Settings], Awaitable[None]]

of_user = click.option(
    "--user", "person", metavar="PERSON", required=True, help="The platform's id, as in U42."
)
in_place = click.option(
    "--in", "place", metavar="PLATFORM:SPACE", required=True, help="As in slack:T024."
)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@click.group(epilog=example("henji admin threads"))
def admin() -> None:
    """Inspect what the bot remembers, delete it, and set rules."""


@admin.command(epilog=example("henji admin threads --platform slack"))
@click.option("--platform", metavar="NAME", help="Only those of this platform.")
@as_json
def threads(platform: str | None, as_json: bool) -> None:
    """List the conversations, latest first."""
    if platform is not None:
        check_platform(platform)

    async def work(stores: Stores, _: Settings) -> None:
        async for found in stores.history.threads(platform):
            if as_json:
                print_json({**asdict(found), "thread": str(found.thread)})
            else:
                print_text(
                    f"{_time(found.last_at)}  {found.turns:5} messages  {found.tokens:6} tokens  "
                    f"{found.waiting:3} waiting  {found.thread}"
                )

    _with_stores(work)


@admin.command(epilog=example("henji admin show slack:T024:C123:1766.24"))
@click.argument("thread")
@as_json
def show(thread: str, as_json: bool) -> None:
    """Print a conversation, marked with what its model would read with the next question.

    + is read, - no longer fits, ? was not counted yet by a core.
    """
    key = _thread(thread)

    async def work(stores: Stores, _: Settings) -> None:
        turns = await stores.history.turns(key)
        if not turns:
            raise OperatorError(f"nothing is remembered of {key}")
        await stores.audit.append(_place_of(key), operator_name(), "read", str(key))
        read = read_now(turns, await stores.history.prompt_room(key))
        for stored, is_read in zip(turns, read, strict=True):
            _print_turn(key, stored, as_json, read=is_read)

    _with_stores(work)


@admin.command(
    epilog=example("henji admin reset slack:T024:C123:1766.24", "henji admin reset slack:T024")
)
@click.argument("where", metavar="THREAD|PLACE")
def reset(where: str) -> None:
    """Forget a thread, a channel (slack:T024:C123) or a space (slack:T024).

    Replies in progress there end with a sentence.
    """
    thread = _thread(where) if where.count(":") == 3 else None
    place = None if thread else parse_place(where)

    async def work(stores: Stores, _: Settings) -> None:
        if thread:
            number = await stores.history.reset(thread, operator_name())
            print_text(f"forgotten: {number} messages of {thread}")
        elif place:
            await stores.history.reset_place(place, operator_name())
            print_text(f"forgotten: everything of {where}")

    _with_stores(work)


@admin.command(epilog=example("henji admin forget --user U42 --in slack:T024"))
@of_user
@in_place
def forget(person: str, place: str) -> None:
    """Forget what a person wrote in a space, and the replies to it.

    An adapter that was trained on it cannot forget: those that hold any of it are named.
    """
    space = _space_of(person, place)

    async def work(stores: Stores, settings: Settings) -> None:
        export = stores.history.export(space, person)
        turns = [stored.turn async for _, stored in export]
        whom = await stores.preferences.digest(space, person)
        number = await stores.history.forget(space, person, operator_name())
        print_text(f"forgotten: {number} messages")
        words = {digest_of_words(turn.text) for turn in turns if turn.role == "user"}
        for adapter in adapters_with(_adapters(settings), words, whom):
            print_text(f"trained on some of them, and cannot forget: {adapter}")

    _with_stores(work)


def _space_of(person: str, place: str) -> Place:
    """The space of --in; UsageError where it, or the person, is of another form."""
    if not re.fullmatch(r"[^\s:@<>]+", person):
        raise UsageError(f"--user is {person!r}: the platform's id alone is expected, as in U42")
    space = parse_place(place)
    if space.channel:
        raise UsageError(f"--in is {place!r}: a whole space is expected, as in {space.whole_space}")
    return space


def _adapters(settings: Settings) -> list[Path]:
    """The adapters that are served here, and those in the folder where they are made."""
    served = (table.get("adapter") for table in settings.models.values())
    named = [Path(adapter).expanduser() for adapter in served if isinstance(adapter, str)]
    made = sorted((settings.data_dir / "adapters").glob("*/"))
    return list(dict.fromkeys(path.resolve() for path in [*named, *made] if path.is_dir()))


@admin.command(epilog=example("henji admin export --user U42 --in slack:T024 > U42.jsonl"))
@of_user
@in_place
def export(person: str, place: str) -> None:
    """Print what a person wrote in a space, and the replies to it, as JSON lines."""
    space = _space_of(person, place)

    async def work(stores: Stores, _: Settings) -> None:
        await stores.audit.append(space, operator_name(), "export", person)
        async for thread, stored in stores.history.export(space, person):
            _print_turn(thread, stored, as_json=True)
        for opinion in await stores.feedback.opinions(space):
            if opinion.by == person:
                _print_opinion(opinion, as_json=True)
        async for sample in stores.preferences.of_person(space, person):
            print_json(kept_of(sample, person))

    _with_stores(work)


@admin.command(epilog=example("henji admin audit slack:T024"))
@click.argument("where", metavar="PLACE")
@click.option("--most", default=100, show_default=True, type=click.IntRange(min=1))
@as_json
def audit(where: str, most: int, as_json: bool) -> None:
    """List the resets, exports, changes and reads in a place, newest first."""
    place = parse_place(where)

    async def work(stores: Stores, _: Settings) -> None:
        for entry in await stores.audit.entries(place, most):
            if as_json:
                print_json(asdict(entry))
            else:
                what = f"{entry.act:7}  {entry.place}  {entry.detail}".rstrip()
                print_text(f"{_time(entry.at)}  {entry.by}  {what}")
        await stores.audit.append(place, operator_name(), "read", "audit")

    _with_stores(work)


@admin.command(
    epilog=example("henji admin feedback slack:T024", "henji admin feedback slack:T024:C1")
)
@click.argument("where", metavar="PLACE")
@click.option("--most", default=100, show_default=True, type=click.IntRange(min=1))
@as_json
def feedback(where: str, most: int, as_json: bool) -> None:
    """List the ratings of replies in a place, with reasons, newest first."""
    place = parse_place(where)

    async def work(stores: Stores, _: Settings) -> None:
        await stores.audit.append(place, operator_name(), "read", "feedback")
        for opinion in await stores.feedback.opinions(place, most):
            _print_opinion(opinion, as_json)

    _with_stores(work)


@admin.command(
    epilog=example(
        "henji admin preferences slack:T024:C123 --as dpo --out pairs.jsonl",
        "henji admin preferences slack:T024 --as kto --out rated.jsonl",
    )
)
@click.argument("where", metavar="PLACE")
@click.option("--as", "form", type=click.Choice(["dpo", "kto"]), required=True, help="TRL's form.")
@click.option("--out", type=click.Path(path_type=Path), help="A file; else they are printed.")
@click.option("--weak", is_flag=True, help="Also from regenerated replies.")
@click.option("--held-out", type=click.FloatRange(0, 0.5), default=0.1, show_default=True)
def preferences(where: str, form: Form, out: Path | None, weak: bool, held_out: float) -> None:
    """Write people's preferences in a place as a data set for `henji align` and other tools.

    Pairs (dpo) come from won duels; rated replies (kto) also from duels with two bad answers and
    from thumbs. With
    --out, the share --held-out of the threads goes into a second file, FILE.test.jsonl.
    """
    # only this command needs the data sets of training
    from core.alignment.datasets import data_set

    place = parse_place(where)

    async def work(stores: Stores, _: Settings) -> None:
        samples = [sample async for sample in stores.preferences.samples(place)]
        people = {person for sample in samples for person in sample.authors}
        digests = {person: await stores.preferences.digest(place, person) for person in people}
        data = data_set(samples, form, digests, weak=weak, held_out=held_out if out else 0.0)
        await stores.audit.append(place, operator_name(), "export", f"preferences {len(data)}")
        if not len(data):
            raise OperatorError(f"nothing that gives {form} is kept of {place}: see `collect`")
        if out is None:
            for row in (*data.training, *data.test):
                print_json(row)
            return
        for path in data.write(out):
            print_text(f"{path}: {len(data.training if path == out else data.test)} examples")

    _with_stores(work)


@admin.command(
    epilog=example(
        "henji admin config slack:T024:C123",
        "henji admin config slack:T024 temperature 0.2",
        "henji admin config slack:T024:C123 --effective",
    )
)
@click.argument("where", metavar="PLACE")
@click.argument("words", metavar="[NAME [VALUE|unset]]", nargs=-1)
@click.option("--effective", is_flag=True, help="Every rule in force there, and its source.")
@as_json
def config(where: str, words: tuple[str, ...], effective: bool, as_json: bool) -> None:
    """Show or set the rules of a space or a channel. They apply at once."""
    place, (name, *value) = parse_place(where), words or ("",)
    if effective:
        _show_effective(place, as_json)
        return
    text = " ".join(value)
    if name == PERSONA:
        _with_stores(partial(_configure_persona, place, value))
        return
    chosen = (
        rule_from_text(name, text if text and not unsets(name, text) else None) if name else None
    )

    async def work(stores: Stores, settings: Settings) -> None:
        if name == "collect":
            settings.policy.check(place.platform, name, chosen)
        if text:
            await _check_prompt(stores, settings, place, name, chosen)
            await stores.rulebook.change(place, name, chosen, operator_name())
        if name == "model" and chosen and not await stores.queue.cores(chosen):
            print_status(strings.say("config_unserved", "en", model=chosen))
        for rule, found in (await stores.rulebook.set_here(place)).set_here().items():
            if name in ("", rule):
                print_text(f"{rule} = {rule_text(found)}")

    _with_stores(work)


async def _configure_persona(
    place: Place, words: Sequence[str], stores: Stores, settings: Settings
) -> None:
    """``persona NAME``, ``persona NAME RULE VALUE``, ``persona NAME unset``."""
    name, rule, *value = [*words, "", ""]
    text = " ".join(value).strip()
    known = (await stores.rulebook.set_here(place)).personas or {}
    if rule and (text or rule in UNSETTING):
        known = persona_from_text(name, rule, text, known) or {}
        if rule == "system_prompt":
            await _check_prompt(stores, settings, place, rule, known[name].system_prompt)
        await stores.rulebook.change(place, "personas", known or None, operator_name())
    for line, value_ in known[name].set_here().items() if name in known else ():
        print_text(f"{PERSONA} {name} {line} = {rule_text(value_)}")


async def _check_prompt(
    stores: Stores, settings: Settings, place: Place, name: str, value: object
) -> None:
    """UsageError for a system prompt that takes more than half of what the model reads."""
    one_off_jobs = OneOffJobs(stores, process_name())
    lane = (await stores.rulebook.rules(place.any_thread)).model or settings.job_lane
    count_tokens = partial(one_off_jobs.try_to_count_tokens, place.any_thread, "operator", lane)
    if warning := await check_prompt(name, value, count_tokens, "en"):
        print_status(warning)


def _show_effective(place: Place, as_json: bool) -> None:
    async def work(stores: Stores, settings: Settings) -> None:
        space = await stores.rulebook.set_here(replace(place, channel=None))
        channel = await stores.rulebook.set_here(place) if place.channel else NO_RULES
        there = (place.any_thread, space, channel)
        layers, held = settings.policy.layers(*there), settings.policy.rules(*there)
        print_rows(list(effective_rules(settings, layers, held)), as_json)

    _with_stores(work)


@admin.command(
    epilog=example("henji admin usage --by channel", "henji admin usage --days 7 --csv > usage.csv")
)
@click.option("--by", type=click.Choice(["person", "channel", "model"]), default="person")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 30))
@click.option("--csv", "as_csv", is_flag=True, help="Every day in a line, for a spreadsheet.")
def usage(by: UsedBy, days: int, as_csv: bool) -> None:
    """List the messages and tokens of the newest days, by person, channel or model.

    They are the counts of the quotas. A day is one of the time zone in henji.toml.
    """

    async def work(stores: Stores, settings: Settings) -> None:
        totals = await stores.usage.totals(by, days, settings.policy.offset_ms)
        _print_usage_csv(by, totals) if as_csv else _print_usage(by, totals)

    _with_stores(work)


@admin.command(epilog=example("henji admin dead"))
@click.option("--most", default=100, show_default=True, type=click.IntRange(min=1))
@as_json
def dead(most: int, as_json: bool) -> None:
    """List the failed replies, newest first."""

    async def work(stores: Stores, _: Settings) -> None:
        for letter in await stores.queue.dead(most):
            if as_json:
                print_json(asdict(letter))
            else:
                print_text(
                    f"{letter.id}  {letter.code} after {letter.attempts} attempts  "
                    f"{letter.thread}  {letter.message}"
                )

    _with_stores(work)


@admin.command(epilog=example("henji admin requeue 0/1766000000000-0"))
@click.argument("letter", metavar="ID")
def requeue(letter: str) -> None:
    """Queue a failed reply again. `henji admin dead` lists the ids."""

    async def work(stores: Stores, settings: Settings) -> None:
        found = await _letter(stores, letter)
        receipt = await stores.queue.requeue(found, settings.job_lane)
        if receipt.outcome != "queued":
            raise OperatorError(f"{letter} was not taken: {receipt.code or receipt.outcome}")
        await stores.audit.append(_place_of(found.thread), operator_name(), "requeue", found.thread)
        print_text(f"queued again: {receipt.job}")

    _with_stores(work)


async def _letter(stores: Stores, id_: str) -> DeadLetter:
    for letter in await stores.queue.dead(10_000):
        if letter.id == id_:
            return letter
    raise OperatorError(f"there is no dead letter {id_}: `henji admin dead` lists them")


admin.add_command(status)


# -- shared --------------------------------------------------------------------------------------


def _with_stores(work: Work) -> None:
    settings = open_settings(log_level="warning")

    async def run() -> None:
        async with open_stores(settings) as stores:
            await work(stores, settings)

    asyncio.run(run())


def _thread(text: str) -> ThreadKey:
    try:
        return ThreadKey.parse(text)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _place_of(thread: ThreadKey | str) -> Place:
    key = ThreadKey.parse(thread) if isinstance(thread, str) else thread
    return Place(key.platform, key.space, key.channel)


MARKS = {True: "+", False: "-", None: "?"}


def _print_turn(thread: ThreadKey, stored: StoredTurn, as_json: bool, **read: bool | None) -> None:
    turn = stored.turn
    if as_json:
        print_json({"thread": str(thread), **asdict(turn), "tokens": stored.tokens, **read})
    else:
        marks = "".join(f"{MARKS[known]} " for known in read.values())
        print_text(f"{marks}{_time(turn.at)}  {turn.name or turn.author}: {turn.text}")


def _print_opinion(opinion: Opinion, as_json: bool) -> None:
    if as_json:
        print_json(asdict(opinion) | {"thread": str(opinion.thread)})
        return
    sampling = asdict(opinion.sampling) if opinion.sampling else {}
    made = " ".join([opinion.model, *(f"{name}={value:g}" for name, value in sampling.items())])
    head = f"{_time(opinion.at)}  {opinion.by}  {opinion.rating:4}  {opinion.job}  {made}"
    print_text(f"{head}  {opinion.reason}".rstrip())


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _print_usage(by: UsedBy, totals: Sequence[DailyTotal]) -> None:
    """The sums over all days, those with the most tokens first."""
    sums: dict[str, list[int]] = {}
    for total in totals:
        for who in (total.who, "all"):
            held = sums.setdefault(who, [0, 0])
            held[0], held[1] = held[0] + total.messages, held[1] + total.tokens
    if not totals:
        print_text("nothing was used in these days")
        return
    print_text(f"{'messages':>10}  {'tokens':>14}  {by}")
    ordered = sorted(sums.items(), key=lambda entry: (entry[0] == "all", -entry[1][1], entry[0]))
    for who, (messages, tokens) in ordered:
        print_text(f"{messages:10,}  {tokens:14,}  {who}")


def _print_usage_csv(by: UsedBy, totals: Sequence[DailyTotal]) -> None:
    rows = [("day", by, "messages", "tokens"), *map(astuple, totals)]
    for row in rows:
        written = io.StringIO()
        csv.writer(written, lineterminator="").writerow(row)
        click.echo(printable(written.getvalue()))
