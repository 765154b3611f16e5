"""A person in one place: the help that fits them, and what is left of their quota today."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bots import attachments
from bots.actions import Actions, Actor
from bots.choices import KINDS, Choices
from bots.relay import Relay
from bots.strings import clock, say
from core.access_policy import Asker, Quota
from core.place_rules import UNSET
from core.queue_types import Spent
from core.types import ThreadKey

PAGE_TOKENS = 700
"""Of a page of text: about 500 English words, or 1,000 Japanese characters."""
EXAMPLES = ("example_explain", "example_write", "example_plan")
SCOPES = ("person", "all", "channel")
"""Whose use a quota limits: a person's here, theirs in all spaces, everybody's in this channel."""
COUNTED = ("messages", "tokens")


class Guide:
    """Help, use and choices, for one person in one place."""

    def __init__(self, relay: Relay, actions: Actions, days: float) -> None:
        """`days`: how long conversations are kept where their place says no other time."""
        self._relay = relay
        self._actions = actions
        self.choices = Choices(relay, actions)
        self._days = days

    async def model(self, thread: ThreadKey) -> str:
        """The model that answers in a thread."""
        return await self._relay.lane_of(thread)

    # -- what is left ---------------------------------------------------------------------------

    async def usage(self, actor: Actor, thread: ThreadKey, locale: str) -> str:
        """What a person has used today, what is left, and when it starts again."""
        if refusal := await self._actions.refusal(actor, thread):
            return refusal.sentence(locale)
        quota, spent = await self._spent(actor, thread)
        again = say("usage_again", locale, time=clock(spent.until, self._relay.settings.zone))
        return "\n".join((say("usage_head", locale), *_used(quota, spent, locale), again))

    async def _spent(self, actor: Actor, thread: ThreadKey) -> tuple[Quota, Spent]:
        asker = Asker(thread, actor.person, actor.roles, actor.stranger)
        quota = (await self._relay.admission(asker)).permit.quota
        return quota, await self._relay.spent(thread, actor.person, quota)

    # -- help -----------------------------------------------------------------------------------

    async def help(
        self,
        actor: Actor,
        thread: ThreadKey,
        locale: str,
        admins: str = "",
        *,
        has_files: bool = True,
    ) -> Sequence[str]:
        """What holds for this person here, a line each; `admins`: the line for those who may
        administer; `has_files`: people can send files there."""
        size = attachments.MOST_BYTES // 1024
        files = say("guide_files", locale, files=attachments.MOST_FILES, size=size)
        reads = [files, say("guide_blind", locale)] if has_files else [say("guide_typed", locale)]
        lines = [*await self._length(thread, locale), *reads]
        lines.append(say("guide_remembers", locale, days=f"{await self._kept(thread):g}"))
        lines += await self._offered(thread, locale)
        lines += [left] if (left := await self._left(actor, thread, locale)) else []
        if admins and await self._actions.is_admin(actor, thread):
            lines.append(admins)
        return (*lines, say("guide_examples", locale), *(say(key, locale) for key in EXAMPLES))

    async def _length(self, thread: ThreadKey, locale: str) -> Sequence[str]:
        """How much the model reads in one go; nothing, where that is not known."""
        tokens = await self._relay.reads(await self.model(thread))
        pages = max(1, round(tokens / PAGE_TOKENS))
        key = "guide_reads_page" if pages == 1 else "guide_reads"
        return [say(key, locale, pages=pages, tokens=tokens)] if tokens else []

    async def _kept(self, thread: ThreadKey) -> float:
        """Days that conversations are kept there."""
        days = (await self._relay.access.rulebook.rules(thread)).retention_days
        return self._days if days is None else days

    async def _offered(self, thread: ThreadKey, locale: str) -> Sequence[str]:
        """What may be chosen there: nothing, where a place offers nothing."""
        offered = [await self.choices.offered(thread, kind, locale) for kind in KINDS]
        names = [one.label for options in offered for one in options if one.value != UNSET]
        return [say("guide_choices", locale, names=", ".join(names))] if names else []

    async def _left(self, actor: Actor, thread: ThreadKey, locale: str) -> str:
        """How much this person may still ask today; empty where nothing limits them."""
        quota, spent = await self._spent(actor, thread)
        found = [_left(quota, spent, kind, locale) for kind in COUNTED]
        left = ", ".join(filter(None, found))
        time = clock(spent.until, self._relay.settings.zone)
        return say("guide_left", locale, left=left, time=time) if left else ""


def _used(quota: Quota, spent: Spent, locale: str) -> Iterator[str]:
    """A line for each count: always for the person's own, else where it is limited."""
    for scope in SCOPES:
        for kind in COUNTED:
            name = f"{scope}_{kind}"
            most, used = getattr(quota, name), getattr(spent, name)
            whose, what = say(f"usage_{scope}", locale), say(f"usage_{kind}", locale)
            if most:
                numbers = {"used": used, "most": most, "left": max(0, most - used)}
                yield say("usage_limited", locale, whose=whose, what=what, **numbers)
            elif scope == "person":
                yield say("usage_free", locale, whose=whose, what=what, used=used)


def _left(quota: Quota, spent: Spent, kind: str, locale: str) -> str:
    """The least that one of the limits of a kind leaves; empty where there is none."""
    names = [f"{scope}_{kind}" for scope in SCOPES]
    left = [getattr(quota, n) - getattr(spent, n) for n in names if getattr(quota, n)]
    return f"{say(f'usage_{kind}', locale)} {max(0, min(left)):,}" if left else ""
