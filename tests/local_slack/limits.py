"""Slack's rate limits: per method, app and workspace, and for posts per channel.

Slack publishes "at least so many a minute"; here exactly so many calls pass in any minute. No
figure is published for assistant.threads.setStatus; 600 a minute is a guess. Bursts of posts are
tolerated by Slack to an extent that it does not publish: here two in one second, one a second on
average.
"""

from __future__ import annotations

from collections import defaultdict, deque

# Where reports conflict, the stricter one is held.
TEXT_BYTES = 4_000
"""Of `text` in one call. chat.update documents 4,000 characters; measured are UTF-8 bytes (github
openclaw/openclaw pull 115027, 2026-07). Posts: github seratch/ChatGPT-in-Slack issue 102, 2024."""
STREAM_BYTES = 10_600
"""Of one streamed message: 10,571 were accepted and 10,821 refused (github openclaw/openclaw pull
143882, 2026)."""
MARKDOWN_CHARACTERS = 12_000
"""Of `markdown_text` in a call, and of all Markdown blocks (docs.slack.dev, 2026)."""
BLOCKS_CHARACTERS = 11_300
"""Of all texts in the blocks of a message: 11,341 were refused (github slackapi/bolt-js issue 2867,
2026-04), though issue 2509 (2025-04) measured about 13,200 for Markdown blocks alone."""
TIERS = {1: 1, 2: 20, 3: 50, 4: 100}
STATUS_PER_MINUTE = 600
READING = frozenset({"conversations.history", "conversations.replies"})
DISTRIBUTED_PER_MINUTE = 1
DISTRIBUTED_PAGE = 15
"""For reading, of apps distributed outside the Marketplace: docs.slack.dev, 2025-05-29."""
POST_BURST = 2


class Limits:
    """Counts calls and says how long to wait. `minute` is shorter than 60 in tests' time."""

    def __init__(self, minute: float = 60.0) -> None:
        self.minute = minute
        self.enforced = True
        self.distributed = False
        """The app is commercially distributed outside the Marketplace."""
        self._windows: dict[tuple[str, str], deque[float]] = defaultdict(deque)
        self._posts: dict[tuple[str, str], tuple[float, float]] = {}
        self._forced: dict[str, int] = {}

    def refuse_next(self, method: str, times: int = 1) -> None:
        """Answer the next calls of `method` with 429, whatever the count."""
        self._forced[method] = times

    def wait_for(self, method: str, tier: int, team: str, channel: str, now: float) -> float:
        """0 where the call may pass (and counts), else the seconds of Retry-After."""
        if self._forced.get(method, 0) > 0:
            self._forced[method] -= 1
            return self.minute / 60
        if not self.enforced:
            return 0.0
        if method == "chat.postMessage":
            return self._post(team, channel, now)
        most = TIERS.get(tier, tier)
        if self.distributed and method in READING:
            most = DISTRIBUTED_PER_MINUTE
        return self._window(method, most, team, now)

    def _window(self, method: str, most: int, team: str, now: float) -> float:
        window = self._windows[method, team]
        while window and window[0] <= now - self.minute:
            window.popleft()
        if len(window) >= most:
            return window[0] + self.minute - now
        window.append(now)
        return 0.0

    def _post(self, team: str, channel: str, now: float) -> float:
        second = self.minute / 60
        tokens, at = self._posts.get((team, channel), (float(POST_BURST), now))
        tokens = min(POST_BURST, tokens + (now - at) / second)
        self._posts[team, channel] = (tokens - 1 if tokens >= 1 else tokens, now)
        return 0.0 if tokens >= 1 else (1 - tokens) * second
