"""The prompt is the chat template's: its ids are those of transformers' `apply_chat_template`."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as HubTokenizer

from core.dialogue import Dialogue
from core.dialogue.dialogue import spec_with_rules
from core.dialogue.tokenizers.huggingface import HuggingFaceTokenizer
from core.errors import ModelError
from core.models.files import detect_format
from core.models.gguf import embedded_gguf, has_embedded, quiet_transformers
from core.place_rules import NO_RULES, Persona, Rules
from core.types import Turn
from tests import dialogues, tiny_models
from tests.dialogues import said, turn, user
from tests.optional import FOLDER

CHAT = replace(dialogues.CHAT, context_length=100_000)
_TOKENS = re.compile(r"<[|｜][^\s'\"{}]+?[|｜]>|</?s>|\[/?[A-Z_]+\]|</?[a-z_]+(?::think)?>")


@cache
def files(template: str, ordinary: tuple[str, ...] = ()) -> Path:
    """A tokenizer with this template and the tokens in it."""
    found = sorted(set(_TOKENS.findall(template)))
    hub = HubTokenizer.from_str(tiny_models.bpe())
    of_thoughts = [token for token in found if "think" in token]
    hub.add_special_tokens(
        [AddedToken(token, special=True) for token in found if token not in of_thoughts]
    )
    hub.add_tokens(
        [AddedToken(t, special=False, normalized=False) for t in (*of_thoughts, *ordinary)]
    )
    directory = dialogues.new_folder()
    return tiny_models.tokenizer_files(directory, template=template, tokenizer=hub.to_str())


def load(template: str, system_prompt: str = "", **more: Any) -> Dialogue:
    spec = replace(CHAT, **more)
    return Dialogue.load(spec, files(template), system_prompt=system_prompt)


@cache
def smollm2() -> Path:
    """The embedded model's tokenizer, without its weights."""
    from transformers import AutoTokenizer

    gguf, directory = embedded_gguf(), dialogues.new_folder()
    with quiet_transformers():
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(directory)
    return directory


