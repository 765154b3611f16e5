"""The blocks of messages, modals and pages: text, notices, buttons. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from bots.actions import can_continue, can_truncate, offers_file
from bots.choices import Option
from bots.commonmark import mended
from bots.markdown import simplified
from bots.platform import Part
from bots.slack.convert import WORD_JOINER, Malformed, parsing
from bots.slack.markdown import escaped
from bots.strings import say
from bots.summaries import Offer
from core.queue_types import Delivery, Rating
from core.types import VERDICTS, Done, ThreadKey, Verdict

Block: TypeAlias = dict[str, Any]

STOP = "henji_stop"
REGENERATE = "henji_regenerate"
CONTINUE = "henji_continue"
BEGIN = "henji_begin"
FILE = "henji_file"
FEEDBACK = "henji_feedback"
VOTES: Mapping[str, Verdict] = {f"henji_vote_{verdict}": verdict for verdict in VERDICTS}
"""The buttons of a duel."""
MENU = "henji_menu"
SUMMARISE = "henji_summarise"
STOP_SUMMARY = "henji_stop_summary"
MENU_WORDS = ("help", "usage", "privacy", "model", "reset")
"""The entries of the menu under a reply: slash commands do not work in threads."""

MOST_OPTIONS = 100
"""Of a select."""
TEXT_BYTES = 4_000
"""The most of `text` in a call, in UTF-8 bytes. Slack documents 4,000 characters for chat.update;
measured are bytes (github openclaw/openclaw pull 115027, 2026-07)."""
_CUT_ENTITY = re.compile(r"&[a-z]{0,3}$")
_PING = re.compile(r"<!(?=[ches])|<@(?=[UWB])")


def without_pings(text: str) -> str:
    """The text with mentions of people, groups and channels made inert."""
    return _PING.sub(lambda match: f"{match[0]}{WORD_JOINER}", text)


def markdown(text: str) -> str:
    """A reply's text for Slack: without pings, and with emphasis fixed."""
    return mended(without_pings(text))


@dataclass(frozen=True, slots=True)
class ReplyRef:
    """The value of a button: the reply it belongs to, and who asked for it."""

    job: str
    author: str
    thread: ThreadKey

    def __str__(self) -> str:
        return f"{self.job} {self.author} {self.thread}"

    @classmethod
    def parse(cls, value: str) -> ReplyRef:
        """Malformed if the value is not from our buttons."""
        try:
            job, author, thread = value.split(" ", 2)
            return cls(job, author, ThreadKey.parse(thread))
        except ValueError:
            raise Malformed("value") from None


def ref_of(delivery: Delivery) -> ReplyRef:
    return ReplyRef(delivery.job, delivery.author, delivery.thread)


def reply(part: Part, delivery: Delivery, model: str, locale: str) -> list[Block]:
    """The blocks of a part: its text, then the controls."""
    return [
        {"type": "markdown", "text": markdown(part.text)},
        *under(part, delivery, model, locale),
    ]


def under(part: Part, delivery: Delivery, model: str, locale: str) -> list[Block]:
    """The blocks under the text of a part. Only the last part has some."""
    if not part.last:
        return []
    ref = str(ref_of(delivery))
    if part.end is None:
        return [actions(button(STOP, say("stop", locale), ref))]
    notes = [context_block(part.note)] if part.note else []
    if can_truncate(part.end):
        return [*notes, actions(button(BEGIN, say("begin", locale), ref))]
    if not isinstance(part.end, Done):
        return notes
    duel = part.end.duel
    if duel and not duel.models:
        return [*notes, context_block(say("ai_notice_blind", locale)), _votes(ref, locale)]
    return [
        *notes,
        context_block(say("ai_notice", locale, model=part.end.model or model)),
        *([] if duel else [_feedback(ref, locale)]),
        actions(*_regenerate(part, ref, locale)),
    ]


def _votes(ref: str, locale: str) -> Block:
    buttons = (button(name, say(f"vote_{vote}", locale), ref) for name, vote in VOTES.items())
    return actions(*buttons)


def _regenerate(part: Part, ref: str, locale: str) -> Sequence[Block]:
    buttons = [button(REGENERATE, say("regenerate", locale), ref)]
    if isinstance(part.end, Done) and can_continue(part.end):
        buttons.append(button(CONTINUE, say("continue", locale), ref))
    if offers_file(part):
        buttons.append(button(FILE, say("as_file", locale), ref))
    options = [{"text": _text(say(f"menu_{word}", locale)), "value": word} for word in MENU_WORDS]
    return [*buttons, {"type": "overflow", "action_id": MENU, "options": options}]


