"""Job queues of others, measured as `queue.py` measures ours: run in an environment of its own.

    python peers_queue.py LIBRARY REDIS_URL JOBS RATE SECONDS

prints one line of JSON: jobs a second to drain JOBS, and milliseconds from enqueueing to having
the result at RATE jobs a second. Each library with its defaults, but for 64 jobs at a time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from urllib.parse import urlsplit

AT_ONCE = 64
awaited = 0
reached = asyncio.Event()


def count():
    global awaited
    awaited -= 1
    if awaited == 0:
        reached.set()


async def timed_drain(worker, jobs):
    global awaited
    awaited, began = jobs, time.perf_counter()
    running = asyncio.ensure_future(worker)
    await reached.wait()
    return running, jobs / (time.perf_counter() - began)


async def latencies(ask, rate, seconds):
    async def one(at):
        await asyncio.sleep(at)
        began = time.perf_counter()
        await ask()
        return time.perf_counter() - began

    return await asyncio.gather(*(one(n / rate) for n in range(int(rate * seconds))))


def answer(drain, waits):
    return json.dumps({"drain": drain, "waits": sorted(waits)}).encode()


async def saq(url, jobs, rate, seconds):
    from saq import Queue, Worker

    async def work(ctx):
        count()

    queue = Queue.from_url(url)
    await queue.connect()
    for _ in range(jobs):
        await queue.enqueue("work")
    worker = Worker(queue, functions=[("work", work)], concurrency=AT_ONCE)
    worker.SIGNALS = []
    running, rate_drained = await timed_drain(worker.start(), jobs)
    waits = await latencies(lambda: queue.apply("work"), rate, seconds)
    running.cancel()
    return rate_drained, waits


async def streaq(url, jobs, rate, seconds):
    from streaq import Worker

    async def work():
        count()

    def open_queue():
        worker = Worker(redis_url=url, concurrency=AT_ONCE, handle_signals=False)
        return worker, worker.task(name="work")(work)

    worker, _ = open_queue()
    queue, task = open_queue()  # one cannot enqueue and run
    async with queue:
        for _ in range(jobs):
            await task.enqueue()
        _, rate_drained = await timed_drain(worker.run_async(), jobs)

        async def ask():
            asked = await task.enqueue()
            await asked.result()

        waits = await latencies(ask, rate, seconds)
        os.write(1, answer(rate_drained, waits))
        os._exit(0)  # its worker does not end when it is cancelled


async def arq(url, jobs, rate, seconds):
    from arq import Worker, create_pool, func
    from arq.connections import RedisSettings

    async def work(ctx):
        count()

    parts = urlsplit(url)
    settings = RedisSettings(host=parts.hostname, port=parts.port)
    pool = await create_pool(settings)
    for _ in range(jobs):
        await pool.enqueue_job("work")
    worker = Worker(
        [func(work, name="work")], redis_settings=settings, max_jobs=AT_ONCE, handle_signals=False
    )
    running, rate_drained = await timed_drain(worker.async_run(), jobs)

    async def ask():
        job = await pool.enqueue_job("work")
        await job.result()

    waits = await latencies(ask, rate, seconds)
    running.cancel()
    return rate_drained, waits


async def main(library, url, jobs, rate, seconds):
    logging.disable(logging.CRITICAL)
    drain, waits = await globals()[library](url, int(jobs), float(rate), float(seconds))
    os.write(1, answer(drain, waits))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
