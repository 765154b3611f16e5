"""Token ids in, token ids out: three engines behind one port."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from core.engine.echo import EchoEngine
from core.engine_types import LoadingStage
from core.errors import UsageError
from core.models.catalogue import ModelSpec
from core.ports import Engine
from core.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


async def open_engine(
    settings: Settings,
    spec: ModelSpec,
    load: Callable[[], PreTrainedModel],
    progress: Callable[[LoadingStage], None],
) -> Engine:
    """The engine that the settings name, ready for requests.

    `load` returns the model's weights on their device. It is called only for the torch engine, in
    that engine's thread, which should be the process's only one to compute with torch (see
    `TorchEngine`). `progress` gets the stages that begin. ModelError if the model, or the server,
    cannot serve.
    """
    if settings.engine == "echo":
        return EchoEngine(settings.echo_tokens_per_second)
    if settings.engine == "openai":
        return await open_remote_engine(settings, spec)
    from core.engine.torch import open_torch_engine

    return await open_torch_engine(settings, spec, load, progress)


async def open_remote_engine(settings: Settings, spec: ModelSpec) -> Engine:
    """The engine on a model server, after a successful probe; ModelError if it fails."""
    from core.engine.openai import OpenAIEngine, RemoteServer

    if not settings.openai_base_url:
        raise UsageError(
            "the engine openai needs HENJI_OPENAI_BASE_URL, such as http://host:8000/v1"
        )
    key = settings.openai_api_key
    if key and "@" in urlsplit(settings.openai_base_url).netloc:
        raise UsageError(
            "HENJI_OPENAI_BASE_URL has a password, and HENJI_OPENAI_API_KEY is set: unset one of "
            "them"
        )
    remote = RemoteServer(
        settings.openai_base_url,
        key=key.get_secret_value() if key else None,
        model=spec.adapter or settings.openai_model,
        slots=settings.places or 64,
        seeds=settings.openai_seeds,
        api=settings.openai_api,
        silence=settings.openai_timeout,
    )
    return await OpenAIEngine.open(remote)
