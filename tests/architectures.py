"""`make architectures`: every causal type that transformers has, tiny and random, in the engine.

Each must be computed as the model itself computes it, or be refused by a sentence before it is
ready. The result is written to `core/models/architectures.json`, which `henji models pull` reads,
and to the page `core/engine/README.md`. Each type is tried in a separate process, since a kernel
that writes past its end would take the others with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from core.engine.torch import Limits, TorchEngine
from core.engine_types import GenerationRequest
from core.errors import ModelError, in_brief
from core.types import Sampling
from tests.tiny_models import varied

HOUSE = Path(__file__).parents[1]
TABLE = HOUSE / "core/models/architectures.json"
PAGE = HOUSE / "core/engine/README.md"

Verdict: TypeAlias = Literal["exact", "refused", "wrong", "not built"]

_CONTEXT = 128
_LARGEST = 30_000_000
"""The most parameters of a tiny model."""
_SECONDS = 600.0
_PROMPTS = ([5, 9, 200, 31], list(range(10, 70)), [7] * 17, list(range(40, 20, -1)))
_NEAR = 0.02
"""How far below the best a token's logit may be, in standard deviations."""
_SIZES: dict[str, Any] = {
    "vocab_size": 307, "hidden_size": 64, "d_model": 64, "n_embd": 64, "dim_model": 64,
    "intermediate_size": 96, "ffn_dim": 96, "d_ff": 96, "n_inner": 96, "ffn_hidden_size": 96,
    "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "moe_intermediate_size": 32, "embedding_size": 64,
    "shared_expert_intermediate_size": 32, "shared_intermediate_size": 32, "attention_dim": 64,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2,
    "encoder_layers": 2, "decoder_layers": 2, "num_encoder_layers": 2, "num_decoder_layers": 2,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_key_value_heads": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_heads": 4, "kv_channels": 16,
    "num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4,
    "local_attention": 48, "index_topk": 8, "rotary_dim": 8,
    "head_dim": 16, "dim_head": 16, "d_kv": 16, "v_head_dim": 16, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8, "q_lora_rank": 32, "kv_lora_rank": 32, "sliding_window": 24,
    "max_position_embeddings": _CONTEXT, "n_positions": _CONTEXT, "max_seq_len": _CONTEXT,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4,
    "num_experts_per_tok": 2, "moe_topk": 2, "n_group": 1, "topk_group": 1, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "mamba_d_state": 16, "mamba_n_heads": 8, "mamba_d_head": 16,
    "state_size": 16, "initializer_range": 0.3, "init_std": 0.3,
    "pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_OTHERS: tuple[dict[str, Any], ...] = (
    {},
    {"num_key_value_heads": None},
    {"num_key_value_heads": 4},
    {"head_dim": None},
    {"head_dim": None, "num_key_value_heads": None},
    {"head_dim": 16, "num_key_value_heads": 2},
    {"q_lora_rank": None},
    {"q_lora_rank": None, "num_experts_per_tok": 2},
    {"num_attention_heads": None, "num_key_value_heads": None, "head_dim": None},
    {"num_hidden_layers": None, "n_layer": None, "num_layers": None},
    {"sliding_window": None, "intermediate_size": None, "moe_intermediate_size": None},
)
"""Sizes that some types cannot have, or need: tried in turn. None: not given."""


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a type."""

    verdict: Verdict
    reason: str = ""
    usual: dict[str, Any] = field(default_factory=dict)
    """What decides in a configuration, as it is where a model's own does not say it."""


