"""Every metric of the project, in one registry.

Call `METRIC.labels(...).inc()`, or one of the functions below for several metrics at once. No label
holds a person, a channel or a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from core.engine_types import EngineStats
from core.queue_types import Load, Receipt, ServerState
from core.types import Usage

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_WAITS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_CALLS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SPEEDS = (1, 2, 5, 10, 20, 40, 80, 160, 320)


def _counter(name: str, about: str, *labels: str) -> Counter:
    return Counter(f"henji_{name}", about, labels, registry=REGISTRY)


def _gauge(name: str, about: str, *labels: str) -> Gauge:
    return Gauge(f"henji_{name}", about, labels, registry=REGISTRY)


def _histogram(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(f"henji_{name}", about, labels, buckets=buckets, registry=REGISTRY)


# -- every process ------------------------------------------------------------------------------

BUILD = _gauge("build_info", "Always 1; its label is the version that runs", "version")
REDIS_UP = _gauge("redis_up", "1 while Redis answers this process")
REDIS_MEMORY = _gauge(
    "redis_memory_bytes", "Redis's memory in use, and its limit; 0: no limit", "kind"
)
REDIS_EVICTED = _gauge("redis_evicted_keys", "Keys that Redis evicted since it started")
REDIS_FILE_OK = _gauge("redis_file_ok", "1 while Redis can write its files")
JOBS_WAITING = _gauge("jobs_waiting", "Threads of a lane that are ready to be answered", "lane")
REPLIES_OWED = _gauge("replies_owed", "Replies owed in all lanes: waiting, or being written")
CORES = _gauge("cores", "Cores that serve a lane", "lane")
DEAD_LETTERS = _gauge("dead_letters", "Jobs that were given up, and lie there to be looked at")

# -- a core -------------------------------------------------------------------------------------

JOBS_RUNNING = _gauge("jobs_running", "Jobs that this core holds", "lane")
JOBS = _counter("jobs", "Attempts at jobs that this core ended, by how", "lane", "outcome")
JOB_WAIT = _histogram(
    "job_wait_seconds", "From a message's arrival to the first claim of its job", _WAITS, "lane"
)
FIRST_TOKEN = _histogram(
    "time_to_first_token_seconds", "From a claim to its first token", _WAITS, "lane"
)
JOB_SECONDS = _histogram("job_seconds", "From a claim to its commit", _WAITS, "lane")
REPLY_SPEED = _histogram(
    "reply_tokens_per_second", "Tokens a second of one reply, from its first on", _SPEEDS, "lane"
)
PROMPT_TOKENS = _counter("prompt_tokens", "Tokens of the prompts that were answered", "lane")
CACHED_TOKENS = _counter(
    "cached_tokens", "Tokens of prompts that a kept prefix saved from being computed", "lane"
)
REPLY_TOKENS = _counter("reply_tokens", "Tokens of the replies that were committed", "lane")
TAKEOVERS = _counter("takeovers", "Leases of cores that this process found ended")
FENCED = _counter("fenced", "Steps that were refused, for the job was another's by then", "step")

ENGINE_RUNNING = _gauge("engine_running", "Requests in the engine's batch")
ENGINE_WAITING = _gauge("engine_waiting", "Requests that wait inside the engine")
ENGINE_PLACES = _gauge("engine_places", "Requests that the engine would take now")
ENGINE_SPEED = _gauge("engine_tokens_per_second", "Tokens a second of all replies, of late")
CACHE_USED = _gauge("cache_used_ratio", "The part of the key-value cache in use, 0 to 1")
PREFIX_HITS = _gauge("prefix_hit_ratio", "The part of prompt tokens found in the cache so far")
GPU_MEMORY = _gauge("gpu_memory_bytes", "The GPU's memory in use, and in all", "kind")

# -- a bot --------------------------------------------------------------------------------------

EVENTS = _counter("events", "Messages, edits and presses taken in, by outcome", "platform",
                  "outcome")  # fmt: skip
REFUSALS = _counter("refusals", "Messages told at once that no reply comes", "platform", "code")
DELIVERIES = _counter("deliveries", "Replies brought out, by how they ended", "platform", "end")
DELIVERIES_OPEN = _gauge("deliveries_open", "Replies that this process brings out", "platform")
CALLS = _counter("platform_calls", "Calls of the platform", "platform", "call", "outcome")
CALL_SECONDS = _histogram(
    "platform_call_seconds", "How long calls of the platform take", _CALLS, "platform", "call"
)
RATE_LIMITED = _counter("rate_limited", "Calls answered by 429", "platform", "method")
STREAM_FALLBACKS = _counter(
    "stream_fallbacks", "Replies that went on as edits, for streaming ended", "platform", "reason"
)
GATEWAY_UP = _gauge(
    "gateway_up", "1 while a connection to the platform is up: a socket or a shard", "platform",
    "shard",
)  # fmt: skip
GATEWAY_EVENTS = _counter(
    "gateway_events", "What became of connections to the platform", "platform", "event"
)


# -- what is more than one number ---------------------------------------------------------------


class _LaneMetrics:
    """The metrics of each reply. `labels` takes a lock, so it is called once a lane, here."""

    def __init__(self, lane: str) -> None:
        self.prompt_tokens = PROMPT_TOKENS.labels(lane)
        self.cached_tokens = CACHED_TOKENS.labels(lane)
        self.reply_tokens = REPLY_TOKENS.labels(lane)
        self.job_seconds = JOB_SECONDS.labels(lane)
        self.first_token = FIRST_TOKEN.labels(lane)
        self.reply_speed = REPLY_SPEED.labels(lane)


_lane_metrics = lru_cache(_LaneMetrics)


def count_reply(lane: str, usage: Usage, seconds: float, first_token: float | None) -> None:
    """A reply was committed, `seconds` after its claim and `first_token` seconds after it."""
    of = _lane_metrics(lane)
    of.prompt_tokens.inc(usage.prompt_tokens)
    of.cached_tokens.inc(usage.cached_tokens)
    of.reply_tokens.inc(usage.reply_tokens)
    of.job_seconds.observe(seconds)
    if first_token is None:
        return
    of.first_token.observe(first_token)
    if usage.reply_tokens > 1 and seconds > first_token:
        of.reply_speed.observe((usage.reply_tokens - 1) / (seconds - first_token))


def replies_so_far(lane: str) -> int:
    """The replies of a lane that this process has committed."""
    return int(REGISTRY.get_sample_value("henji_job_seconds_count", {"lane": lane}) or 0)


def set_engine(stats: EngineStats) -> None:
    """Set the metrics of the engine."""
    ENGINE_RUNNING.set(stats.running)
    ENGINE_WAITING.set(stats.waiting)
    ENGINE_PLACES.set(stats.slots)
    ENGINE_SPEED.set(stats.tokens_per_second)
    CACHE_USED.set(stats.cache_used)
    PREFIX_HITS.set(stats.prefix_hit_rate)


def set_gpu_memory(used: int, total: int) -> None:
    """Set the bytes of the GPU in use by all processes, and its size."""
    GPU_MEMORY.labels("used").set(used)
    GPU_MEMORY.labels("total").set(total)


def set_redis(state: ServerState) -> None:
    """Set the state of the Redis server."""
    REDIS_MEMORY.labels("used").set(state.memory)
    REDIS_MEMORY.labels("limit").set(state.limit)
    REDIS_EVICTED.set(state.evicted)
    REDIS_FILE_OK.set(state.file_ok)


def set_load(lane: str, load: Load) -> None:
    """Set the load of a lane."""
    JOBS_WAITING.labels(lane).set(load.waiting)
    REPLIES_OWED.set(load.outstanding)
    CORES.labels(lane).set(load.cores)
    DEAD_LETTERS.set(load.dead)


def count_receipt(platform: str, receipt: Receipt) -> None:
    """Count the outcome of a message, an edit or a press."""
    EVENTS.labels(platform, receipt.outcome).inc()
    if receipt.outcome == "refused":
        REFUSALS.labels(platform, receipt.code).inc()


def count_gateway_event(platform: str, event: str) -> None:
    """Count a connection's event, such as ``ready``, ``resumed``, ``disconnected``."""
    GATEWAY_EVENTS.labels(platform, event).inc()


@contextmanager
def gateway_connection(
    platform: str, is_up: Callable[[], bool], shard: str = "0"
) -> Iterator[None]:
    """Report whether a connection is up, while inside."""
    GATEWAY_UP.labels(platform, shard).set_function(is_up)
    try:
        yield
    finally:
        with suppress(KeyError):
            GATEWAY_UP.remove(platform, shard)


def gateways_down() -> list[str]:
    """The platforms whose connections in this process are all down."""
    standing: dict[str, float] = {}
    for sample in next(iter(GATEWAY_UP.collect())).samples:
        platform = sample.labels["platform"]
        standing[platform] = standing.get(platform, 0) + sample.value
    return [platform for platform, number in standing.items() if not number]


def names() -> frozenset[str]:
    """Every name of a series, such as ``henji_job_wait_seconds_bucket``."""
    found = set()
    for metric in REGISTRY.collect():
        suffixes = {
            "counter": ("_total",),
            "histogram": ("_bucket", "_sum", "_count"),
        }.get(metric.type, ("",))
        found |= {metric.name + suffix for suffix in suffixes}
    return frozenset(found)


def render() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
