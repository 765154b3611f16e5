"""A real Chromium without a window, driven over its debugging protocol: Debian's package."""

from __future__ import annotations

import asyncio
import base64
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest

from tests.waiting import until

BINARY = shutil.which("chromium") or shutil.which("chromium-browser")

needs_chromium = pytest.mark.skipif(
    BINARY is None, reason="there is no Chromium on this machine: apt-get install chromium"
)

_KEYS = {"1": 49, "2": 50, "3": 51, "4": 52, "u": 85, "Tab": 9, "Enter": 13}
"""The Windows codes that the protocol wants beside a key's name."""


class Browser:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)
        self.requests: list[str] = []
        """The addresses that pages asked for."""
        self.complaints: list[str] = []
        """What the console said of them."""

    async def send(self, method: str, **params: Any) -> Any:
        """One command; its result."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json(timeout=30)
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]

    def _note(self, message: Any) -> None:
        match message:
            case {"method": "Network.requestWillBeSent", "params": {"request": {"url": url}}}:
                self.requests.append(url)
            case {"method": "Log.entryAdded", "params": {"entry": {"text": text}}}:
                self.complaints.append(text)
            case {"method": "Runtime.exceptionThrown", "params": params}:
                self.complaints.append(str(params))

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        told = await self.send("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def open(self, url: str) -> None:
        await self.send("Page.navigate", url=url)
        await self.see("document.readyState === 'complete'")

    async def see(self, condition: str) -> None:
        """Wait until a JavaScript condition holds."""

        async def holds() -> bool:
            with suppress(AssertionError):  # between two pages there is nothing to ask
                return bool(await self.run(condition))
            return False

        await until(holds)

    async def press(self, key: str) -> None:
        """A key, down and up."""
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        known = {"key": key, "windowsVirtualKeyCode": _KEYS[key]}
        await self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **known)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **known)

    async def look(self, width: int, height: int, scheme: Literal["light", "dark"]) -> None:
        """Be a screen of this size, in light or dark; a narrow one is a phone's."""
        phone = width < 600
        await self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        await self.send("Emulation.setTouchEmulationEnabled", enabled=phone)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await self.send("Emulation.setEmulatedMedia", features=[feature])

    async def picture(self, *, whole: bool = True) -> bytes:
        """What the page looks like, as a PNG: all of it, or what is in view."""
        taken = await self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(taken["data"])


async def _port(file: Path) -> str:
    """The port that a browser writes down once it listens."""

    found = ""

    async def written() -> bool:
        nonlocal found
        with suppress(OSError):
            found = await asyncio.to_thread(file.read_text)
        return "\n" in found

    await until(written, 60)
    return found.split()[0]


@asynccontextmanager
async def browsing(language: str = "en") -> AsyncIterator[Browser]:
    """A tab of a browser of its own, which asks for pages in `language`."""
    assert BINARY is not None
    with tempfile.TemporaryDirectory(
        prefix="henji-chromium-", ignore_cleanup_errors=True
    ) as profile:
        process = await asyncio.create_subprocess_exec(
            BINARY,
            "--headless=new",
            "--no-sandbox",  # a container's root may have none
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            f"--accept-lang={language}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            port = await _port(Path(profile) / "DevToolsActivePort")
            async with aiohttp.ClientSession() as http:
                async with http.get(f"http://127.0.0.1:{port}/json/list") as response:
                    tabs = await response.json()
                address = next(tab for tab in tabs if tab["type"] == "page")["webSocketDebuggerUrl"]
                async with http.ws_connect(address, max_msg_size=0) as socket:
                    browser = Browser(socket)
                    for domain in ("Page", "Network", "Log", "Runtime"):
                        await browser.send(f"{domain}.enable")
                    yield browser
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
