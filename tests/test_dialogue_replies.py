"""A reply while it is generated: its shown text, and its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.dialogue import Dialogue, Reply
from core.models.catalogue import CATALOGUE
from tests import dialogues, tiny_models
from tests.dialogues import user
from tests.optional import needs_answers, published_answers


def written(kind: str, raw: str, *, resume: str = "") -> tuple[Reply, list[str]]:
    """A reply for which the model wrote `raw`, with the text shown at each token."""
    dialogue = dialogues.shared(kind)
    reply = dialogue.reply(resume=resume)
    return reply, [reply.push([ident]) for ident in dialogue.tokenizer.encode(raw)]


# -- line ends and speakers ---------------------------------------------------------------------


def test_a_line_end_is_shown_as_one_and_never_as_half_of_its_mark() -> None:
    reply, shown = written("rinna", "はい。<NL>それは<NL><NL>猫です。")
    assert "".join(shown) == "はい。\nそれは\n\n猫です。"
    assert not any("<" in piece or "N" in piece for piece in shown)
    assert reply.finish("stop") == ("はい。\nそれは\n\n猫です。", "stop")


def test_text_that_only_begins_like_a_line_end_is_shown() -> None:
    reply, shown = written("rinna", "1 < 2、<b>と<NA>と<N")
    assert "".join(shown) == "1 < 2、<b>と<NA>と"
    assert reply.finish("stop") == ("1 < 2、<b>と<NA>と<N", "stop")


def test_half_a_line_end_at_the_reply_s_length_is_left_out() -> None:
    reply, _ = written("rinna", "はい。<N")
    assert reply.finish("length") == ("はい。", "length")


@pytest.mark.parametrize("label", ["ユーザー:", "システム:", " ユーザー :", "ユーザー: はい"])
def test_the_next_speaker_s_line_ends_a_reply_and_is_never_shown(label: str) -> None:
    reply, shown = written("rinna", f"はい。<NL>{label}それは")
    assert "".join(shown) == "はい。"
    assert reply.finish_reason == "stop"
    assert reply.finish("length") == ("はい。", "stop")


def test_a_line_that_only_begins_like_a_speaker_s_is_shown() -> None:
    text = "はい。\nユーザーの猫\nシステムは\n: これ ユーザー: です"
    reply, shown = written("rinna", text.replace("\n", "<NL>"))
    assert "".join(shown) == text
    assert reply.finish_reason is None


def test_a_reply_may_end_within_a_possible_speaker_label() -> None:
    reply, shown = written("rinna", "はい。<NL>ユーザー")
    assert "".join(shown) == "はい。"
    assert reply.finish("stop") == ("はい。\nユーザー", "stop")
    reply, _ = written("rinna", "はい。<NL>ユーザー")
    assert reply.finish("length") == ("はい。", "length")


def test_a_mark_that_is_no_token_ends_a_reply_of_a_chat_template() -> None:
    template = (
        "{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ 'USER: ' + message['content'] }}{% else %}{{ '\nBOT: ' + message['content'] + '\n' }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '\nBOT:' }}{% endif %}"
    )
    dialogue = Dialogue.load(dialogues.CHAT, dialogues.chat_files(template))
    reply = dialogue.reply()
    shown = [reply.push([ident]) for ident in dialogue.tokenizer.encode(" Hello US.\nUSER: hi")]
    assert "".join(shown) == "Hello US."
    assert reply.finish("length") == ("Hello US.", "stop")
    typed = dialogues.rendered(dialogue, [user(1, "BOT: yes\nUSER: no")])
    assert typed == "USER: BOT : yes\nUSER : no\nBOT:"


@pytest.mark.parametrize(
    ("template", "run_on"),
    [
        (tiny_models.LLAMA_2, "[INST] And?"),
        (tiny_models.LLM_JP, "\n\n### 指示:\nx"),
        (tiny_models.LLM_JP, "\n### 応答:\nx"),
        (tiny_models.ZEPHYR, "<|user|>\nx"),
        (tiny_models.UNREGISTERED, "<|end|>"),
    ],
)
def test_a_model_that_runs_on_past_its_turn_is_ended_there(template: str, run_on: str) -> None:
    dialogue = Dialogue.load(dialogues.CHAT, dialogues.chat_files(template))
    reply = dialogue.reply()
    ids = dialogue.tokenizer.encode(f"はい。\n### 次 [1]{run_on}")
    shown = [reply.push([ident]) for ident in ids]
    assert "".join(shown) == "はい。\n### 次 [1]"
    assert reply.finish("length") == ("はい。\n### 次 [1]", "stop")


def test_control_tokens_end_a_reply_and_are_not_shown() -> None:
    chat = dialogues.shared("chatml")
    assert chat.stop_ids == {chat.tokenizer.controls["<|im_end|>"]} | {
        chat.tokenizer.controls["<|im_start|>"]
    }
    assert dialogues.shared("rinna").stop_ids == {3}
    reply = chat.reply()
    assert reply.push([*chat.tokenizer.encode("Hi"), chat.tokenizer.controls["<unk>"]]) == "Hi"


# -- characters, spaces, tokens -----------------------------------------------------------------


def test_half_a_character_at_the_end_is_left_out() -> None:
    dialogue = dialogues.shared("rinna")
    reply = dialogue.reply()
    shown = reply.push(dialogue.tokenizer.encode("はい👍")[:-2])
    assert shown == "はい"
    assert reply.finish("length") == ("はい", "length")


def test_space_around_a_reply_is_no_part_of_it() -> None:
    reply, shown = written("chatml", "\n Hello  there \n\n")
    assert "".join(shown) == "Hello  there"
    assert reply.finish("stop") == ("Hello  there", "stop")


def test_a_continuation_keeps_its_spaces() -> None:
    reply, shown = written("plain", " 吾輩は ")
    assert "".join(shown) == " 吾輩は "
    assert reply.finish("stop") == (" 吾輩は ", "stop")


def test_tokens_are_counted() -> None:
    reply, shown = written("rinna", "吾輩は猫である")
    assert reply.tokens == len(shown)


def test_text_from_a_server_without_ids_is_read_the_same_way() -> None:
    reply = dialogues.shared("rinna").reply()
    pieces = [reply.push((), text) for text in ("はい", "<N", "L>猫<NL>ユ", "ーザー", ": x")]
    assert pieces == ["はい", "", "\n猫", "", ""]
    assert reply.finish("length") == ("はい\n猫", "stop")


@pytest.mark.parametrize("kind", dialogues.KINDS)
@given(
    raw=st.lists(
        st.sampled_from(
            ["猫", "<NL>", "<", "N", " ", "\n", "ユーザー", ":", "👨\u200d👩", "[INST]"]
        )
    ).map("".join),
    steps=st.data(),
)
def test_the_shown_text_is_the_beginning_of_the_reply_in_any_pieces(
    kind: str, raw: str, steps: st.DataObject
) -> None:
    dialogue = dialogues.shared(kind)
    ids = dialogue.tokenizer.encode(raw)
    alone, together, shown = dialogue.reply(), dialogue.reply(), ""
    while ids:
        taken = steps.draw(st.integers(1, len(ids)))
        shown += alone.push(ids[:taken])
        ids = ids[taken:]
    together.push(dialogue.tokenizer.encode(raw))
    text, reason = alone.finish("stop")
    assert text.startswith(shown)
    assert len(text.rstrip()) - len(shown.rstrip()) <= 8
    assert (text, reason) == together.finish("stop")


# -- going on -----------------------------------------------------------------------------------


def test_a_resumed_reply_is_complete_at_the_end() -> None:
    reply, shown = written("rinna", "です。<NL>はい。", resume="吾輩は\n猫")
    assert "".join(shown) == "です。\nはい。"
    assert reply.finish("stop") == ("吾輩は\n猫です。\nはい。", "stop")


@pytest.mark.parametrize("kind", dialogues.KINDS)
def test_a_reply_goes_on_where_it_stopped_wherever_that_was(kind: str) -> None:
    """Where it stopped before a space, the space is not lost."""
    dialogue = dialogues.shared(kind)
    ids = dialogue.tokenizer.encode("The capital of 日本 is Tokyo")
    places = 0
    for stopped in range(1, len(ids)):
        cut = dialogue.reply()
        if cut.push(ids[:stopped]) != dialogue.tokenizer.decode(ids[:stopped]):
            continue  # within a character, or behind a space that is not shown yet
        resumed = dialogue.reply(resume=cut.finish("length")[0])
        resumed.push(ids[stopped:])
        assert resumed.finish("stop") == ("The capital of 日本 is Tokyo", "stop")
        places += 1
    assert places >= 5


def test_a_resumed_reply_that_stops_at_once_is_unchanged() -> None:
    reply, _ = written("rinna", "", resume="吾輩は猫")
    assert reply.finish("stop") == ("吾輩は猫", "stop")


# -- loops --------------------------------------------------------------------------------------


@cache
def guarded() -> Dialogue:
    """The echo model's dialogue, with the loop guard on."""
    echo = dialogues.shared("echo")
    return echo.with_spec(replace(echo.spec, loop_guard=True), None)