def kinds() -> list[str]:
    """The causal types of transformers, as `config.json` names them."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


# -- one type -------------------------------------------------------------------------------------


def tiny_model(kind: str, *, is_decoder: bool = True) -> PreTrainedModel:
    """A tiny model of this type; the last error where none can be made."""
    errors: list[Exception] = []
    for other in _OTHERS:
        try:
            config = _config(kind, other, is_decoder)
            _check_size(config)
            torch.manual_seed(5)
            return _working(varied(_model(config)))
        except Exception as error:  # as many kinds as there are types
            errors.append(error)
    raise errors[0]


def _working(model: PreTrainedModel) -> PreTrainedModel:
    """The model, which computes something: sizes that do not fit each other fail it."""
    model(input_ids=torch.tensor([[5, 6, 7]]), use_cache=False)
    return model


def _check_size(config: PreTrainedConfig) -> None:
    with torch.device("meta"):
        size = sum(each.numel() for each in _model(config).parameters())
    if size > _LARGEST:
        raise ValueError(f"it has {size:,} parameters")


def _model(config: PreTrainedConfig) -> PreTrainedModel:
    make: Any = AutoModelForCausalLM
    model: PreTrainedModel = make.from_config(config, dtype=torch.float32)
    model.train(False)
    return model


def _config(kind: str, other: dict[str, Any], is_decoder: bool) -> PreTrainedConfig:
    usual: Any = AutoConfig.for_model(kind)
    more = _known(usual, other)
    for name, part in usual.sub_configs.items():
        inner = getattr(usual, name, None)
        if isinstance(inner, PreTrainedConfig):
            more[name] = {**_known(inner, other), "model_type": inner.model_type}
        elif isinstance(part, type) and issubclass(part, PreTrainedConfig):
            more[name] = _known(part(), other)
    if hasattr(usual, "is_decoder"):
        more["is_decoder"] = is_decoder
    return AutoConfig.for_model(kind, **more)


def _known(config: PreTrainedConfig, other: dict[str, Any]) -> dict[str, Any]:
    """The sizes that a configuration has, and the `other` ones."""
    known = (name for name in _SIZES if getattr(config, name, None) is not None)
    sizes = {name: _SIZES[name] for name in known}
    if getattr(config, "kv_lora_rank", None):  # latent attention has a key for each query
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    sizes |= other
    return {name: size for name, size in sizes.items() if size is not None}


def examine(kind: str) -> Found:
    """Run a type in the engine, and find what else decides."""
    found = _run(kind)
    return replace(found, usual=usual_of(kind)) if found.verdict == "exact" else found


def usual_of(kind: str) -> dict[str, Any]:
    """See `Found`: whether it is a decoder, and in what kinds of layers it attends."""
    usual, found = AutoConfig.for_model(kind).get_text_config(), dict[str, Any]()
    encodes = getattr(usual, "is_decoder", True) is False
    if encodes and _run(kind, is_decoder=False).verdict != "exact":
        found["is_decoder"] = False
    if "chunked_attention" in (getattr(usual, "layer_types", None) or ()):
        found["layer_types"] = ["chunked_attention"]
        found["attention_chunk_size"] = usual.attention_chunk_size
    return found


def _run(kind: str, *, is_decoder: bool = True) -> Found:
    """Run a type in the engine, four prompts at once, and compare it with the model itself."""
    try:
        ours, theirs = (tiny_model(kind, is_decoder=is_decoder) for _ in range(2))
    except Exception as error:
        return Found("not built", in_brief(error))
    try:
        replies = asyncio.run(_replies(ours))
    except ModelError as error:
        _, _, told = str(error).partition("cannot run in the torch engine: ")
        return Found("refused", told.partition(". A vLLM server")[0] or str(error))
    wrong = [_worst(theirs, prompt, ids) for prompt, ids in zip(_PROMPTS, replies, strict=True)]
    if max(wrong) > _NEAR:
        return Found("wrong", f"a token is {max(wrong):.2f} below the best")
    return Found("exact")


async def _replies(model: PreTrainedModel) -> list[list[int]]:
    limits = Limits(_CONTEXT, slots=4, step_tokens=32, cache_bytes=8 << 20)
    engine = await TorchEngine.open(lambda: model, lambda _: limits)

    async def reply(prompt: list[int]) -> list[int]:
        request = GenerationRequest("r", prompt, Sampling(0.0), 6, seed=0)
        return [id_ async for chunk in engine.generate(request) for id_ in chunk.ids]

    try:
        return list(await asyncio.gather(*(reply(prompt) for prompt in _PROMPTS)))
    finally:
        await engine.close()


@torch.inference_mode()
def _worst(model: PreTrainedModel, prompt: list[int], reply: list[int]) -> float:
    """How far the worst token of a reply is below the best one, by the model itself."""
    logits = model(input_ids=torch.tensor([[*prompt, *reply]]), use_cache=False).logits[0]
    chosen = logits[len(prompt) - 1 : -1]
    below = chosen.amax(-1) - chosen.gather(1, torch.tensor(reply)[:, None])[:, 0]
    return float((below / chosen.std(-1)).max())


# -- all of them ----------------------------------------------------------------------------------


def _child(kind: str, into: Connection) -> None:
    into.send(examine(kind))


def examined_apart(kind: str) -> Found:
    """`examine` in a separate process: one that dies or hangs is a failure."""
    here, there = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_child, args=(kind, there))
    child.start()
    there.close()
    try:
        if here.poll(_SECONDS):
            found: Found = here.recv()
            return found
        return Found("wrong", f"no end after {_SECONDS:.0f} seconds")
    except EOFError:
        child.join()
        return Found("wrong", f"the process ended with {child.exitcode}")
    finally:
        child.kill()
        child.join()


def _warm_up() -> None:
    """Compile the usual kernels for all children; nothing may run in parallel before a fork."""
    import numba

    from core.engine.torch.cpu.numba_kernels import attend_paged_for, keep_paged_for

    cast("Any", numba.config).THREADING_LAYER = "workqueue"  # GNU's OpenMP cannot be forked
    attend_paged_for(torch.float32, 16)
    keep_paged_for(torch.float32)


def page(found: dict[str, Found]) -> str:
    """The page of which is which."""
    served = ", ".join(f"`{kind}`" for kind, one in found.items() if one.verdict == "exact")
    rows = [
        f"| `{kind}` | {one.reason.replace('|', '/')} |"
        for kind, one in found.items()
        if one.verdict == "refused"
    ]
    unbuilt = ", ".join(f"`{kind}`" for kind, one in found.items() if one.verdict == "not built")
    return "\n".join([
        "# Architectures",
        "",
        f"`make architectures` writes this page: every causal type of transformers "
        f"{transformers.__version__}, tiny and with random weights, four prompts at once on a CPU, "
        "beside the model's own attention. The types are those of `model_type` in a model's "
        "`config.json`. Every model is compared again, on its own weights, before its first "
        "request.",
        "",
        "## Computed exactly",
        "",
        f"{served}.",
        "",
        "A model's own configuration may still ask for more: layers other than attention (those of "
        "a real LFM2 are convolutions), a context longer than a chunk (Llama 4: 8,192), an encoder "
        "(BERT without `is_decoder`), ALiBi (Falcon-RW). Such a model is refused, and "
        "`henji models pull` says so.",
        "",
        "## Refused before the first request",
        "",
        "A vLLM server serves most of them, through `HENJI_ENGINE=openai`.",
        "",
        "| type | why |",
        "|---|---|",
        *rows,
        "",
        "## Not tried",
        "",
        "No tiny model of these can be made from sizes alone. They are compared at their first "
        f"start like all others: {unbuilt}.",
        "",
    ])  # fmt: skip


def main(wanted: list[str]) -> int:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity(logging.CRITICAL)
    _warm_up()
    names = wanted or kinds()
    with ThreadPoolExecutor(2) as two:
        found = dict(zip(names, two.map(_told, names), strict=True))
    if not wanted:
        table = {kind: asdict(one) for kind, one in found.items()}
        TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(page(found), encoding="utf-8")
    return int(any(one.verdict == "wrong" for one in found.values()))


def _told(kind: str) -> Found:
    found = examined_apart(kind)
    print(f"{kind:<28} {found.verdict:<10} {found.reason}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
