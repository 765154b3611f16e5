"""A local Slack, on loopback, that speaks the real wire protocol.

The unmodified SDK and adapter run against it: only ``SLACK_API_URL`` and the tokens differ. It
checks every call: what Slack refuses gets Slack's error, and what a good app does not do (an
unknown argument, say) is also kept in `violations`. Limits and error lists are data with their
sources (`limits`, `errors`, `validation`); where reports conflict, the stricter one is held.

Sources: docs.slack.dev (methods, events, limits, agent sessions), and slack_sdk 3.47 and slack_bolt
1.30 for what really arrives. Where it guesses, the docstring says so.
"""

from __future__ import annotations

from tests.local_slack.people import LocalSlack
from tests.local_slack.workspace import Json, Message, Person

__all__ = ["Json", "LocalSlack", "Message", "Person"]
