"""One alignment from a data set to an adapter that can be served."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from core.alignment import Options, Work
from core.alignment.datasets import Item, encode, read_examples
from core.alignment.lora import Trainee
from core.alignment.losses import Batch, PpoSettings
from core.alignment.ppo_training import REWARD, Policy, ValueHead
from core.alignment.reward import RewardHead, hidden_size, manifest_of
from core.alignment.run import Run, in_one_sentence, prepare
from core.alignment.train import Numbers, chunks, evaluate, fit, objective_for, split
from core.dialogue import Dialogue
from core.errors import ModelError, OperatorError, UsageError
from core.models.catalogue import ModelSpec, find_named, model_directory
from core.models.files import read_config, weights_fingerprint
from core.models.manifest import Manifest, read_manifest, weights_digest
from core.models.weights import check_base, choose_device, load_weights, read_adapter
from core.settings import Settings

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Base:
    """The model to align, without its adapter."""

    spec: ModelSpec
    files: Path
    dialogue: Dialogue
    start: Path | None
    """The model's adapter, from which training goes on."""


def align(work: Work, settings: Settings, tell: Tell) -> Numbers:
    """Train an adapter into ``work.out``; returns the last numbers.

    OperatorError or ModelError, one sentence, if something does not fit.
    """
    prepare(work.out)
    base = _find(work, settings, tell)
    options = work.options
    examples = read_examples(work.data, options.method)
    longest = min(options.longest, base.spec.context_length)
    items = encode(examples, base.dialogue, longest=longest, tell=tell)
    _check(work, base, items)
    kept = 0.0 if options.method == "ppo" else options.held_out
    training, held_out = split(items, kept, options.seed)
    batch = min(options.batch, len(training))
    steps = options.steps or ceil(work.epochs * len(training) / batch)
    options = replace(options, batch=batch, micro=min(options.micro, batch), steps=steps)
    with in_one_sentence("lower --micro, --longest or --layers"):
        trainee = _begin(base, options, settings, tell)
        return _train(work, base, _Parts(trainee, training, held_out, options, tell))


# -- what it is made from --------------------------------------------------------------------------


def _find(work: Work, settings: Settings, tell: Tell) -> _Base:
    if settings.engine == "openai":
        raise OperatorError(
            "a model on a remote server cannot be trained from here: set HENJI_ENGINE=torch"
        )
    spec = find_named(work.model, settings)
    if spec.format == "echo":
        raise ModelError("the model echo has no weights to train")
    files = model_directory(spec, settings, tell)
    if "quantization_config" in read_config(files):
        raise ModelError(
            f"the weights of {spec.name} are quantized: align the model that they were made from"
        )
    dialogue = Dialogue.load(
        spec,
        files,
        system_prompt=settings.system_prompt,
        speaker_names=settings.speaker_names,
    )
    start = Path(spec.adapter).expanduser() if spec.adapter else None
    return _Base(replace(spec, adapter=None), files, dialogue, start)


def _check(work: Work, base: _Base, items: Sequence[Item]) -> None:
    """OperatorError or ModelError if the method cannot learn from the data."""
    if work.options.method == "kto" and len({item.liked for item in items}) < 2:
        kind = "liked" if items[0].liked else "disliked"
        raise OperatorError(f"every reply in {work.data} is {kind}: kto learns from both kinds")
    if work.options.method == "ppo":
        _check_reward(work, base)


def _check_reward(work: Work, base: _Base) -> None:
    if work.reward is None:
        raise UsageError("ppo needs --reward DIR, a model that `henji align MODEL --reward` made")
    manifest = manifest_of(work.reward)
    if manifest.fingerprint != base.dialogue.fingerprint:
        raise ModelError(f"the reward model {work.reward} reads other ids than {base.spec.name}")
    check_base(read_adapter(work.reward), base.spec, base.files)


def _begin(base: _Base, options: Options, settings: Settings, tell: Tell) -> Trainee:
    # on a processor, bfloat16 is too coarse to learn in
    on_cpu = choose_device(settings.device).type == "cpu"
    dtype = "float32" if settings.dtype == "auto" and on_cpu else settings.dtype
    model = load_weights(base.spec, base.files, dtype=dtype, device=settings.device, progress=tell)
    start = read_adapter(base.start) if base.start else None
    if start is not None:
        check_base(start, base.spec, base.files)
    trainee = Trainee.begin(
        model,
        rank=options.rank,
        alpha=options.alpha,
        layers=options.layers,
        seed=options.seed,
        start=start,
    )
    if not on_cpu:
        trainee.save_memory()
    return trainee