def until_ended(text: str) -> tuple[Reply, int]:
    """A reply for which the model writes `text`, until it is ended, and how much that took."""
    reply = guarded().reply()
    for count, character in enumerate(text, 1):
        reply.push([ord(character)])
        if reply.finish_reason:
            return reply, count
    return reply, len(text)


SENTENCE = "平均降雪量は、平均降雪量の1%未満になることがあります。"


def test_a_repeated_sentence_ends_the_reply_after_its_first_round() -> None:
    reply, count = until_ended("雪の話をします。" + SENTENCE * 40)
    assert count < 8 + 8 * len(SENTENCE)
    assert reply.finish("length") == ("雪の話をします。" + SENTENCE, "repetition")


def test_a_line_of_dashes_without_end_is_cut() -> None:
    reply, count = until_ended("敬具、 " + "-" * 2000)
    assert count < 250
    assert reply.finish("length") == ("敬具、 -", "repetition")


def test_a_pattern_with_a_changing_number_ends_the_reply() -> None:
    lines = [f"平均降雪量は、平均降雪量の{n % 7}%以上になることがあります。" for n in range(60)]
    reply, count = until_ended("".join(lines))
    assert count < 800
    text, reason = reply.finish("length")
    assert reason == "repetition"
    assert text == lines[0]


