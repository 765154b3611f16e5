"""The local Discord refuses what Discord's published OpenAPI document does not allow."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local_discord.openapi import DOCUMENT, published

needs_openapi = pytest.mark.skipif(
    not DOCUMENT.is_file(), reason="HENJI_TEST_DATA names no folder with discord-openapi.json"
)
MESSAGES = "/channels/800000000000000002/messages"


@needs_openapi
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", MESSAGES, {"content": 5}),
        ("POST", MESSAGES, {"content": "hi", "nonce": "n" * 26}),
        ("POST", MESSAGES, {"content": "hi", "components": [{"type": 1, "components": []}]}),
        ("POST", MESSAGES, {"message_reference": {"message_id": "nine"}}),
        ("PATCH", "/channels/1", {"name": ["a"]}),
        ("POST", "/nowhere", {}),
    ],
)
def test_a_body_that_the_document_does_not_allow_is_refused(
    method: str, path: str, body: dict[str, Any]
) -> None:
    document = published()
    assert document is not None
    assert list(document.faults(method, path, body))


@needs_openapi
def test_a_plain_message_is_allowed() -> None:
    document = published()
    assert document is not None
    assert list(document.faults("POST", MESSAGES, {"content": "hi", "nonce": "n"})) == []
