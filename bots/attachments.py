"""Files of a message: which are read, how they are decoded, and their text in a turn.

The text of a file is a part of the person's turn, below their words, in a fence that its lines
cannot close. Images and other files are only named there.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from core.types import BETWEEN_FILES, Turn, TurnFile

Kind: TypeAlias = Literal["text", "unsure", "image", "link", "other"]
"""``unsure``: neither name nor type shows whether it is text, so the content decides. ``link``: a
linked message, handled like a file. It is read only if that leaks nothing."""

MOST_BYTES = 256 * 1024
"""Of all files of one message together."""
MOST_FILES = 10
"""The most files of a message that are read. A message with more text files is refused."""
MOST_NAMED = 25
MOST_IN_SENTENCE = 3
NAME_LENGTH = 80
NOTE = "secret_files"
"""In a delivery's note: the files that are still to be read. Anyone with an address may be able to
open the file, so the store drops it when the delivery is closed."""
QUOTED = "secret_quoted"
"""The same for the quoted message, after its id."""


def _endings(words: str) -> frozenset[str]:
    return frozenset(words.split())


TEXT_ENDINGS = _endings(
    "txt text md markdown rst adoc org tex log out err diff patch csv tsv json jsonl ndjson json5 "
    "yaml yml toml ini cfg conf properties env xml html htm xhtml css scss less svg sql graphql "
    "proto py pyi ipynb rb pl pm php js mjs cjs jsx ts tsx vue java kt kts scala groovy gradle c h "
    "cc cpp cxx hpp hh cs fs go rs swift m mm lua r jl hs ml ex exs erl clj lisp el vim sh bash "
    "zsh fish ps1 bat cmd tf hcl cmake mk dockerfile makefile lock eml ics vcf srt vtt po strings "
    "plist"
)
IMAGE_ENDINGS = _endings("png jpg jpeg gif webp bmp tif tiff heic heif avif ico")
OTHER_ENDINGS = _endings(
    "pdf doc docx xls xlsx ppt pptx odt ods odp pages numbers key epub zip gz tgz bz2 xz 7z rar "
    "tar zst jar war whl exe dll so dylib bin iso img dmg apk deb rpm mp3 wav ogg flac m4a aac mp4 "
    "mov avi mkv webm mpg psd ai sketch fig ttf otf woff woff2 sqlite db parquet npy npz pt onnx "
    "safetensors pyc class o a wasm"
)
TEXT_TYPES = re.compile(
    r"text/|application/(?:[\w.+-]+\+)?(?:json|xml|yaml|toml|sql|javascript|x-sh|x-ndjson)\b"
)


@dataclass(frozen=True, slots=True)
class File:
    """A file of a message, before it is read."""

    name: str
    """Cleaned by `clean_name`."""
    kind: Kind
    size: int = 0
    """Bytes, by the platform; 0: unknown."""
    address: str = ""
    """Its address on the platform."""

    @property
    def source(self) -> str:
        """Identifies the file, whatever signature its address has."""
        named = path_of(self.address) or self.name
        return sha256(named.encode(errors="replace")).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file with its text; None: it is only named."""

    file: File
    text: str | None = None


class Unreadable(Exception):
    """A file that cannot be read: `code` names the sentence, `name` the file."""

    def __init__(self, code: str, name: str) -> None:
        super().__init__(code)
        self.code, self.name = code, name


# -- names and kinds ----------------------------------------------------------------------------


def clean_name(name: str) -> str:
    """A file's name on one line, without control characters and markup: at most NAME_LENGTH
    characters, with its ending."""
    seen = "".join(" " if _is_unseen(c) or c in "`<>[]【】︻︼" else c for c in name)
    seen = " ".join(seen.split()) or "file"
    if len(seen) <= NAME_LENGTH:
        return seen
    return f"{seen[: NAME_LENGTH - 17]}…{seen[-16:]}"


def _is_unseen(character: str) -> bool:
    return unicodedata.category(character)[0] in "CZ"


def path_of(address: str) -> str:
    """The path of an address. An app's may be invalid: then the whole."""
    try:
        return urlsplit(address).path
    except ValueError:
        return address


