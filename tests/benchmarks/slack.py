"""`henji bench slack`: how soon people see something when many ask at once.

The adapter is a process of its own, against a local Slack with the real rate limits and a core with
the echo engine. Everybody asks at the same moment. Measured is what Slack sees: the time from an
event to its acknowledgement, to the first status and to the finished reply, and the lost replies;
and for commands, whose questions take 4 s each to post, the time to the acknowledgement.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from redis.asyncio import Redis

from tests.benchmarks.server import plain_server
from tests.local_slack import LocalSlack
from tests.local_slack.deployment import SlackDeployment, slack_deployment

POST_SECONDS = 4.0
"""How long a post takes while commands are measured."""


@dataclass(frozen=True, slots=True)
class Load:
    threads: int
    channels: int
    pace: float
    """Characters a second of each reply; 0: at once."""
    length: int
    limit: float
    """Seconds after which it is given up."""


def main(argv: Sequence[str]) -> int:
    """0 where the limits of the adapter hold."""
    parser = argparse.ArgumentParser(prog="henji bench slack", description=__doc__)
    parser.add_argument("--threads", type=_numbers, default=(1, 50, 200))
    parser.add_argument("--commands", type=int, default=6)
    parser.add_argument("--channels", type=int, default=40)
    parser.add_argument("--pace", type=float, default=100.0)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--limit", type=float, default=600.0)
    given = parser.parse_args(argv)
    loads = [
        Load(threads, given.channels, given.pace, given.length, given.limit)
        for threads in given.threads
    ]
    logging.disable(logging.WARNING)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    return asyncio.run(_bench(loads, given.commands))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


async def _bench(loads: Sequence[Load], commands: int) -> int:
    """1 where a limit was missed, else 0."""
    missed = [await _on_a_fresh_server(partial(_measure, load=load), load.pace) for load in loads]
    missed.append(await _on_a_fresh_server(partial(_measure_commands, number=commands), 0.0))
    return max(missed)


async def _on_a_fresh_server(
    measure: Callable[[SlackDeployment], Awaitable[int]], pace: float
) -> int:
    with plain_server() as url:
        redis = Redis.from_url(url, decode_responses=True, socket_timeout=None)
        async with redis, slack_deployment(redis) as deployment:
            await deployment.core(pace=pace)
            await deployment.adapter_process(url)
            await _warm_up(deployment)
            return await measure(deployment)


async def _warm_up(deployment: SlackDeployment) -> None:
    """The first message of a process opens its connections."""
    ts = await deployment.slack.say("D0", "U1", "hello")
    await deployment.answered("D0", ts, "echo: hello")


async def _measure(deployment: SlackDeployment, load: Load) -> int:
    slack = deployment.slack
    first, began = len(slack.delivery.envelopes), time.monotonic()
    before = len(slack.api.calls)
    text = "、".join(str(n) for n in range(load.length))[: load.length]  # a loop would be cut
    asked = [await _ask(slack, n, load, text) for n in range(load.threads)]
    finished: dict[tuple[str, str], float] = {}

    def all_finished() -> bool:
        for place in asked:
            if place not in finished and slack.finished(*place, f"echo: {text}"):
                finished[place] = time.monotonic()
        return len(finished) == load.threads

    with contextlib.suppress(TimeoutError):
        await slack.until(all_finished, within=load.limit)
    lost = load.threads - len(finished)
    calls = slack.api.calls[before:]
    events = [
        e
        for e in slack.delivery.envelopes[first:]
        if e.payload["event"].get("user") != slack.bot_user
    ]
    mentions = [e for e in events if e.acknowledged]
    sent = {e.payload["event"]["ts"]: e.sent for e in mentions}
    signs = _first_signs(slack, sent)
    print(f"{load.threads} threads at once in {load.channels} channels")
    _line("acknowledged", [e.acknowledged - e.sent for e in mentions], "p99 under 0.5 s")
    _line("first sign", signs, "p95 under 1 s")
    _line("finished", [at - sent[place[1]] for place, at in finished.items()], "")
    counts = Counter(call.method for call in calls)
    print("  calls      ", ", ".join(f"{method} {n}" for method, n in counts.most_common()))
    refused = sum(call.error == "ratelimited" for call in calls)
    print(f"  429         {refused}, in {time.monotonic() - began:.1f} s")
    print(f"  lost        {lost}")
    slow = _at([e.acknowledged - e.sent for e in mentions], 0.99) > 0.5 or _at(signs, 0.95) > 1.0
    return int(slow or lost > 0 or refused > 0 or len(signs) < load.threads)


async def _measure_commands(deployment: SlackDeployment, number: int) -> int:
    """Questions by command in one channel, where a post takes 4 s."""
    slack = deployment.slack
    slack.api.slow["chat.postMessage"] = POST_SECONDS
    envelopes = [slack.command("U1", "C1", f"ask question {n}") for n in range(number)]
    async with asyncio.timeout(60):
        for envelope in envelopes:
            await envelope.done.wait()
    seconds = [e.acknowledged - e.sent for e in envelopes]

    def answered() -> int:
        messages = slack.workspace.messages.values()
        return len({m.shown for m in messages if m.shown.startswith("echo: question")})

    with contextlib.suppress(TimeoutError):
        await slack.until(lambda: answered() == number, within=60 + 10 * number)
    print(f"{number} questions by command, {POST_SECONDS:g} s a post")
    _line("acknowledged", seconds, "p99 under 0.5 s")
    print(f"  lost        {number - answered()}")
    return int(_at(seconds, 0.99) > 0.5 or answered() < number)


async def _ask(slack: LocalSlack, n: int, load: Load, text: str) -> tuple[str, str]:
    user, channel = f"UP{n}", f"C{n % load.channels}"
    slack.person(user, f"Person {n}")
    return channel, await slack.say(channel, user, f"<@{slack.bot_user}> {text}")


def _first_signs(slack: LocalSlack, sent: dict[str, float]) -> list[float]:
    """From each message to the first status in its thread; an answer takes the status away."""
    first: dict[str, float] = {}
    for _, thread, _, at in slack.workspace.statuses:
        if thread in sent:
            first.setdefault(thread, at - sent[thread])
    return list(first.values())


def _line(name: str, seconds: list[float], wanted: str) -> None:
    quantiles = (f"p{q} {_at(seconds, q / 100):.3f}" for q in (50, 95, 99))
    print(f"  {name:13}{' '.join(quantiles)} s of {len(seconds)}   {wanted}")


def _at(seconds: list[float], quantile: float) -> float:
    ordered = sorted(seconds) or [float("inf")]
    return ordered[min(int(len(ordered) * quantile), len(ordered) - 1)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
