"""What `henji doctor` asks of the toy."""

from __future__ import annotations

from bots.platforms import OpenSecrets
from core.errors import OperatorError

from .settings import ToySettings


async def examine(settings: ToySettings, _: OpenSecrets) -> str:
    """What is well; OperatorError, with what to do, where something is wrong."""
    token = settings.toy_token
    if token is None or not token.get_secret_value().startswith("toy-"):
        raise OperatorError("HENJI_TOY_TOKEN is not one of the toy shop: buy one there")
    return f"the token is good on port {settings.toy_port}"
