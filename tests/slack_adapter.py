"""A Slack adapter as a separate process, for tests that kill it.

python -m tests.slack_adapter REDIS_URL LEASE_SECONDS
"""

from __future__ import annotations

import asyncio
import logging
import sys

import structlog

from bots.platforms import load
from bots.processes import freeze_loaded
from bots.relay import RelaySettings
from bots.services import Stores
from bots.slack.bot import serve
from bots.slack.settings import SlackSettings
from storage.connect import connect
from storage.queue import RedisQueue
from storage.store import Store
from tests.open_access import EVERYBODY


async def main(redis_url: str, lease: float) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    connection = await connect(redis_url)
    store = Store(connection, lease=lease, delivery_lease=lease)
    settings = load(SlackSettings)
    memory = Stores.over(store, RedisQueue(store), settings.policy)
    process_settings = RelaySettings(
        "echo", "a process", lease=lease, take_over=0.1, access=EVERYBODY
    )
    freeze_loaded()  # as `henji slack` does
    await serve(settings, memory, process_settings, asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