def file_of(name: str, type_: str = "", size: int = 0, address: str = "") -> File:
    """A file from the platform's description; `type_`: its media type, if it has one."""
    return File(clean_name(name), _kind(name, type_), size, address)


def _kind(name: str, type_: str) -> Kind:
    path = PurePosixPath(name.replace("\\", "/").rsplit("/", 1)[-1].lower())
    ending = path.suffix.lstrip(".").strip() or path.name
    if ending in TEXT_ENDINGS:
        return "text"
    if ending in IMAGE_ENDINGS or type_.startswith("image/"):
        return "image"
    if ending in OTHER_ENDINGS:
        return "other"
    if TEXT_TYPES.match(type_):
        return "text"
    return "unsure" if not type_ or type_ == "application/octet-stream" else "other"


def linked_message(name: str, address: str) -> File:
    """A message that a text links to."""
    return File(clean_name(name), "link", 0, address)


def to_read(files: Iterable[File]) -> tuple[File, ...]:
    """The files and linked messages that are read."""
    return tuple(file for file in files if file.kind in ("text", "unsure", "link"))


def is_question(text: str, files: Iterable[File]) -> bool:
    """Whether a message can be answered: it has words, or a file that is read."""
    return bool(text.strip()) or bool(to_read(files))


def names_of(files: Sequence[File]) -> str:
    """The names of the first files, for a sentence."""
    named = ", ".join(f"`{file.name}`" for file in files[:MOST_IN_SENTENCE])
    return f"{named}, …" if len(files) > MOST_IN_SENTENCE else named


def check(files: Sequence[File]) -> None:
    """Raise Unreadable for too many files, or too many bytes."""
    if len(files) > MOST_FILES:
        raise Unreadable("file_too_many", files[MOST_FILES].name)
    size = 0
    for file in files:
        size += file.size
        if size > MOST_BYTES:
            raise Unreadable("file_too_large", file.name)


# -- bytes to text ------------------------------------------------------------------------------

_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa]")
_HALF_WIDTH = re.compile("[\uff61-\uff9f]")
_JAPANESE = ("cp932", "euc_jp")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")  # but ESC: logs have colours
_COLOURS = re.compile("\x1b\\[[0-9;]*[A-Za-z]")
_MAIL = re.compile(rb"\x1b\$[@B]")
"""What begins Japanese in a mail's encoding, ISO-2022-JP: else it is ASCII that means nothing."""


def text_of(file: File, content: bytes) -> ReadFile:
    """A file's content as text. An ``unsure`` file without text becomes ``other``.

    Unreadable if the file is empty, or is not text although its kind says so.
    """
    if not content.strip(b"\x00\t\n\r \xef\xbb\xbf\xfe\xff"):
        raise Unreadable("file_empty", file.name)
    text = decoded(content)
    if text is not None and text.strip():
        return ReadFile(replace(file, kind="text"), text)
    if file.kind == "unsure":
        return ReadFile(replace(file, kind="other"))
    raise Unreadable("file_binary", file.name)


def decoded(content: bytes) -> str | None:
    """Content as text: UTF-8, UTF-16 with a byte order mark, or a Japanese encoding if only one
    fits; else None."""
    for text in _decodings(content):
        plain = _COLOURS.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
        return None if _CONTROLS.search(plain) else plain
    return None


