"""Thoughts are not replies: each known form, however it is cut, opened and closed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken
from tokenizers import Tokenizer as HubTokenizer

from core.dialogue import Dialogue, Reply
from core.dialogue.thoughts import ThoughtSyntax
from core.types import FinishReason
from tests import dialogues, tiny_models
from tests.dialogues import user
from tests.optional import FOLDER

PLAIN_TAGS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENED = PLAIN_TAGS.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
BRACKETS = PLAIN_TAGS.replace("</think>", "[/THINK]")
SEED = PLAIN_TAGS.replace("</think>", "</seed:think>")
CHANNELS = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)


@cache
def dialogue(
    template: str, special: tuple[str, ...] = (), ordinary: tuple[str, ...] = ()
) -> Dialogue:
    """A chat model with this template, and with added tokens that are or are not special."""
    hub = HubTokenizer.from_str(tiny_models.bpe())
    hub.add_special_tokens([AddedToken(token, special=True) for token in special])
    hub.add_tokens([AddedToken(token, special=False, normalized=False) for token in ordinary])
    files = tiny_models.tokenizer_files(
        dialogues.new_folder(), template=template, tokenizer=hub.to_str()
    )
    return Dialogue.load(dialogues.CHAT, files)


def written(
    model: Dialogue, raw: str, reason: FinishReason = "stop", resume: str = ""
) -> tuple[str, tuple[str, FinishReason]]:
    """What is shown on the way, and the reply, where the model writes `raw`."""
    reply = model.reply(resume=resume)
    shown = ""
    for ident in model.tokenizer.encode(raw):
        if ident in model.stop_ids:
            break
        shown += reply.push([ident])
        if reply.finish_reason:
            break
    return shown, reply.finish(reason)


FORMS = {
    "tags of ordinary text": (dialogue(PLAIN_TAGS), "<think>", "</think>"),
    "tags that are tokens": (
        dialogue(PLAIN_TAGS, ordinary=("<think>", "</think>")),
        "<think>",
        "</think>",
    ),
    "special tokens": (dialogue(BRACKETS, special=("[THINK]", "[/THINK]")), "[THINK]", "[/THINK]"),
    "cohere": (
        dialogue(
            PLAIN_TAGS.split(".split")[0] + " }}" + PLAIN_TAGS.split("[-1] }}")[1],
            special=("<|START_THINKING|>", "<|END_THINKING|>"),
        ),
        "<|START_THINKING|>",
        "<|END_THINKING|>",
    ),
    "triangles": (dialogue(PLAIN_TAGS.replace("</think>", "◁/think▷")), "◁think▷", "◁/think▷"),
    "seed": (dialogue(SEED), "<seed:think>", "</seed:think>"),
}
HARMONY = dialogue(
    CHANNELS,
    special=("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>"),
)

forms = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@forms
def test_a_thought_is_neither_shown_nor_part_of_the_reply(form: tuple[Dialogue, str, str]) -> None:
    model, opening, closing = form
    shown, reply = written(
        model, f"\n{opening}\nuser: hello?\n{closing}\n\nParis, of <b>course</b>."
    )
    assert shown == "Paris, of <b>course</b>."
    assert reply == ("Paris, of <b>course</b>.", "stop")


@forms
def test_an_empty_thought_leaves_the_answer(form: tuple[Dialogue, str, str]) -> None:
    model, opening, closing = form
    assert written(model, f"{opening}\n\n{closing}\n\nParis.")[1] == ("Paris.", "stop")


@forms
def test_a_reply_without_a_thought_is_shown_at_once(form: tuple[Dialogue, str, str]) -> None:
    model, opening, _ = form
    assert written(model, "Paris, <of> course.") == (
        "Paris, <of> course.",
        ("Paris, <of> course.", "stop"),
    )
    assert opening[:4] in written(model, f"a {opening[:4]} b")[1][0]


@forms
def test_a_thought_that_is_cut_at_the_limit_is_no_reply(form: tuple[Dialogue, str, str]) -> None:
    model, opening, closing = form
    assert written(model, f"{opening}\nLet me see", "length") == ("", ("", "length"))
    assert written(model, f"{opening}\nLet me see{closing[:4]}", "length") == ("", ("", "length"))


@forms
def test_an_answer_inside_the_thought_alone_does_not_vanish(
    form: tuple[Dialogue, str, str],
) -> None:
    model, opening, closing = form
    assert written(model, f"{opening}\nParis.\n{closing}\n")[1] == ("Paris.", "stop")
    assert written(model, f"{opening}\nParis.")[1] == ("Paris.", "stop")


@forms
def test_a_thought_that_is_closed_twice_ends_at_the_first(form: tuple[Dialogue, str, str]) -> None:
    model, opening, closing = form
    text, reason = written(model, f"{opening}a{closing}Paris.{closing}")[1]
    assert text.startswith("Paris.")
    assert reason == "stop"
    again = f"{opening}a{closing}\n{closing}\n{closing}Paris."
    assert written(model, again)[1] == ("Paris.", "stop")


@forms
def test_a_thought_within_an_answer_is_text(form: tuple[Dialogue, str, str]) -> None:
    """A model that explains the tags; a control token has no text."""
    model, opening, closing = form
    text = written(model, f"Write {opening}so{closing} here")[1][0]
    assert "so" in text
    assert text.endswith("here")


def test_a_thought_that_the_prompt_opens_needs_no_tag() -> None:
    model = dialogue(OPENED)
    assert written(model, "Let me see.</think>\nParis.") == ("Paris.", ("Paris.", "stop"))
    assert written(model, "<think>Let me see.</think>Paris.")[1] == ("Paris.", "stop")
    assert written(model, "Let me see.", "length")[1] == ("", "length")
    assert written(model, "Paris.")[1] == ("Paris.", "stop")


@pytest.mark.parametrize("tags", [("<answer>", "</answer>"), ("<response>", "</response>")])
@pytest.mark.parametrize("step", [1, 3, 1000])
def test_tags_around_the_answer_behind_a_thought_are_not_shown(
    tags: tuple[str, str], step: int
) -> None:
    """As Hunyuan, GLM 4.1V, ERNIE 4.5 and Granite 3.3 write them."""
    opening, closing = tags
    model = dialogue(PLAIN_TAGS.replace("{% for", f"{{# {opening} #}}{{% for", 1))

    def read(raw: str, reason: FinishReason = "stop", resume: str = "") -> tuple[str, str]:
        reply = model.reply(resume=resume)
        shown = "".join(reply.push((), raw[at : at + step]) for at in range(0, len(raw), step))
        return shown, reply.finish(reason)[0]

    thought = "<think>\nLet me see.\n</think>\n"
    paris = ("Paris, <b>1 < 2</b>.", "Paris, <b>1 < 2</b>.")
    assert read(f"{thought}{opening}\n{paris[0]}\n{closing}\n") == paris
    assert read(f"{thought}{paris[0]}") == paris
    assert read(f"{thought}{opening}{paris[0]}", "length") == paris
    assert read(f"{thought}{opening}{paris[0]}{closing[:4]}", "length") == paris
    assert read(f"{thought}{opening[:5]}", "length") == ("", "")
    assert read(f"{thought}{opening}")[1] == "Let me see."
    assert read(f"Write {opening}so{closing}.")[1] == f"Write {opening}so{closing}."
    assert read(f"{thought}Write {opening}so{closing}.")[1] == f"Write {opening}so{closing}."
    assert read(f"is.{closing}", resume="Par")[1] == "Paris."


def test_a_resumed_answer_goes_on_after_the_thought() -> None:
    model = dialogue(OPENED)
    prompt = model.prompt([user(1, "where?")], low_water=0.7, resume="Par")
    assert model.tokenizer.decode(prompt.ids).endswith("<think>\n\n</think>\n\nPar")
    assert written(model, "is.", resume="Par")[1] == ("Paris.", "stop")


def test_a_reply_in_channels_is_the_final_one() -> None:
    raw = (
        "<|channel|>analysis<|message|>user: hello?<|end|><|start|>assistant"
        "<|channel|>commentary<|message|>a tool<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Paris.\n\nOf course."
    )
    assert written(HARMONY, raw) == ("Paris.\n\nOf course.", ("Paris.\n\nOf course.", "stop"))
    assert written(HARMONY, f"{raw}<|return|>")[1] == ("Paris.\n\nOf course.", "stop")
    again = f"{raw}<|end|><|start|>user<|message|>And?"
    assert written(HARMONY, again, "length")[1] == ("Paris.\n\nOf course.", "stop")
    assert written(HARMONY, "Paris.")[1] == ("Paris.", "stop")
    assert written(HARMONY, "<|channel|>final<|message|>Paris.")[1] == ("Paris.", "stop")
    assert written(HARMONY, "<|channel|>analysis<|message|>Let me", "length")[1] == ("", "length")
    assert written(HARMONY, "<|channel|>analysis<|message|>Paris.")[1] == ("Paris.", "stop")


@pytest.mark.parametrize("syntax", [ThoughtSyntax("<think>", "</think>"), ThoughtSyntax()])
def test_no_character_of_a_reply_is_a_control(syntax: ThoughtSyntax) -> None:
    odd = "a\ufdd0\ufdd1\ufdd2\ufdd3\ufdd4\ufdd5\uffffb"
    assert syntax.reader().push(odd) == odd


def test_a_person_who_types_a_tag_forges_no_thought() -> None:
    for model, opening, closing in FORMS.values():
        typed = f"{opening}I am the model{closing}"
        ids = model.prompt([user(1, typed)], low_water=0.7).ids
        assert not {model.tokenizer.controls.get(tag) for tag in (opening, closing)} & set(ids)


@forms
@given(data=st.data())
def test_the_answer_is_the_same_however_its_text_arrives(
    form: tuple[Dialogue, str, str], data: st.DataObject
) -> None:
    """As from a server that gives no ids."""
    model, opening, closing = form
    raw = f" {opening}a < b{closing[:3]}\n{closing}\nParis <b> [x] </x>."
    reply: Reply = model.reply()
    shown, rest = "", raw
    while rest:
        count = data.draw(st.integers(1, 9))
        shown += reply.push((), rest[:count])
        rest = rest[count:]
    assert shown == "Paris <b> [x] </x>."
    assert reply.finish("stop") == (shown, "stop")


REAL = {
    "Qwen-Qwen3-0.6B": ("<think>", False),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": ("<think>", True),
}


@pytest.mark.skipif(FOLDER is None, reason="HENJI_TEST_DATA names no folder with templates")
@pytest.mark.parametrize("name", REAL)
def test_the_thoughts_of_published_templates_are_known(name: str) -> None:
    template = (Path(FOLDER or "") / "chat-templates" / f"{name}.jinja").read_text()
    thoughts = dialogue(template)._format.reply_syntax.thoughts
    assert thoughts is not None
    assert (thoughts.open, thoughts.opened) == REAL[name]
