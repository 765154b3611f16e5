"""Models small enough to be built where a test needs one, in the layouts of the real ones.

`rinna` writes a GPT-NeoX checkpoint as rinna's lie on the hub: old key names, pickled weights, a
tokenizer config that names T5Tokenizer, and a SentencePiece model with rinna's options and ids,
trained on the spot. `llama` writes a Llama with a byte-level tokenizer and a chat template.
`architecture` makes the kinds of models that people run, with random weights alone.
"""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

_JAPANESE = (
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "それは、とても良い質問ですね。 それは難しいと思います。 これは簡単です。",
    "日本の首都は東京です。フランスの首都はパリです。 また、北海道の県庁所在地は札幌市です。",
    "コンタクトレンズを慣れるにはどうすればよいですか? 目が痛いのです。",
    "ユーザー: こんにちは。 システム: こんにちは!何かお手伝いできますか?",
    "分かりました。 しかし、時間管理は重要です。まず、目標を設定し、進捗を確認します。",
    "今日の天気は晴れです。明日は雨が降るでしょう。 一方、週末は曇りです。",
    "毎日、少しずつ実践することが重要です。 そのため、計画を立てます。",
)
_MARKUP = (
    "<b>太字</b> と <i>斜体</i><br><hr> <a>リンク</a><p></p>",
    "1 < 2 > 0 <- -> </s> <s> www 1111 0000 ---- ーーー",
)
_ENGLISH = (
    "The capital of Japan is Tokyo. And of France? Paris, of course.",
    "It was a bright cold day, and the clocks were striking thirteen.",
    "user: hello there! assistant: hello, how can I help you today?",
    "You are a helpful assistant. Write a short story about a cat and a dog.",
)

RINNA_CONTROLS = {
    "[PAD]": 0, "[UNK]": 1, "<s>": 2, "</s>": 3, "[CLS]": 4, "[SEP]": 5, "[MASK]": 6,
}  # fmt: skip
"""The first ids of rinna's vocabulary; 7 to 262 are its byte pieces."""


@cache
def spiece(
    vocabulary: int = 420,
    *,
    dummy_prefix: bool = False,
    normalization: str = "nmt_nfkc",
    controls: tuple[str, ...] = ("[CLS]", "[SEP]", "[MASK]"),
    symbols: tuple[str, ...] = (),
) -> bytes:
    """A SentencePiece unigram model with rinna's options and layout of ids; `symbols` are pieces
    that it finds in every text."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*_JAPANESE, *_MARKUP] * 8),
        model_writer=written,
        vocab_size=vocabulary,
        character_coverage=0.98,
        byte_fallback=True,
        add_dummy_prefix=dummy_prefix,
        remove_extra_whitespaces=False,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        pad_piece="[PAD]",
        unk_piece="[UNK]",
        control_symbols=list(controls),
        user_defined_symbols=list(symbols),
        normalization_rule_name=normalization,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return written.getvalue()


def rinna(
    directory: Path,
    *,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 2,
    context_length: int = 2048,
    seed: int = 0,
) -> Path:
    """A tiny model in the files of `rinna/japanese-gpt-neox-3.6b-instruction-ppo`; float32."""
    directory.mkdir(parents=True, exist_ok=True)
    model = spiece()
    (directory / "spiece.model").write_bytes(model)
    size = sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()
    config = {
        "architectures": ["GPTNeoXForCausalLM"],
        "bos_token_id": 2,
        "eos_token_id": 3,
        "hidden_act": "gelu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": 4 * hidden,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": context_length,
        "model_type": "gpt_neox",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_cache": True,
        "use_parallel_residual": False,
        "vocab_size": size,
    }
    _write(directory / "config.json", config)
    _write(directory / "tokenizer_config.json", _RINNA_TOKENIZER_CONFIG)
    torch.save(_old_weights(config, seed), directory / "pytorch_model.bin")
    return directory


_RINNA_TOKENIZER_CONFIG = {
    "eos_token": "</s>",
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "extra_ids": 0,
    "additional_special_tokens": [],
    "sp_model_kwargs": {},
    "bos_token": "<s>",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
    "do_lower_case": False,
    "tokenizer_class": "T5Tokenizer",
}


def _old_weights(config: dict[str, Any], seed: int) -> dict[str, torch.Tensor]:
    """Random weights under the key names of checkpoints from 2023: `embed_out` for the head, and
    the causal mask saved with every layer."""
    random = torch.Generator().manual_seed(seed)
    hidden, inner, size = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    length, head = config["max_position_embeddings"], hidden // config["num_attention_heads"]

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random) * 0.3

    weights = {"gpt_neox.embed_in.weight": normal(size, hidden)}
    for layer in range(config["num_hidden_layers"]):
        block = f"gpt_neox.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{block}.{norm}.weight"] = 1 + normal(hidden) * 0.1
            weights[f"{block}.{norm}.bias"] = normal(hidden)
        attention = f"{block}.attention"
        causal = torch.ones(length, length, dtype=torch.bool).tril().view(1, 1, length, length)
        weights[f"{attention}.bias"] = causal
        weights[f"{attention}.masked_bias"] = torch.tensor(-1e9)
        weights[f"{attention}.rotary_emb.inv_freq"] = 10000.0 ** -(
            torch.arange(0, head, 2).float() / head
        )
        for part, rows, columns in (
            ("attention.query_key_value", 3 * hidden, hidden),
            ("attention.dense", hidden, hidden),
            ("mlp.dense_h_to_4h", inner, hidden),
            ("mlp.dense_4h_to_h", hidden, inner),
        ):
            weights[f"{block}.{part}.weight"] = normal(rows, columns)
            weights[f"{block}.{part}.bias"] = normal(rows)
    weights["gpt_neox.final_layer_norm.weight"] = 1 + normal(hidden) * 0.1
    weights["gpt_neox.final_layer_norm.bias"] = normal(hidden)
    weights["embed_out.weight"] = normal(size, hidden)
    return weights


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' "
    "+ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Takes any order of roles, a system message too."""