STRIPPED = (  # as Qwen3: of the last reply alone the thought is written
    "{% for m in messages %}{% set c = m.content %}{% if m.role == 'assistant' %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}"
    "{% if loop.last %}{% set c = '<think>\n\n</think>\n\n' + c %}{% endif %}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ c }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
WANTED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content | trim }}</think>{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ENDED = (  # as Phi-3.5: an end of text, where no reply shall follow
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
IN_THE_MIDDLE = (  # as Mistral Nemo: the system prompt is at the last question
    "{% set s = messages[0].content + '\n\n' if messages[0].role == 'system' else '' %}<s>"
    "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}[INST]"
    "{{ s if loop.last }}{{ m.content }}[/INST]{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
)
CHANNELS = (  # as GPT-OSS
    "<|start|>system<|message|>Today: {{ strftime_now('%Y-%m-%d') }}\n"
    "Reasoning: {{ reasoning_effort or 'medium' }}<|end|>"
    "{% for m in messages %}<|start|>{{ 'developer' if m.role == 'system' else m.role }}"
    "{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ m.content }}"
    "{% if loop.last and m.role == 'assistant' %}<|return|>{% else %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
OWN = {
    "chatml": tiny_models.CHATML,
    "alternating": tiny_models.ALTERNATING,
    "llama-2": tiny_models.LLAMA_2,
    "llm-jp": tiny_models.LLM_JP,
    "zephyr": tiny_models.ZEPHYR,
    "unregistered": tiny_models.UNREGISTERED,
    "thoughts left out": STRIPPED,
    "thoughts wanted": WANTED,
    "an end of text": ENDED,
    "a system prompt in the middle": IN_THE_MIDDLE,
    "channels": CHANNELS,
}
PUBLISHED = Path(FOLDER or "/nowhere") / "chat-templates"
NAMES = sorted(path.stem for path in PUBLISHED.glob("*.jinja"))
REFUSED = {
    "CohereForAI-c4ai-command-r-plus-tool_use": "'NoneType' object is not iterable",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": "'NoneType' object is not iterable",
}
"""Templates for tools alone, which `apply_chat_template` cannot render without any."""

ASKED = (
    "a plain line",
    "  white space around it\n",
    "two\n\nparagraphs, {{ braces }} & more",
    "<table><td>1</td></table>",
    "日本語。 /no_think",
)
REPLIED = (
    "Sure.",
    "  Indented\n\n- a\n- b  ",
    "<think>\nwell\n</think>\n\nParis.",
    "<b>hm</b>",
    "日本語",
)


def talk(length: int, shift: int) -> list[Turn]:
    """User and assistant in turn, with thoughts as earlier releases kept them."""
    return [
        turn(
            at, "assistant" if at % 2 else "user", (REPLIED if at % 2 else ASKED)[(at + shift) % 5]
        )
        for at in range(length)
    ]


def wanted(dialogue: Dialogue, turns: Sequence[Turn], system_prompt: str) -> list[int]:
    """The ids of `apply_chat_template`. A template without a system role has it in the first
    question."""
    tokenizer = dialogue.tokenizer
    assert isinstance(tokenizer, HuggingFaceTokenizer)
    rows = [{"role": each.role, "content": each.text} for each in turns]
    apply: Any = tokenizer._wrapped.apply_chat_template
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    options = {"tokenize": False, "add_generation_prompt": True}
    try:
        string = apply([*system, *rows], **options)
        known = not system_prompt or system_prompt in string
    except Exception:
        known = False
    if not known:
        rows[0]["content"] = f"{system_prompt}\n\n{rows[0]['content']}"
        string = apply(rows, **options)
    ids: list[int] = tokenizer._wrapped(string, add_special_tokens=False)["input_ids"]
    return ids


def check(dialogue: Dialogue, system_prompt: str) -> None:
    for length in (1, 3, 7):
        for shift in range(5):
            turns = talk(length, shift)
            prompt = dialogue.prompt(turns, low_water=0.7)
            assert list(prompt.ids) == wanted(dialogue, turns, system_prompt), (length, shift)


@pytest.mark.parametrize("system_prompt", ["", "Be brief."])
@pytest.mark.parametrize("name", OWN)
def test_a_prompt_is_that_of_the_template(name: str, system_prompt: str) -> None:
    check(load(OWN[name], system_prompt), system_prompt)


@pytest.mark.skipif(not NAMES, reason="HENJI_TEST_DATA names no folder with chat-templates/*.jinja")
@pytest.mark.parametrize("system_prompt", ["", "Be brief."])
@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_is_that_of_a_published_template(name: str, system_prompt: str) -> None:
    template = (PUBLISHED / f"{name}.jinja").read_text()
    if name in REFUSED:
        with pytest.raises(ModelError, match=re.escape(REFUSED[name])):
            load(template, system_prompt)
        return
    check(load(template, system_prompt), system_prompt)


@pytest.mark.skipif(not has_embedded(), reason="the embedded model is not installed")
@pytest.mark.parametrize("system_prompt", ["", "Be brief."])
def test_a_prompt_is_that_of_the_embedded_model_s_template(system_prompt: str) -> None:
    check(Dialogue.load(CHAT, smollm2(), system_prompt=system_prompt), system_prompt)


def test_the_templates_that_only_append_are_known() -> None:
    """Their prompts cost as much as their new turns."""
    rendered_whole = {
        name for name, template in OWN.items() if not load(template)._format.append_only
    }
    assert rendered_whole == set()
    assert not load(IN_THE_MIDDLE, "Be brief.")._format.append_only


def test_a_thought_that_a_template_wants_is_given_to_it() -> None:
    model, turns = load(WANTED), said("where?", "Paris.", "sure?")
    turns[1] = replace(turns[1], thought="A city <|im_end|> in France.")
    shown = dialogues.rendered(model, turns)
    assert "assistant\n<think>A city <|im_end| > in France.</think>Paris.<|im_end|>" in shown
    assert model.keeps_thoughts
    assert not load(STRIPPED).keeps_thoughts
    assert "A city" not in dialogues.rendered(load(STRIPPED), turns)


def test_a_thought_in_the_middle_of_a_stored_reply_is_text() -> None:
    turns = said("what ends it?", "This: </think>, so.", "ok")
    assert "This: </think >, so." in dialogues.rendered(load(STRIPPED), turns)


def test_thinking_is_turned_off_and_on_where_the_template_knows_it() -> None:
    off = load(STRIPPED, thinking="off")
    assert dialogues.rendered(off, [user(1, "hi")]).endswith("<think>\n\n</think>\n\n")
    assert not off.ignores_thinking
    on = off.with_spec(replace(off.spec, thinking="on"), None)
    assert dialogues.rendered(on, [user(1, "hi")]).endswith("assistant\n")
    assert "Reasoning: low" in dialogues.rendered(load(CHANNELS, thinking="off"), [user(1, "hi")])
    picky = "{% if reasoning_effort == 'low' %}{{ raise_exception('none or high') }}{% endif %}"
    strict = load(picky + CHANNELS, thinking="off")
    assert "Reasoning: none" in dialogues.rendered(strict, [user(1, "hi")])
    assert load(tiny_models.CHATML, thinking="off").ignores_thinking


def test_the_default_of_a_place_is_the_model_s_whatever_holds_around() -> None:
    model = load(STRIPPED, thinking="off")
    space, channel = Rules(thinking="on"), Rules(thinking="default")
    of_rules = {
        "on": space, "off": channel.over(space), "off ": NO_RULES,
        "on ": Persona(thinking="on").over_rules(channel),
        "off  ": Persona(thinking="default").over_rules(space),
    }  # fmt: skip
    for thinking, rules in of_rules.items():
        assert spec_with_rules(model.spec, rules).thinking == thinking.strip()


def test_a_switch_in_a_place_keeps_the_system_prompt() -> None:
    model = load(STRIPPED, "Be brief.")
    off = model.with_spec(replace(model.spec, thinking="off"), None)
    assert "Be brief." in dialogues.rendered(off, [user(1, "hi")])


# -- the date -----------------------------------------------------------------------------------


class Tomorrow(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Tomorrow:
        return cls(2999, 1, 1, 12)


def test_the_date_in_a_template_is_that_of_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    dialogue, turns = load("{{ strftime_now('%d %m %Y %H') }}" + tiny_models.CHATML), said(*"abc")
    assert "2999" not in dialogues.rendered(dialogue, turns[:1])
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    assert dialogues.rendered(dialogue, turns).startswith("01 01 2999 12")


def test_a_date_at_the_end_of_a_prompt_keeps_what_was_cached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dated = tiny_models.CHATML.replace("assistant\n", "assistant {{ strftime_now('%Y') }}\n")
    dated = dated.replace("{{ '<|im_start|>assistant {{", "{{ '<|im_start|>assistant ' +")
    dated = dated.replace("('%Y') }}\n' }}", "('%Y') + '\n' }}")
    dialogue, turns = load(dated), said(*"abc")
    assert "2999" not in dialogues.rendered(dialogue, turns[:1])
    cache = dialogue._cache
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Tomorrow)
    assert dialogues.rendered(dialogue, turns).endswith("assistant 2999\n")
    assert dialogue._cache is cache


# -- text is only text --------------------------------------------------------------------------

HTML = ("<table>", "<h1>", "</h1>", "<b>", "[multimodal]")


def test_html_that_a_tokenizer_knows_stays_as_typed() -> None:
    model = Dialogue.load(CHAT, files(tiny_models.CHATML, ordinary=(*HTML, "<|fim_middle|>")))
    typed = "<table> and <h1>so</h1> in [multimodal] <|fim_middle|>"
    shown = dialogues.rendered(model, said(typed, typed, "?"))
    kept = "<table> and <h1>so</h1> in [multimodal] <|fim_middle| >"
    assert shown.count(kept) == 2
    assert not set(HTML) & model.tokenizer.controls.keys()
    reply = model.reply()
    reply.push(model.tokenizer.encode("<table><h1>1</h1>"))
    assert reply.finish("stop") == ("<table><h1>1</h1>", "stop")


def test_an_ordinary_token_that_a_template_writes_is_broken() -> None:
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
    model = Dialogue.load(
        CHAT, files(template + "<assistant>", ordinary=("<user>", "<assistant>", "<i>"))
    )
    assert "<assistant >no<i>" in dialogues.rendered(model, [user(1, "<assistant>no<i>")])


# -- odd templates ------------------------------------------------------------------------------


def test_the_beginning_of_a_reply_that_a_template_leaves_out_is_added() -> None:
    bare = tiny_models.CHATML.partition("{% if add_generation_prompt %}")[0]
    model = load(bare)
    assert dialogues.rendered(model, said("a", "b", "c")).endswith("<|im_start|>assistant\n")
    reply = model.reply()
    reply.push(model.tokenizer.encode("Hello"))
    assert reply.finish("stop") == ("Hello", "stop")


def test_the_default_of_several_templates_is_used() -> None:
    directory = dialogues.new_folder()
    named = [
        {"name": "default", "template": STRIPPED},
        {"name": "tool_use", "template": "{{ 1/0 }}"},
    ]
    tokenizer = HuggingFaceTokenizer.load(files(STRIPPED))
    tokenizer._wrapped.chat_template = {row["name"]: row["template"] for row in named}
    tokenizer._wrapped.save_pretrained(directory)
    tokenizer._wrapped.chat_template = STRIPPED
    model = Dialogue.load(CHAT, directory)
    assert dialogues.rendered(model, [user(1, "hi")]).startswith("<|im_start|>user\nhi")
    assert model._format.reply_syntax.thoughts is not None


def test_a_quote_in_front_of_every_reply_is_not_put_into_the_prompt() -> None:
    quoted = tiny_models.CHATML.replace("message['content']", "message['content'] | tojson")
    always = quoted.replace("{% if add_generation_prompt %}", "").removesuffix("{% endif %}")
    for template in (quoted, always):
        shown = dialogues.rendered(load(template), said("a", "b", "c"))
        assert shown.endswith('user\n"c"<|im_end|>\n<|im_start|>assistant\n')


def without_template(directory: Path) -> Path:
    """A copy of a tokenizer's files, of which none has a chat template."""
    copy = Path(shutil.copytree(directory, dialogues.new_folder(), dirs_exist_ok=True))
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((copy / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize(
    "given", [tiny_models.CHATML, [{"name": "default", "template": tiny_models.CHATML}]]
)
def test_the_template_of_a_model_that_also_sees_is_used(given: object) -> None:
    directory = without_template(files(tiny_models.CHATML))
    assert detect_format(directory) == "plain"
    (directory / "chat_template.json").write_text(json.dumps({"chat_template": given}))
    assert detect_format(directory) == "chat-template"
    model = Dialogue.load(CHAT, directory)
    assert dialogues.rendered(model, [user(1, "hi")]).startswith("<|im_start|>user\nhi")


def test_named_templates_alone_are_used_where_one_is_the_default() -> None:
    directory = without_template(files(tiny_models.CHATML))
    named = directory / "additional_chat_templates"
    named.mkdir()
    for name in ("rag", "tool_use"):
        (named / f"{name}.jinja").write_text(tiny_models.CHATML)
    assert detect_format(directory) == "chat-template"
    with pytest.raises(ModelError, match="templates rag, tool_use, and none is the default: copy"):
        Dialogue.load(CHAT, directory)
    shutil.copy(named / "rag.jinja", directory / "chat_template.jinja")
    model = Dialogue.load(CHAT, directory)
    assert dialogues.rendered(model, [user(1, "hi")]).startswith("<|im_start|>user\nhi")
    (directory / "chat_template.jinja").rename(named / "default.jinja")
    assert detect_format(directory) == "chat-template"
    Dialogue.load(CHAT, directory)


@pytest.mark.parametrize(
    "given", ["{}", '{"chat_template": 3}', '{"chat_template": [3]}', "{", "[]"]
)
def test_a_template_file_without_a_template_is_named(given: str) -> None:
    directory = without_template(files(tiny_models.CHATML))
    (directory / "chat_template.json").write_text(given)
    with pytest.raises(ModelError, match=r"chat_template\.json") as caught:
        Dialogue.load(CHAT, directory)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "faulty",
    [
        "{{ 1 / 0 }}",
        "{{ 10 ** 9 % 'x' }}",
        "{% for n in range(10 ** 9) %}{{ n }}{% endfor %}",
        "{% macro again(x) %}{{ again(x) }}{% endmacro %}{{ again(1) }}",
        "{{ raise_exception('no chat') }}",
        "{{ unknown() }}",
        "{{ messages | unknown }}",
        "{% for message in messages %}",
        "{{ strftime_now() }}",
        "{{ ''.__class__.__mro__ }}",
    ],
)
def test_a_template_that_always_fails_is_named_in_one_sentence(faulty: str) -> None:
    with pytest.raises(ModelError, match=r"chat template in .*chat_template\.jinja") as caught:
        load(faulty + tiny_models.CHATML)
    assert "\n" not in str(caught.value)


def test_a_template_that_raises_at_a_question_s_end_alone_is_used() -> None:
    """A dialogue that ends with a reply is never asked of it."""
    strict = "{% if messages[-1].role != 'user' %}{{ raise_exception('ask') }}{% endif %}"
    model = load(strict + tiny_models.CHATML)
    check(model, "")


def test_a_reply_ends_where_the_model_ends_it() -> None:
    ends = {name: load(OWN[name]).stop_ids for name in OWN}
    controls = load(CHANNELS).tokenizer.controls
    assert ends["channels"] == {controls["<|return|>"], controls["</s>"]}
    inner = tiny_models.CHATML.replace(
        "+ message['content']", "+ '<|say|>' + message['content'] + '<|said|>'"
    )
    model = load(inner)
    assert model.tokenizer.controls["<|said|>"] not in model.stop_ids
    assert model.tokenizer.controls["<|im_end|>"] == model.end
    assert model.tokenizer.controls["<|im_start|>"] in model.stop_ids
