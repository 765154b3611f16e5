"""An adapter in training: a frozen model with low-rank changes on its layers, by peft."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, cast

import peft
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.errors import ModelError
from core.models.manifest import ADAPTER_WEIGHTS
from core.models.weights import Adapter, merged, read_halves

_TRAINED, _START = "trained", "start"


class Trainee:
    """A model, the adapter that is trained on it, and adapters that are only computed with.

    One copy of the weights is policy, reference and reward model: they differ in their adapters.
    """

    def __init__(self, model: PreTrainedModel, config: peft.LoraConfig, start: Adapter | None):
        self.model = model
        """With all adapters' layers; it computes with the one in use."""
        with warnings.catch_warnings():  # peft uses deprecated names of transformers
            warnings.simplefilter("ignore", FutureWarning)
            self._wrapped = peft.PeftModel(model, config, adapter_name=_TRAINED)
        self._config = config
        self._starts = start is not None
        if start is not None:
            self._load(_TRAINED, read_halves(start))
            self.attach(_START, start)

    @classmethod
    def begin(
        cls,
        model: PreTrainedModel,
        *,
        rank: int,
        alpha: float,
        layers: int | None,
        seed: int,
        start: Adapter | None = None,
    ) -> Trainee:
        """A new adapter, without effect yet, on the last `layers` layers, or on all.

        With `start`, a copy of that adapter, which is also the reference.
        """
        torch.manual_seed(seed)
        config = _config_of(start) if start else _config_for(model, rank, alpha, layers)
        config.inference_mode = False
        return cls(model, config, start)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained parameters, by name."""
        return {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if f".{_TRAINED}." in name
        }

    def attach(self, name: str, adapter: Adapter) -> None:
        """Load another adapter of the same base."""
        self._wrapped.add_adapter(name, _config_of(adapter))
        self._load(name, read_halves(adapter))
        self._use(_TRAINED)

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Compute with an attached adapter."""
        self._use(name)
        try:
            yield
        finally:
            self._use(_TRAINED)

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """Compute as the model did before training."""
        context = self.using(_START) if self._starts else self._wrapped.disable_adapter()
        with torch.no_grad(), context:
            yield

    def _use(self, name: str) -> None:
        self._wrapped.set_adapter(name)

    def save_memory(self) -> None:
        """Recompute hidden states in the backward pass instead of keeping those of all layers."""
        model: Any = self.model
        model.activation_checkpointing_enable()
        model.enable_input_require_grads()
        for layer in self.model.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        self.model.train()

    # -- in and out -------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """The adapter's factors, in peft's names."""
        found = peft.get_peft_model_state_dict(self._wrapped, adapter_name=_TRAINED)
        return {name: value.detach().float().cpu().contiguous() for name, value in found.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore a `state`."""
        peft.set_peft_model_state_dict(self._wrapped, dict(state), adapter_name=_TRAINED)

    def _load(self, name: str, halves: Mapping[str, Tensor]) -> None:
        state = {f"base_model.model.{key}": value for key, value in halves.items()}
        told: Any = peft.set_peft_model_state_dict(self._wrapped, state, adapter_name=name)
        if told.unexpected_keys:
            raise ModelError(f"the adapter changes {told.unexpected_keys[0]}, which is not there")

    def save(self, directory: Path, base: str, revision: str | None) -> None:
        """Write the adapter as peft does, as one of the model `base`."""
        saved = copy.copy(self._config)
        saved.base_model_name_or_path = base
        saved.revision = revision
        saved.inference_mode = True
        saved.save_pretrained(str(directory))
        save_file(self.state(), directory / ADAPTER_WEIGHTS)

    def served(self) -> PreTrainedModel:
        """A separate model with the adapter merged, as when it is loaded later.

        It shares all weights that the adapter does not change.
        """
        weights = chain(self.model.parameters(), self.model.buffers())
        model: PreTrainedModel = copy.deepcopy(
            self.model, {id(weight): weight for weight in weights}
        )
        for name, layer in list(model.named_modules()):
            if hasattr(layer, "base_layer"):
                model.set_submodule(name, _plain(layer))
        model.train(False)
        return model


def _plain(layer: Any) -> nn.Linear:
    """A layer with its adapter merged."""
    base, scale = layer.base_layer, layer.scaling.get(_TRAINED, 0.0)
    linear = nn.Linear(base.in_features, base.out_features, base.bias is not None, device="meta")
    weight = base.weight
    if _TRAINED in layer.lora_A:
        down, up = layer.lora_A[_TRAINED].weight, layer.lora_B[_TRAINED].weight
        weight = merged(base.weight, down.detach(), up.detach(), scale)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    linear.bias = base.bias
    return linear


def _config_for(
    model: PreTrainedModel, rank: int, alpha: float, layers: int | None
) -> peft.LoraConfig:
    count = int(model.config.get_text_config().num_hidden_layers)
    kept = min(layers or count, count)
    head = cast("Any", model).get_output_embeddings()
    names = {
        name.rpartition(".")[2]
        for name, layer in model.named_modules()
        if type(layer) is nn.Linear and layer is not head
    }
    if not names:
        raise ModelError("the model has no linear layers that an adapter could change")
    return peft.LoraConfig(
        r=rank,
        lora_alpha=cast("int", alpha),
        target_modules=sorted(names),
        layers_to_transform=None if kept == count else list(range(count - kept, count)),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )


def _config_of(adapter: Adapter) -> peft.LoraConfig:
    config = peft.LoraConfig.from_pretrained(str(adapter.directory))
    if not isinstance(config, peft.LoraConfig):
        raise ModelError(f"{adapter.directory} is no LoRA adapter")
    return config