ALTERNATING = (
    "{{ '<s>' }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'].strip() + '</s>' }}{% endif %}{% endfor %}"
)
"""Insists on alternation, knows no system message, and marks turns with text that is no token."""

LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set told = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set told = '' %}{% endif %}"
    "{% for message in messages %}{% set content = (told if loop.first else '') "
    "+ message['content'] %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '<s>[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + content.strip() + ' </s>' }}{% endif %}{% endfor %}"
)
"""Marks a system message, too, with text that is no token."""

LLM_JP = (
    "{{ '<s>' }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '\n\n### 指示:\n' + message['content'] }}{% elif message['role'] == 'system' %}"
    "{{ message['content'] }}{% else %}{{ '\n\n### 応答:\n' + message['content'] + '</s>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '\n\n### 応答:\n' }}{% endif %}"
)
"""Marks turns with headings."""

ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] "
    "+ '</s>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
"""Marks turns with what looks like tokens and is none."""

UNREGISTERED = CHATML.replace("im_start", "turn").replace("im_end", "end")
"""ChatML whose tokens nobody told the tokenizer of."""

_LLAMA_CONTROLS = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]


@cache
def bpe(vocabulary: int = 500) -> str:
    """A byte-level tokenizer, as the JSON of a ``tokenizer.json``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=_LLAMA_CONTROLS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*_JAPANESE, *_ENGLISH] * 8, trainer)
    return tokenizer.to_str()


@cache
def bpe_with_spaces(vocabulary: int = 600) -> str:
    """A tokenizer that writes spaces as Llama 2's does, with byte pieces for unknown characters."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[*_LLAMA_CONTROLS, *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator([*_JAPANESE, *_ENGLISH] * 8, trainer)
    written = json.loads(tokenizer.to_str())
    written["added_tokens"] = written["added_tokens"][: len(_LLAMA_CONTROLS)]
    return json.dumps(written)


