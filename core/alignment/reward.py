"""Reward models: an adapter, and a head that scores a whole reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.alignment.datasets import Encoded
from core.alignment.losses import Batch
from core.dialogue import Dialogue
from core.errors import ModelError, in_brief
from core.models.catalogue import find_named, model_directory
from core.models.manifest import Manifest, read_manifest
from core.models.weights import load_weights
from core.settings import Settings
from core.types import Turn

HEAD = "head.safetensors"


class RewardHead(nn.Module):
    """One number from the hidden state at a reply's last token, its end."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.score = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.score.weight)
        # of the scores of the training data: a loss of differences does not determine them
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))

    def raw(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """(sequences,): scores as they are trained."""
        hidden = model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(hidden), device=hidden.device), batch.lengths - 1]
        return self.score(last.float()).squeeze(-1)  # type: ignore[no-any-return]

    def forward(self, model: PreTrainedModel, batch: Batch) -> Tensor:
        """(sequences,): scores with mean 0 and deviation 1 over the training data."""
        return (self.raw(model, batch) - self.mean) / self.deviation

    @torch.no_grad()
    def settle(self, model: PreTrainedModel, batches: Sequence[Batch]) -> None:
        """Compute mean and deviation."""
        scores = torch.cat([self.raw(model, batch) for batch in batches])
        self.mean.copy_(scores.mean())
        self.deviation.copy_(scores.std(correction=0).clamp(min=1e-6))

    def save(self, directory: Path) -> None:
        state = {name: value.detach().cpu() for name, value in self.state_dict().items()}
        save_file(state, directory / HEAD)

    @classmethod
    def load(cls, directory: Path, device: torch.device) -> Self:
        """The head in a folder; ModelError if it holds no reward model."""
        path = directory / HEAD
        if not path.is_file():
            raise ModelError(f"{directory} is no reward model: it has no {HEAD}")
        try:
            state = load_file(path)
            head = cls(state["score.weight"].shape[1])
            head.load_state_dict(state)
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{path} is no head of a reward model: {in_brief(error)}") from None
        return head.to(device).requires_grad_(False)


def hidden_size(model: PreTrainedModel) -> int:
    """Numbers of one hidden state."""
    return int(model.config.get_text_config().hidden_size)


def manifest_of(directory: Path) -> Manifest:
    """A reward model's manifest; ModelError if the folder holds none."""
    manifest = read_manifest(directory)
    if manifest is None or manifest.method != "reward":
        raise ModelError(f"{directory} is no reward model that `henji align --reward` made")
    return manifest


class Scorer:
    """A reward model as a judge of replies."""

    def __init__(self, model: PreTrainedModel, head: RewardHead, dialogue: Dialogue) -> None:
        self._model, self._head, self._dialogue = model, head, dialogue

    @classmethod
    def open(cls, directory: Path, settings: Settings, tell: Callable[[str], None]) -> Self:
        """The reward model in a folder, on its base, which must be on this machine."""
        manifest = manifest_of(directory)
        spec = replace(find_named(manifest.model, settings), adapter=str(directory))
        files = model_directory(spec, settings, tell)
        dialogue = Dialogue.load(spec, files, system_prompt=settings.system_prompt)
        if dialogue.fingerprint != manifest.fingerprint:
            raise ModelError(f"{directory} was trained with another tokenizer than {spec.name}'s")
        model = load_weights(
            spec, files, dtype=settings.dtype, device=settings.device, progress=tell
        )
        return cls(model, RewardHead.load(directory, model.device), dialogue)

    @torch.no_grad()
    def score(self, turns: Sequence[Turn], reply: str) -> float:
        """The score of a whole reply to the last of `turns`; 0 is the mean of the training data."""
        prompt = self._dialogue.prompt(turns, low_water=1.0).ids
        encoded = Encoded(tuple(prompt), self._dialogue.encode_reply(reply))
        return float(self._head(self._model, Batch.of([encoded], self._model.device)))