# -- training --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Parts:
    """The parts of a run, beside its folder."""

    trainee: Trainee
    training: Sequence[Item]
    held_out: Sequence[Item]
    options: Options
    tell: Tell


def _train(work: Work, base: _Base, parts: _Parts) -> Numbers:
    model, method = parts.trainee.model, parts.options.method
    heads: dict[str, RewardHead | ValueHead] = {
        "reward": RewardHead(hidden_size(model)),
        "ppo": ValueHead(hidden_size(model)),
    }
    head = heads[method].to(model.device) if method in heads else None
    run = Run(work.out, parts.options, parts.trainee, head, _origin(work, base), parts.tell)
    parts.tell(
        f"{method} on {len(parts.training)} examples, {len(parts.held_out)} held out, "
        f"{parts.options.steps} steps of {parts.options.batch}"
    )
    numbers: Numbers = {}
    if isinstance(head, ValueHead) and work.reward is not None:
        _improve(run, head, work.reward, base.dialogue, parts)
    elif not isinstance(head, ValueHead):
        numbers = _fit(run, head, parts)
    numbers = {**run.progress.rows[-1], **numbers}
    run.progress.draw(f"{base.spec.name}: {method}")
    parts.trainee.save(work.out, base.spec.source, base.spec.revision)
    _manifest(work, base, parts, numbers).write(work.out)
    run.finish()
    return numbers


def _fit(run: Run, head: RewardHead | None, parts: _Parts) -> Numbers:
    """Train on given examples; the numbers of those held out."""
    trainee, options = parts.trainee, parts.options
    fit(run, objective_for(trainee, head, parts.training, options), len(parts.training))
    if head is not None:
        replies = [reply for item in parts.training for reply in item.replies]
        batches = [Batch.of(s, trainee.model.device) for s in chunks(replies, options.micro)]
        head.settle(trainee.model, batches)
        head.save(run.directory)
    if not parts.held_out:
        return {}
    objective = objective_for(trainee, head, parts.held_out, options)
    numbers = evaluate(objective, len(parts.held_out), options)
    told = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
    parts.tell(f"held out: {told}")
    return {f"held out {name}": value for name, value in numbers.items()}


def _improve(run: Run, head: ValueHead, reward: Path, dialogue: Dialogue, parts: _Parts) -> None:
    """PPO against the reward model."""
    trainee, options = parts.trainee, parts.options
    trainee.attach(REWARD, read_adapter(reward))
    rewards, settings = RewardHead.load(reward, trainee.model.device), PpoSettings(kl=options.kl)
    policy = Policy(trainee, head, rewards, settings, options, dialogue.stop_ids, dialogue.end)
    policy.fit(run, parts.training)


# -- what is told of it ----------------------------------------------------------------------------


def _origin(work: Work, base: _Base) -> dict[str, Any]:
    """The identity of a run: a checkpoint of another identity is not resumed."""
    return {
        "base": base.spec.source,
        "weights": weights_fingerprint(base.files),
        "data": _digest(work.data),
        "start": weights_digest(base.start) if base.start else None,
        "reward": weights_digest(work.reward) if work.reward else None,
    }


def _manifest(work: Work, base: _Base, parts: _Parts, numbers: Numbers) -> Manifest:
    """The manifest. It includes held-out examples: they influenced which weights were kept."""
    before = [read_manifest(folder) for folder in (base.start, work.reward) if folder]
    known = [one for one in before if one is not None]
    items = [*parts.training, *parts.held_out]
    examples = {item.example.digest for item in items}
    words = {word for item in items for word in item.example.words}
    authors = {author for item in items for author in item.example.authors}
    rewards = {reward for one in known for reward in one.rewards}
    return Manifest(
        method=parts.options.method,
        model=work.model,
        base=base.spec.source,
        base_weights=weights_fingerprint(base.files),
        revision=base.spec.revision,
        fingerprint=base.dialogue.fingerprint,
        data=_digest(work.data),
        examples=tuple(sorted(examples.union(*(one.examples for one in known)))),
        words=tuple(sorted(words.union(*(one.words for one in known)))),
        authors=tuple(sorted(authors.union(*(one.authors for one in known)))),
        options=asdict(parts.options),
        result=dict(numbers),
        rewards=tuple(sorted({weights_digest(work.reward)} | rewards if work.reward else rewards)),
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