def test_a_long_paragraph_that_comes_back_ends_the_reply() -> None:
    paragraph = "".join(f"第{n}に、目標を設定して進捗を確認します。" for n in range(6))
    reply, _ = until_ended(paragraph * 10)
    assert reply.finish("length") == (paragraph, "repetition")


@pytest.mark.parametrize(
    "text",
    [
        "はい、" * 12 + "分かりました。",
        "見出し\n" + "-" * 100 + "\n本文",
        "".join(f"{n}. 項目その{n}\n" for n in range(1, 40)),
        "10000000000000000000000000000000000000000000000000000 です",
        "".join(f"| 名前{n} | {n * 37 % 11} | はい |\n" for n in range(12)),
        "    return None\n\n\ndef f(x: int) -> int:\n" * 2,
    ],
)
def test_a_little_repetition_does_not_end_a_reply(text: str) -> None:
    assert until_ended(text)[0].finish_reason is None


def test_a_loop_is_noticed_across_a_continuation() -> None:
    reply = guarded().reply(resume=SENTENCE * 4)
    reply.push([ord(character) for character in SENTENCE * 2])
    assert reply.finish("length") == (SENTENCE, "repetition")


def test_the_guard_is_on_for_rinna_s_models_alone_unless_it_is_set() -> None:
    assert CATALOGUE["rinna-ppo"].loop_guard
    reply = dialogues.shared("chatml").reply()
    reply.push((), SENTENCE * 100)
    assert reply.finish("length") == (SENTENCE * 100, "length")


ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")
GIFTS = ("a partridge", "two doves", "three hens", "four birds", "five rings", "six geese",
         "seven swans", "eight maids", "nine ladies")  # fmt: skip


def structured() -> Iterator[str]:
    """Texts that repeat themselves, as people want them to."""
    for size in range(4, 24):
        empty = "|" + "   |" * (size % 6 + 2)
        yield f"| a | b |\n|---|---|\n{chr(10).join([empty] * size)}\n"
        yield "\n".join("+---" * 8 + "+\n" + "|   " * 8 + "|" for _ in range(size)) + "\n"
        yield "\n".join(f"https://example.org/a/long/path/to/page/{n}" for n in range(size))
        yield "\n".join(f"{n:08x}  " + "00 " * 16 + " |................|" for n in range(size))
        yield "workers:\n" + "".join(
            f"  - name: worker-{n}\n    image: app:latest\n    replicas: 1\n" for n in range(size)
        )
        yield "\n".join(" ".join(["0"] * size) for _ in range(size))
        yield "\n".join(["I will not talk during class again."] * size)
        yield "^" + r"(?:[a-z0-9]{1,3}[-_.])" * size + "$"
        yield "```python\n" + "    x = x + 1\n" * size * 4 + "```\n"
        yield "- [ ] write the report\n" * size
        yield "<ul>" + "<li>Item</li>" * size * 3 + "</ul>"
        yield "東京\t大阪\t東京\n" * size * 3
        yield "".join(
            f"On the {ORDINALS[day]} day of Christmas my true love gave to me "
            f"{', '.join(reversed(GIFTS[: day + 1]))} in a pear tree. "
            for day in range(min(size, 9))
        )
        yield "".join(f"{n}. 目標を設定し、進捗を確認します。\n" for n in range(size * 2))


def test_structured_texts_are_left_alone() -> None:
    texts = list(structured())
    assert len(texts) >= 200
    assert [text for text in texts if until_ended(text)[0].finish_reason] == []


@needs_answers
def test_two_of_the_160_published_answers_are_loops() -> None:
    answers = [
        json.loads(line)
        for name in ("ppo", "sft-v2")
        for line in (published_answers() / f"answers-{name}.jsonl").read_text().splitlines()
    ]
    assert len(answers) == 160
    texts = {
        (n, one["question_id"]): one["choices"][0]["turns"][0] for n, one in enumerate(answers)
    }
    cut = [question for (_, question), text in texts.items() if until_ended(text)[0].finish_reason]
    assert cut == [47, 75]