def _decodings(content: bytes) -> Iterable[str]:
    """The decoded text of a file's content, if exactly one encoding fits."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return filter(None, [_decode_strictly(content, "utf-16")])
    if _MAIL.search(content):
        return filter(None, [_decode_strictly(content, "iso2022_jp")])
    text = _decode_strictly(content, "utf-8-sig")
    if text is not None:
        return [text]
    found = [text for name in _JAPANESE if (text := _decode_strictly(content, name)) is not None]
    if len(found) == 1 and _is_half_width(found[0]):
        return found
    found = [text for text in found if _KANA.search(text)]
    if len(found) > 1:  # EUC-JP read as Shift_JIS is full of half-width letters
        found = [text for text in found if not _HALF_WIDTH.search(text)]
    return found if len(found) == 1 else []


_HALF_WIDTH_RUN = re.compile("[\uff61-\uff9f]{2,}")
_NOT_CYRILLIC = re.compile("[\uff70-\uff7f]")
_WRONG_KANA = re.compile(
    "[\uff61-\uff64]"
    "|(?<![\uff66-\uff9f])[\uff67-\uff70]"
    "|(?<![\uff73\uff76-\uff84\uff8a-\uff8e])[\uff9e\uff9f]"
)
"""Punctuation, a small kana at the beginning of a word, and impossible voicing marks."""
LEAST_HALF_WIDTH = 4


def _is_half_width(text: str) -> bool:
    """Whether a decoded text is Japanese in half-width kana, as from banks and old systems.

    Wrongly decoded accented Latin letters come alone, Cyrillic text lacks half of the kana, and
    Thai has sequences that no Japanese word has.
    """
    half = len(_HALF_WIDTH.findall(text))
    in_runs = sum(map(len, _HALF_WIDTH_RUN.findall(text)))
    likely = in_runs >= LEAST_HALF_WIDTH and 4 * in_runs >= 3 * half
    likely = likely and 8 * len(_NOT_CYRILLIC.findall(text)) >= half
    rest = [c for c in _HALF_WIDTH.sub("", text) if not c.isascii()]
    return likely and not _WRONG_KANA.search(text) and all(map(_is_common, rest))


def _is_common(character: str) -> bool:
    """Whether a character is a symbol or a kanji of JIS level 1."""
    return b"\xa1" <= character.encode("euc_jp", "replace") < b"\xd0"


def _decode_strictly(content: bytes, encoding: str) -> str | None:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        return None


# -- text in a turn -----------------------------------------------------------------------------

_FENCES = re.compile(r"~{3,}")


def with_files(turn: Turn, files: Sequence[ReadFile]) -> Turn:
    """The turn with its files below the person's words."""
    if not files:
        return turn
    blocks = list(map(_block, files[:MOST_NAMED]))
    if more := len(files) - MOST_NAMED:
        blocks += [f"[{more} more files]"] if more > 0 else []
    below = BETWEEN_FILES.join(blocks)
    words = turn.text.rstrip()
    made = tuple(
        TurnFile(read.file.name, read.text is not None, len(block), read.file.source)
        for read, block in zip(files, blocks, strict=False)
    )
    return replace(turn, text=f"{words}{BETWEEN_FILES}{below}" if words else below,
                   files=made, below=len(below))  # fmt: skip


def turn_of_files(turn: str, files: Sequence[ReadFile]) -> Turn:
    """A message without words, with these files: for the text of files that are stored later."""
    return with_files(Turn(turn, "user", "", "", 0.0), files)


def unread(files: Iterable[File]) -> tuple[ReadFile, ...]:
    """The files, only named: they are not read yet."""
    return tuple(map(ReadFile, files))


def _block(read: ReadFile) -> str:
    what = {"image": "image", "link": "linked message"}.get(read.file.kind, "file")
    if read.text is None:
        return f"[{what}: {read.file.name}]"
    fence = "~" * max(3, *(len(f) + 1 for f in _FENCES.findall(read.text)), 3)
    return f"[{what}: {read.file.name}]\n{fence}\n{read.text.strip()}\n{fence}"


# -- between processes --------------------------------------------------------------------------


def pack(
    files: Sequence[File], quoted: str = "", its_files: Sequence[File] = ()
) -> Mapping[str, str]:
    """The files as entries of a delivery's note; empty if none is to be read. `quoted`: the id of
    the quoted message, with its files."""
    note = {}
    if to_read(its_files):
        note[QUOTED] = _rows([File(quoted, "other"), *its_files])
    if to_read(files) or note:
        note[NOTE] = _rows(files)
    return note


def _rows(files: Sequence[File]) -> str:
    rows = [[file.name, file.kind, file.size, file.address] for file in files]
    return json.dumps(rows, ensure_ascii=False)


def unpack_quoted(note: Mapping[str, str]) -> tuple[str, tuple[File, ...]]:
    """The quoted message and its files, as `pack` put them into a note; empty without any."""
    rows = [File(*row) for row in json.loads(note.get(QUOTED, "[]"))]
    return (rows[0].name, tuple(rows[1:])) if rows else ("", ())


def unpack(note: Mapping[str, str]) -> tuple[File, ...]:
    """The files that `pack` put into a note."""
    return tuple(File(*row) for row in json.loads(note.get(NOTE, "[]")))