def _feedback(ref: str, locale: str) -> Block:
    def thumb(rating: Rating) -> Block:
        return {"text": _text(say(rating, locale)), "value": f"{rating} {ref}"}

    buttons = {
        "type": "feedback_buttons",
        "action_id": FEEDBACK,
        "positive_button": thumb("good"),
        "negative_button": thumb("bad"),
    }
    return {"type": "context_actions", "elements": [buttons]}


def context_block(text: str) -> Block:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": escaped(text)}]}


def actions(*elements: Block) -> Block:
    return {"type": "actions", "elements": list(elements)}


def button(action: str, label: str, value: str = "", **more: Any) -> Block:
    block: Block = {"type": "button", "action_id": action, "text": _text(label)}
    return block | ({"value": value} if value else {}) | more


def _text(text: str) -> Block:
    return {"type": "plain_text", "text": text}


def notification(text: str) -> str:
    """The text of a message for notifications and screen readers, beside its blocks.

    Escaped, and cut to Slack's limit for `text` in chat.update.
    """
    return shortened(escaped(text))


def shortened(written: str) -> str:
    """Escaped text, cut to Slack's limit for `text`."""
    if len(written.encode()) <= TEXT_BYTES:
        return written
    cut = written.encode()[: TEXT_BYTES - len("…".encode())].decode(errors="ignore")
    return _CUT_ENTITY.sub("", cut) + "…"


# -- modals -----------------------------------------------------------------------------------


def modal(
    callback: str, title: str, locale: str, *blocks: Block, data: str = "", yes: str = "send"
) -> Block:
    """A modal with buttons to submit and to close. `data` comes back when it is submitted."""
    return {
        "type": "modal",
        "callback_id": callback,
        "private_metadata": data,
        "title": _text(title[:24]),
        "submit": _text(say(yes, locale)),
        "close": _text(say("cancel", locale)),
        "blocks": list(blocks),
    }


def section(text: str, accessory: Block | None = None) -> Block:
    block: Block = {"type": "section", "text": {"type": "mrkdwn", "text": text}}
    return block | ({"accessory": accessory} if accessory else {})


def question(name: str, label: str, element: Block, *, optional: bool = False) -> Block:
    """An input of a modal; `name` is its key in `ModalSubmission.values`."""
    return {
        "type": "input",
        "block_id": name,
        "label": _text(label),
        "optional": optional,
        "element": element | {"action_id": name},
    }


def picker(name: str, label: str, options: Sequence[Option]) -> Block:
    """A select of a modal, with the current option selected."""
    shown = {o.value: {"text": _text(o.label), "value": o.value} for o in options}
    now = next((o.value for o in options if o.chosen), options[0].value)
    select = {
        "type": "static_select",
        "options": list(shown.values()),
        "initial_option": shown[now],
    }
    return question(name, label, select)


def summary(
    text: str, locale: str, offer: Offer | None = None, stops: ThreadKey | None = None
) -> list[Block]:
    """A summary, or a message before it, with a button to continue or to stop."""
    buttons = []
    if offer is not None:
        key = "catchup_go_newest" if offer.newest else "catchup_go"
        value = f"{offer.after:.6f} {offer.most} {_whole_key(offer.place)}"
        buttons.append(button(SUMMARISE, say(key, locale), value))
    if stops is not None:
        buttons.append(button(STOP_SUMMARY, say("stop", locale), _whole_key(stops)))
    return [
        {"type": "markdown", "text": markdown(simplified(text))},
        *([actions(*buttons)] if buttons else []),
    ]


def _whole_key(place: ThreadKey) -> str:
    return str(replace(place, thread=place.thread or "-"))


def place_in(value: str) -> ThreadKey:
    """The place in a summary button's value; a channel has an empty thread."""
    with parsing():
        place = ThreadKey.parse(value)
        return replace(place, thread="" if place.thread == "-" else place.thread)


def offer_in(value: str) -> Offer:
    """The offer in a button's value; Malformed if the value is not from our buttons."""
    with parsing():
        after, most, place = value.split(" ", 2)
        return Offer(place_in(place), float(after), int(most))


def dangerous_button(action: str, label: str, value: str, ask: str, locale: str) -> Block:
    """A button that asks for confirmation first."""
    confirm = {
        "title": _text(say("reset_title", locale)),
        "text": _text(ask),
        "confirm": _text(say("reset_yes", locale)),
        "deny": _text(say("cancel", locale)),
        "style": "danger",
    }
    return button(action, label, value, style="danger", confirm=confirm)


def header(text: str) -> Block:
    return {"type": "header", "text": _text(text)}