@cache
def unigram() -> str:
    """A tokenizer as llm-jp's: Unigram pieces over NFKC, and bytes for unknown characters. Its
    control tokens are pieces, too, which typed full-width letters would become."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first"), decoders.Fuse()]
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=350, special_tokens=_LLAMA_CONTROLS, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([*_JAPANESE, *_ENGLISH] * 8, trainer)
    written = json.loads(tokenizer.to_str())
    written["model"]["byte_fallback"] = True
    written["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
    return json.dumps(written)


def tokenizer_files(
    directory: Path, *, template: str | None = CHATML, tokenizer: str | None = None
) -> Path:
    """The files of a Hugging Face tokenizer alone."""
    wrapped: Any = PreTrainedTokenizerFast
    wrapped(
        tokenizer_object=Tokenizer.from_str(tokenizer or bpe()),
        bos_token="<s>",
        eos_token="<|im_end|>" if template == CHATML else "</s>",
        chat_template=template,
    ).save_pretrained(directory)
    return directory


def llama(
    directory: Path,
    *,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 4,
    context_length: int = 512,
    template: str | None = CHATML,
    seed: int = 0,
) -> Path:
    """A tiny Llama with grouped heads, a tokenizer and a chat template; float32."""
    tokenizer_files(directory, template=template)
    ends = _LLAMA_CONTROLS.index("<|im_end|>" if template == CHATML else "</s>")
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=Tokenizer.from_str(bpe()).get_vocab_size(),
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        max_position_embeddings=context_length,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=ends,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def gguf(directory: Path, path: Path, kind: str) -> Path:
    """The files that `llama` wrote as one GGUF file, its matrices of a kind such as ``Q8_0``."""
    import gguf as library

    config = json.loads((directory / "config.json").read_text())
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    pieces = tokenizer["model"]["vocab"]
    controls = {token["id"] for token in tokenizer["added_tokens"]}
    writer = library.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(pieces, key=pieces.__getitem__))
    writer.add_token_types([3 if ident in controls else 1 for ident in sorted(pieces.values())])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    quantized = library.GGMLQuantizationType[kind]
    for name, tensor in load_file(directory / "model.safetensors").items():
        numbers = tensor.numpy()
        if heads := _heads(name, config):  # llama.cpp rotates neighbours, and transformers halves
            rows = numbers.reshape(heads, 2, -1, numbers.shape[1])
            numbers = rows.swapaxes(1, 2).reshape(numbers.shape)
        if numbers.ndim == 1:
            writer.add_tensor(_gguf_name(name), numbers)
            continue
        data = library.quantize(numbers, quantized)
        writer.add_tensor(_gguf_name(name), data, raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _heads(name: str, config: dict[str, Any]) -> int:
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    return next((int(config[key]) for part, key in heads.items() if part in name), 0)


def _gguf_name(name: str) -> str:
    for theirs, ours in (
        ("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output"),
        ("model.layers", "blk"), ("self_attn.", "attn_"), ("o_proj", "output"), ("_proj", ""),
        ("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm"),
        ("mlp.", "ffn_"),
    ):  # fmt: skip
        name = name.replace(theirs, ours)
    return name


# -- architectures --------------------------------------------------------------------------------

_SMALL: dict[str, Any] = {
    "vocab_size": 307,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "pad_token_id": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512, "n_inner": 96}
_HALF_SLIDES = {
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 24,
    "query_pre_attn_scalar": 16,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "original_max_position_embeddings": 64,
    "short_factor": [1.0] * 8,
    "long_factor": [4.0] * 8,
}
_FALCON = {"head_dim": None, "num_key_value_heads": None, "ffn_hidden_size": 96}
_LATENT = {
    "head_dim": None,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 20,
    "num_key_value_heads": 4,
}
_EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama 3": ("llama", {}),
    "qwen 2.5": ("qwen2", {"use_sliding_window": False}),
    "qwen 3": ("qwen3", {}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral 0.1": ("mistral", {"sliding_window": 24}),
    "mixtral": ("mixtral", {**_EXPERTS, "sliding_window": None}),
    "gemma 2": ("gemma2", {**_HALF_SLIDES, "attn_logit_softcapping": 3.0}),
    "gemma 3": ("gemma3_text", _HALF_SLIDES),
    "gemma 3 27b": (
        "gemma3_text",
        {
            **_HALF_SLIDES,
            "num_hidden_layers": 7,
            "layer_types": [*["sliding_attention"] * 5, "full_attention", "sliding_attention"],
        },
    ),
    "gpt-oss": ("gpt_oss", {**_HALF_SLIDES, **_EXPERTS}),
    "phi 3 mini": ("phi3", {"sliding_window": 24}),
    "phi 4": ("phi3", {"sliding_window": None}),
    "smollm 2": ("llama", {"tie_word_embeddings": True}),
    "smollm 3": ("smollm3", {}),
    "olmo 2": ("olmo2", {}),
    "granite 3": ("granite", {}),
    "gpt-neox": ("gpt_neox", {"num_key_value_heads": None}),
    "gpt-2": ("gpt2", {**_GPT2, "num_key_value_heads": None}),
    "starcoder": ("gpt_bigcode", {**_GPT2, "multi_query": True}),
    "starcoder 2": ("starcoder2", {"sliding_window": 24}),
    "falcon 7b": ("falcon", {**_FALCON, "multi_query": True, "parallel_attn": True}),
    "falcon 40b": ("falcon", {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon of all heads": (
        "falcon",
        {**_FALCON, "multi_query": False, "parallel_attn": False, "bias": True},
    ),
    "hunyuan a13b": (
        "hunyuan_v1_moe",
        {"num_experts": 4, "moe_topk": 2, "moe_intermediate_size": 32, "use_qk_norm": True},
    ),
    "glm 4.7 flash": (
        "glm4_moe_lite",
        {
            **_LATENT,
            "q_lora_rank": 32,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 32,
        },
    ),
    "deepseek 2": (
        "deepseek_v2",
        {
            **_LATENT,
            "q_lora_rank": None,
            "first_k_dense_replace": 2,
        },
    ),
}
"""What people run: the kind of model, and what it has of its own."""


def architecture(name: str) -> PreTrainedModel:
    """One of `ARCHITECTURES`, always with the same weights."""
    kind, more = ARCHITECTURES[name]
    return causal(kind, **more)


def causal(kind: str, **more: Any) -> PreTrainedModel:
    """A small model of a kind that transformers has; float32."""
    torch.manual_seed(5)
    sizes = {**_SMALL, **more}
    if sizes["head_dim"] is None:  # the others imply it
        del sizes["head_dim"]
    config = AutoConfig.for_model(kind, **sizes)
    make: Any = AutoModelForCausalLM
    model: PreTrainedModel = make.from_config(config, dtype=torch.float32)
    model.train(False)
    return varied(model)


@torch.no_grad()
def varied(model: PreTrainedModel) -> PreTrainedModel:
    """The model with noise in the weights that begin all alike, as biases and norms do: such a
    weight may hide a part of the attention that a trained model has."""
    for weight in model.parameters():
        if weight.numel() and weight.min() == weight.max():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    return model


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
