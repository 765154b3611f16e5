"""What a delivery must remember for Discord: where the reply goes, and by which right.

It travels in the delivery's `note`, so that another process can go on with it. The interaction's
token is a secret that can post: it is kept there alone, under a name that the store drops when the
delivery is closed, and never logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

_TOKEN = "secret_token"  # noqa: S105 -- a name, and `secret_` is the store's word for such


@dataclass(frozen=True, slots=True)
class Note:
    """One reply's address."""

    channel: str = ""
    """Where ordinary messages go: a channel, a thread or a direct channel."""
    reply_to: str = ""
    """The message that the first part is a reply to."""
    opens: str = ""
    """The name of the thread that the reply opens under `reply_to`."""
    app: str = ""
    token: str = field(default="", repr=False)
    """The interaction's token, good until `until` (seconds since the epoch)."""
    until: float = 0.0
    original: str = ""
    """The message that the pressed control stands under: ``@original`` to the token."""
    private: bool = False
    """Only the person who asked may see the reply."""
    stranger: bool = False
    """The bot is installed for the person alone, or may not write there: it can only speak
    through the token."""
    locale: str = ""

    def pack(self) -> Mapping[str, str]:
        """As strings, without what is at its default."""
        values = ((f.name, getattr(self, f.name), f.default) for f in fields(self))
        packed = {name: _text(value) for name, value, default in values if value != default}
        if token := packed.pop("token", ""):
            packed[_TOKEN] = token
        return packed

    @classmethod
    def unpack(cls, note: Mapping[str, str]) -> Note:
        """The note that `pack` made; names of other versions are passed over."""
        return cls(
            channel=note.get("channel", ""),
            reply_to=note.get("reply_to", ""),
            opens=note.get("opens", ""),
            app=note.get("app", ""),
            token=note.get(_TOKEN, ""),
            until=float(note.get("until", "0")),
            original=note.get("original", ""),
            private=note.get("private") == "1",
            stranger=note.get("stranger") == "1",
            locale=note.get("locale", ""),
        )

    def has_token(self, now: float, margin: float = 0.0) -> bool:
        """Whether the token will still serve in `margin` seconds."""
        return bool(self.token) and now + margin < self.until


def _text(value: object) -> str:
    return "1" if value is True else str(value)
