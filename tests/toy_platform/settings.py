"""The settings of the toy: a token, and a port to listen on."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, SecretStr

from bots.platforms import PlatformSettings
from core.errors import UsageError


class ToySettings(PlatformSettings):
    """The toy's own settings beside those of every process."""

    title: ClassVar = "Toy"
    example: ClassVar = "HENJI_TOY_TOKEN=... henji toy"

    toy_token: SecretStr | None = None
    toy_port: int = Field(default=7070, ge=1, le=65535)

    def require(self) -> None:
        """UsageError where the token is missing."""
        if self.toy_token is None:
            raise UsageError("HENJI_TOY_TOKEN is not set: buy one at the toy shop")
