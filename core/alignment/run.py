"""One training run in its folder: the optimizer, checkpoints, and going on from them."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.alignment.lora import Trainee
from core.alignment.options import Options
from core.alignment.progress import Progress
from core.errors import OperatorError
from core.models.manifest import ADAPTER_CONFIG

_CHECKPOINT = "checkpoint"


@contextmanager
def in_one_sentence(advice: str) -> Iterator[None]:
    """No memory is one clear sentence, wherever it happens."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _no_memory(advice) from error
    except RuntimeError as error:
        if "allocate memory" not in str(error) and "out of memory" not in str(error):
            raise
        raise _no_memory(advice) from error


def _no_memory(advice: str) -> OperatorError:
    return OperatorError(f"there is not enough memory for a step: {advice}")


class Run:
    """A folder that becomes an adapter."""

    def __init__(
        self,
        directory: Path,
        options: Options,
        trainee: Trainee,
        heads: nn.Module | None,
        origin: Mapping[str, Any],
        tell: Callable[[str], None],
    ) -> None:
        """`heads` is trained beside the adapter; `origin` is what the run is made from: a
        checkpoint of another is not gone on from. OperatorError where the folder is not free."""
        self.directory, self.options, self._trainee = directory, options, trainee
        self._heads = heads or nn.Module()
        told = json.dumps([asdict(options), dict(origin)], sort_keys=True, default=str)
        self._signature = hashlib.sha256(told.encode()).hexdigest()
        prepare(directory)
        self.progress = Progress(directory, options.steps, tell)
        adapter = trainee.parameters()
        heads_too = {f"head.{name}": one for name, one in self._heads.named_parameters()}
        self._parameters = adapter | heads_too
        self._optimizer = torch.optim.AdamW(
            [
                {"params": list(adapter.values()), "scale": 1.0},
                # a head begins at nothing, and has far to go
                {"params": list(heads_too.values()), "scale": 10.0},
            ],
            lr=options.rate,
            weight_decay=0.0,
        )
        self.step = self._resume(tell)

    # -- a step -----------------------------------------------------------------------------

    def begin_step(self) -> None:
        """Set the rate, and forget the gradients."""
        done, steps = self.step, self.options.steps
        warm = max(1, steps // 10)
        share = (done + 1) / warm if done < warm else (steps - done) / max(1, steps - warm)
        for group in self._optimizer.param_groups:
            group["lr"] = self.options.rate * group["scale"] * share
        self._optimizer.zero_grad(set_to_none=True)

    def apply(self) -> None:
        """Take a step along the gradients, cut to length 1; OperatorError where they are none."""
        norm = torch.nn.utils.clip_grad_norm_(self._parameters.values(), 1.0)
        if not math.isfinite(norm.item()):
            raise self.not_a_number()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def not_a_number(self) -> OperatorError:
        kept = self.directory / _CHECKPOINT
        where = f"; the last checkpoint is {kept}" if kept.exists() else ""
        return OperatorError(
            f"the loss is not a number any more at step {self.step + 1}: lower --rate{where}"
        )

    def end_step(self, numbers: Mapping[str, float]) -> None:
        """Count the step, and keep its numbers and, from time to time, a checkpoint."""
        if not all(map(math.isfinite, numbers.values())):
            raise self.not_a_number()
        self.step += 1
        self.progress.add(self.step, numbers)
        if self.step % self.options.every == 0 and self.step < self.options.steps:
            self._checkpoint()

    # -- checkpoints ------------------------------------------------------------------------

    def _checkpoint(self) -> None:
        fresh, kept = self.directory / "checkpoint.new", self.directory / _CHECKPOINT
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        save_file(self._trainee.state(), fresh / "adapter.safetensors")
        save_file(dict(self._heads.state_dict()), fresh / "heads.safetensors")
        save_file(self._momenta(), fresh / "optimizer.safetensors")
        state = {"step": self.step, "signature": self._signature}
        (fresh / "state.json").write_text(json.dumps(state), encoding="utf-8")
        old = self.directory / "checkpoint.old"
        shutil.rmtree(old, ignore_errors=True)
        if kept.exists():
            kept.rename(old)
        fresh.rename(kept)
        shutil.rmtree(old, ignore_errors=True)

    def _momenta(self) -> dict[str, Tensor]:
        return {
            f"{name}:{key}": value.contiguous()
            for name, parameter in self._parameters.items()
            for key, value in self._optimizer.state.get(parameter, {}).items()
        }

    def _resume(self, tell: Callable[[str], None]) -> int:
        kept, old = self.directory / _CHECKPOINT, self.directory / "checkpoint.old"
        if old.exists() and not kept.exists():  # it was ended between the two renames
            old.rename(kept)
        if not kept.exists():
            self.progress.resume(0)
            return 0
        state = json.loads((kept / "state.json").read_text(encoding="utf-8"))
        if state["signature"] != self._signature:
            raise OperatorError(
                f"{self.directory} holds a checkpoint of a run with other data or settings: "
                "choose another --out, or remove it"
            )
        self._trainee.load(load_file(kept / "adapter.safetensors"))
        self._heads.load_state_dict(load_file(kept / "heads.safetensors"))
        self._set_momenta(load_file(kept / "optimizer.safetensors"))
        step = int(state["step"])
        self.progress.resume(step)
        tell(f"going on behind step {step} of {self.options.steps}")
        return step

    def _set_momenta(self, momenta: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            mine = {
                key.rpartition(":")[2]: value.to(parameter.device if value.ndim else "cpu")
                for key, value in momenta.items()
                if key.rpartition(":")[0] == name
            }
            if mine:
                self._optimizer.state[parameter] = mine

    def finish(self) -> None:
        """Nothing is left to go on from."""
        shutil.rmtree(self.directory / _CHECKPOINT, ignore_errors=True)


def prepare(directory: Path) -> None:
    """Make a run's folder; OperatorError where it holds something else than a run begun."""
    if (directory / ADAPTER_CONFIG).exists():
        raise OperatorError(f"{directory} holds an adapter already: choose another --out")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"{directory} cannot be made: {error.strerror}") from None
