"""The tokenizers: their ids, what of a text may be encoded apart, and the streaming detokenizer."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer as HubTokenizer
from tokenizers import decoders

from core.dialogue.tokenizers.base import Tokenizer
from core.dialogue.tokenizers.detokenizers import WindowDetokenizer, as_table
from core.dialogue.tokenizers.huggingface import HuggingFaceTokenizer
from core.dialogue.tokenizers.sentencepiece import SentencePieceTokenizer
from core.errors import ModelError
from tests import dialogues, tiny_models

KINDS = [kind for kind in dialogues.KINDS if kind not in ("plain", "alternating")]

_HARD = (
    "吾輩は猫である",
    "それは",
    " ",
    "  ",
    "\n",
    "<NL>",
    "<",
    "👨\u200d👩\u200d👧\u200d👦",
    "🇯🇵",
    "👍🏽",
    "გამარჯობა",
    "e\u0301",
    "か\u3099",
    "\u0e01\u0e33",
    "नमस्ते",
    "\ufffd",
    "a",
    "</s>",
    "<0x41>",
    "\u2581",
    "www",
    "1111",
)
texts = st.lists(st.one_of(st.sampled_from(_HARD), st.text(max_size=5)), max_size=10).map("".join)


def tokenizer(kind: str) -> Tokenizer:
    return dialogues.shared(kind).tokenizer


# -- SentencePiece, as rinna's card has it ------------------------------------------------------


def test_every_space_is_kept_and_none_is_added() -> None:
    spaced = "  吾輩は  猫である   "
    pieces = tokenizer("rinna").pieces(tokenizer("rinna").encode(spaced))
    assert "".join(pieces) == spaced.replace(" ", "\u2581")
    assert pieces[:2] == ["\u2581", "\u2581"]


def test_unknown_characters_come_back_through_byte_pieces() -> None:
    text = "გამარჯობა  吾輩は  猫である   "
    ids = tokenizer("rinna").encode(text)
    assert tokenizer("rinna").decode(ids) == text
    assert "[UNK]" not in tokenizer("rinna").pieces(ids)


def test_the_first_ids_are_rinna_s() -> None:
    controls = tokenizer("rinna").controls
    assert {**controls, "[UNK]": 1} == tiny_models.RINNA_CONTROLS
    assert tokenizer("rinna").pieces([7, 262]) == ["<0x00>", "<0xFF>"]


def test_a_typed_control_token_is_text() -> None:
    for control in tiny_models.RINNA_CONTROLS:
        ids = tokenizer("rinna").encode(f"あ{control}い")
        assert min(ids) > 6
        assert tokenizer("rinna").decode(ids) == f"あ{control}い"


# -- where a text may be cut --------------------------------------------------------------------


def test_no_piece_spans_the_place_where_a_text_may_be_cut() -> None:
    spm = tokenizer("rinna")
    assert spm.cut is not None
    (place,) = [found.start() for found in spm.cut.finditer("ます。<NL>ユーザー: <b>")]
    pair = "ます。<NL>ユーザー"[place - 1 : place + 1]
    assert pair == "<N"
    assert not any(pair in piece for piece in spm.pieces(range(263, spm.size)))


def test_a_vocabulary_with_a_piece_across_is_cut_elsewhere_or_nowhere() -> None:
    spaced = SentencePieceTokenizer(tiny_models.spiece(dummy_prefix=True), 2048)
    spaced.cut_inside("<NL>")
    assert spaced.cut is None  # each part would get a space of its own
    spm = SentencePieceTokenizer(tiny_models.spiece(), 2048)
    spm.cut_inside("></s>")
    assert spm.cut is not None
    found = spm.cut.search("></s>")
    assert found is not None
    assert found.start() == len("></")  # there are pieces `><` and `</`


def test_a_tie_between_two_ways_is_not_settled() -> None:
    spm = dialogues.shared("rinna").tokenizer
    tied = next(
        text
        for character in "w01-ー。"
        for length in range(2, 9)
        if not spm.is_context_free(text := character * length)
    )
    assert not spm.is_context_free(f"ユーザー: {tied}<")
    assert spm.is_context_free("ユーザー: 吾輩は猫である<")


def test_rounding_alone_decides_between_ways_that_tie() -> None:
    """`is_context_free` exists for this: the same text, behind others, is split in another way."""
    spm = dialogues.shared("rinna").tokenizer
    tied = [c * n for c in "w01-ー。" for n in range(3, 40) if not spm.is_context_free(c * n)]
    alone = {text: spm.encode(f"NL>{text}") for text in tied}
    behind = (("吾輩は猫である。ww" * length) + "<" for length in range(0, 400, 7))
    differs = (
        text
        for before, text in itertools.product(behind, tied)
        if spm.encode(f"{before}NL>{text}")[-len(alone[text]) :] != alone[text]
    )
    assert next(differs, None) is not None


@given(left=texts, right=texts)
def test_parts_that_are_settled_have_the_ids_of_the_whole(left: str, right: str) -> None:
    spm = tokenizer("rinna")
    before, after = f"ユーザー: {left}<", f"NL>システム: {right}"
    if spm.is_context_free(before) and spm.is_context_free(after):
        assert spm.encode(before + after) == spm.encode(before) + spm.encode(after)


@pytest.mark.parametrize("kind", ["chatml", "chatml-spaces", "chatml-unigram"])
@given(left=texts, right=texts)
def test_a_control_token_divides_a_text(kind: str, left: str, right: str) -> None:
    hub = tokenizer(kind)
    before, after = f"<s>{left}", f"<|im_start|>{right}"
    assert hub.encode(before + after) == hub.encode(before) + hub.encode(after)


# -- the streaming detokenizer ------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts)
def test_the_pieces_joined_are_the_whole_decode(kind: str, text: str) -> None:
    ids = tokenizer(kind).encode(text)
    stream = tokenizer(kind).detokenizer()
    pieces = [stream.push([ident]) for ident in ids]
    assert "".join(pieces) + stream.finish() == tokenizer(kind).decode(ids)


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts.filter(lambda text: "\ufffd" not in text))
def test_no_piece_has_a_broken_character(kind: str, text: str) -> None:
    stream = tokenizer(kind).detokenizer()
    for ident in tokenizer(kind).encode(text):
        assert "\ufffd" not in stream.push([ident])


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts.filter(lambda text: "\ufffd" not in text))
def test_the_stream_is_no_more_than_a_character_behind(kind: str, text: str) -> None:
    ids = tokenizer(kind).encode(text)
    stream = tokenizer(kind).detokenizer()
    controls = set(tokenizer(kind).controls.values())  # they say nothing
    pieces = [stream.push([ident]) for ident in ids if ident not in controls]
    silent = [len(list(run)) for said, run in itertools.groupby(pieces, bool) if not said]
    # at most the first three bytes of a character, behind a space that is not shown
    assert max(silent, default=0) <= 4


@pytest.mark.parametrize("dummy_prefix", [False, True])
@given(ids=st.lists(st.integers(0, 419), max_size=30))
@example(ids=[39])  # the byte of a space
@example(ids=[1])  # the unknown piece
@example(ids=[39, 263, 263])
def test_any_ids_at_all_decode_as_sentencepiece_decodes_them(
    ids: list[int], dummy_prefix: bool
) -> None:
    spm = SentencePieceTokenizer(tiny_models.spiece(dummy_prefix=dummy_prefix), 2048)
    ids = [
        ident for ident in ids if ident not in spm.controls.values()
    ]  # one may split a character
    stream = spm.detokenizer()
    assert "".join(stream.push([ident]) for ident in ids) + stream.finish() == spm.decode(ids)


@given(ids=st.lists(st.integers(0, 499), max_size=30))
def test_any_ids_at_all_decode_as_the_library_decodes_them(ids: list[int]) -> None:
    hub = tokenizer("chatml")
    stream = hub.detokenizer()
    assert "".join(stream.push([ident]) for ident in ids) + stream.finish() == hub.decode(ids)


@pytest.mark.parametrize("kind", ["chatml-spaces", "chatml-unigram"])
@given(ids=st.lists(st.integers(5, 599), max_size=30))
@example(ids=[250])  # of the unigram model, the byte of a space
def test_bytes_that_are_no_character_do_not_stop_a_stream(kind: str, ids: list[int]) -> None:
    hub = tokenizer(kind)
    stream = hub.detokenizer()
    text = "".join(stream.push([ident]) for ident in ids) + stream.finish()
    if "\ufffd" not in text:  # the library makes a whole run of bytes unknown if one of them is
        assert text == hub.decode(ids)


def test_a_leading_space_is_kept_after_other_text() -> None:
    padding = SentencePieceTokenizer(tiny_models.spiece(dummy_prefix=True), 2048)
    spaced = [tokenizer("chatml-spaces"), tokenizer("chatml-unigram"), padding]
    for each in spaced:
        ids = each.encode("hello")
        assert each.detokenizer().push(ids) == "hello"
        assert each.detokenizer(inside=True).push(ids) == " hello"


# The window takes a replacement character in the text itself for half of one.
@given(text=texts.filter(lambda text: "\ufffd" not in text))
@example(text="猫</s>猫")
def test_a_decoder_that_is_no_table_is_streamed_through_a_window(text: str) -> None:
    for kind in ("chatml", "chatml-spaces"):
        hub = tokenizer(kind)
        ids = hub.encode(text)
        stream = WindowDetokenizer(hub.decode, ())
        pieces = [stream.push([ident]) for ident in ids]
        assert "".join(pieces) + stream.finish() == hub.decode(ids)
        if "\ufffd" not in text:
            assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize(
    "decoder",
    [
        None,
        decoders.WordPiece(),
        decoders.Strip(" ", 0, 1),
        decoders.Sequence([decoders.Strip(" ", 1, 0)]),  # of every piece
        decoders.CTC(),
    ],
)
def test_a_decoder_that_looks_around_is_no_table(decoder: decoders.Decoder | None) -> None:
    hub = HubTokenizer.from_str(tiny_models.bpe())
    if decoder is not None:
        hub.decoder = decoder
    written = json.loads(hub.to_str())["decoder"] if decoder is not None else None
    assert as_table(written) is None


# -- files that cannot be loaded ----------------------------------------------------------------


def test_a_broken_sentencepiece_model_is_named(tmp_path: Path) -> None:
    directory = tmp_path
    with pytest.raises(ModelError, match=r"spiece\.model is missing"):
        SentencePieceTokenizer.load(directory, 2048)
    (directory / "spiece.model").write_bytes(tiny_models.spiece()[:1000])
    with pytest.raises(ModelError, match=r"spiece\.model is not a SentencePiece model"):
        SentencePieceTokenizer.load(directory, 2048)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("tokenizer.json", '{"version": "1.0", ', "cannot be read as JSON"),
        ("tokenizer.json", "[]", "does not hold a JSON object"),
        ("tokenizer.json", "{}", "cannot be loaded"),
        ("tokenizer.json", "[" * 100_000, "cannot be read as JSON"),
        ("special_tokens_map.json", "[" * 100_000, "cannot be loaded"),
        ("tokenizer.json", None, "is missing"),
        ("tokenizer_config.json", "{", "cannot be read as JSON"),
        (
            "tokenizer_config.json",
            '{"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", null]}}',
            "contains custom code",
        ),
    ],
)
def test_a_broken_tokenizer_is_named_in_one_sentence(
    tmp_path: Path, name: str, content: str | None, complaint: str
) -> None:
    directory = tiny_models.tokenizer_files(tmp_path)
    if content is None:
        (directory / name).unlink()
    else:
        (directory / name).write_text(content)
    with pytest.raises(ModelError, match=complaint) as caught:
        HuggingFaceTokenizer.load(directory)
    where = directory if "load" in complaint or "code" in complaint else directory / name
    assert str(where) in str(caught.value)
    assert "\n" not in str(caught.value)
