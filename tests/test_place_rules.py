"""Rules as people write them, in henji.toml and in the chat, and the decisions they make."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bots.platforms import load
from core.access_policy import AccessLists, Allowance, Asker, Policy
from core.errors import UsageError
from core.place_rules import NAMES, Rules, rule_from_text, scopes
from core.types import Sampling, ThreadKey

THREAD = ThreadKey("slack", "T1", "C1", "1.0")
NOBODY_SAID = Rules()


def asker(person: str = "U1", *roles: str) -> Asker:
    return Asker(THREAD, person, roles)


# -- as they are typed --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperature", "0.7", 0.7),
        ("temperature", "1", 1.0),
        ("max_new_tokens", "256", 256),
        ("person_tokens", "20_000", 20_000),
        ("enabled", "off", False),
        ("model", "rinna-ppo", "rinna-ppo"),
        ("follow_up", "mention", "mention"),
        ("retention_days", "7", 7.0),
        ("deny_people", "U1, U2 U3", ("U1", "U2", "U3")),
        ("allow_roles", "-", ()),
        ("system_prompt", "Answer in verse: 短く。", "Answer in verse: 短く。"),
        ("system_prompt", "42", "42"),
    ],
)
def test_a_rule_is_typed(name: str, text: str, value: object) -> None:
    assert rule_from_text(name, text) == value


def test_a_platforms_mentions_are_ids_only_in_lists() -> None:
    def ids(text: str) -> str:
        return text.replace("@taro", "U1")

    assert rule_from_text("deny_people", "@taro, U2", ids) == ("U1", "U2")
    assert rule_from_text("system_prompt", "Be nice to @taro", ids) == "Be nice to @taro"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("temprature", "1", "did you mean temperature?"),
        ("", "1", "is no rule"),
        ("temperature", "hot", "temperature is wrong"),
        ("temperature", "9", "less than or equal to 5"),
        ("temperature", "nan", "temperature is wrong"),
        ("max_new_tokens", "0", "greater than or equal to 1"),
        ("max_new_tokens", "1.5", "max_new_tokens is wrong"),
        ("max_new_tokens", "9" * 30, "max_new_tokens is wrong"),
        ("person_messages", "-1", "greater than or equal to 0"),
        ("retention_days", "0.5", "greater than or equal to 1"),
        ("retention_days", "inf", "retention_days is wrong"),
        ("enabled", "maybe", "enabled is wrong"),
        ("follow_up", "sometimes", "follow_up is wrong"),
        ("model", "two words", "is not the name of a model"),
        ("deny_people", "slack:U1", "is not an id"),
        ("deny_people", "@taro", "is not an id"),
        ("duel", "rinna", "is not a model and a share"),
        ("deny_people", "U1 <#C1|general>", "is not an id"),
        ("system_prompt", "x" * 8001, "at most 8000"),
    ],
)
def test_a_wrong_rule_is_reported_in_one_sentence(name: str, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as fault:
        rule_from_text(name, text)
    assert "\n" not in str(fault.value)


WRONG = {
    "enabled": ("maybe", "2", "yes please"),
    **dict.fromkeys(("allow_people", "deny_people", "allow_roles", "deny_roles"),
                    ("@taro", "slack:U1", "<#C1>", "U" * 65)),
    **dict.fromkeys(("person_messages", "person_tokens", "channel_messages", "channel_tokens"),
                    ("many", "-1", "1.5", "1e3", "9" * 12)),
    "model": ("two words", "a:b", "x" * 129),
    "models": ("a:b", "x" * 76, "default", " ".join(f"m{number}" for number in range(26))),
    "summary_prompt": ("", "x" * 2001),
    "personas": ("reviewer", "{}", "reviewer temperature 0.2"),
    "system_prompt": ("x" * 8001,),
    "max_new_tokens": ("0", "100001", "long"),
    "max_thinking_tokens": ("0", "100001", "long"),
    "thinking": ("maybe", "2", "high"),
    "temperature": ("hot", "-0.1", "5.1", "nan", "inf"),
    "top_p": ("0", "1.1", "all"),
    "top_k": ("-1", "1000001", "2.5"),
    "repetition_penalty": ("0", "11", "none"),
    "follow_up": ("sometimes", "on", "2"),
    "retention_days": ("0", "401", "forever"),
    "duel": ("rinna", "rinna:2", "rinna:-0.1", "a b:0.5", ":0.5", "rinna:half", "rinna:1e-3"),
    "duel_votes": ("0", "1001", "many"),
    "duel_hours": ("0", "25", "forever"),
    "collect": ("maybe", "2"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_each_rule_refuses_impossible_values(name: str) -> None:
    for text in WRONG[name]:
        with pytest.raises(UsageError, match=name) as fault:
            rule_from_text(name, text)
        assert "\n" not in str(fault.value)
        assert len(str(fault.value)) < 300  # a long value is not repeated


# -- in henji.toml ------------------------------------------------------------------------------


def settings_from(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Policy:
    file = tmp_path / "henji.toml"
    file.write_text(text)
    monkeypatch.setenv("HENJI_CONFIG", str(file))
    return load().policy


@pytest.mark.parametrize("table", ['[spaces."slack:T024"]', '[channels."discord:9042:1"]'])
def test_collecting_needs_the_hosts_leave(
    table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="training_permitted"):
        settings_from(f"{table}\ncollect = true", tmp_path, monkeypatch)
    leave = 'training_permitted = ["slack", "discord"]'
    policy = settings_from(f"{leave}\n{table}\ncollect = true", tmp_path, monkeypatch)
    assert policy.permits_training("slack")
    assert not Policy().permits_training("slack")
    assert Policy().permits_training("console")
    with pytest.raises(UsageError, match="there is no platform slak"):
        settings_from('training_permitted = ["slak"]', tmp_path, monkeypatch)
    everywhere = Policy(everywhere=Rules(collect=True))
    thread = ThreadKey("slack", "T1", "C1", "1")
    assert not everywhere.rules(thread, Rules(), Rules()).collect


def test_the_file_makes_a_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = settings_from(
        """
        admins = ["slack:U9"]
        timezone = "Asia/Tokyo"
        [access]
        deny_people = ["U666"]
        [quota]
        person_messages = 50
        [role_quotas.R1]
        messages = 0
        [spaces."slack:T1"]
        temperature = 0.2
        [channels."slack:T1:C1"]
        system_prompt = "Be brief."
        allow_people = ["U1", "U9"]
        """,
        tmp_path,
        monkeypatch,
    )
    rules = policy.rules(THREAD, NOBODY_SAID, NOBODY_SAID)
    assert (rules.temperature, rules.system_prompt) == (0.2, "Be brief.")
    permit = policy.permit(rules, asker())
    assert (permit.refuse, permit.quota.person_messages) == ("", 50)
    assert permit.quota.offset_ms == 9 * 3600 * 1000
    assert policy.permit(rules, asker("U1", "R1")).quota.person_messages == 0
    assert policy.permit(rules, asker("U2")).refuse == "not_allowed"
    assert policy.is_admin(asker("U9"), of_platform=False)
    assert not policy.is_admin(asker("U1"), of_platform=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[spaces."slack:T1"]\ntemprature = 1', "did you mean temperature?"),
        ('[spaces."slack:T1"]\ntemperature = "hot"', 'spaces."slack:T1"'),
        ('[spaces."slack"]\ntemperature = 1', "a name such as slack:T024"),
        ('[channels."slack:T1"]\ntemperature = 1', "a name such as slack:T024:C123"),
        ('[channels."slack:T1:C1"]\nenabled = "no"', "enabled is wrong"),
        ("spaces = 3", "are tables in henji.toml"),
        ("[quota]\nperson_messages = -5", "greater than or equal to 0"),
        ("[role_quotas.R1]\nmessages = -1", "role_quotas"),
        ('[spaces."slak:T1"]\ntop_k = 1', "there is no platform slak"),
        ('[spaces."slack:"]\ntop_k = 1', "a name such as slack:T024"),
        ("[access]\nalow_people = []", "access"),
        ('[access]\ndeny_people = ["@taro"]', "access.deny_people"),
        ('[access]\ndeny_people = ["slak:U1"]', "access.deny_people: there is no platform slak"),
        ('admins = ["U1, U2"]', "admins"),
        ('admins = ["slak:U1"]', "admins: there is no platform slak"),
        ('timezone = "Mars/Olympus"', "Mars/Olympus"),
        ('timezone = "../../etc/passwd"', "does not know"),
        ("metrics_port = 70000", "metrics_port"),
        ("audit_days = 0", "audit_days"),
    ],
)
def test_a_wrong_file_is_reported_in_one_sentence(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as fault:
        settings_from(text, tmp_path, monkeypatch)
    assert "\n" not in str(fault.value)


# -- decisions ----------------------------------------------------------------------------------


def test_a_channel_overrides_its_space_and_an_admin_overrides_the_file() -> None:
    policy = Policy(
        everywhere=Rules(person_messages=1),
        spaces={"slack:T1": Rules(person_messages=2, top_k=2)},
        channels={"slack:T1:C1": Rules(person_messages=4)},
    )
    set_for_space = Rules(person_messages=3, top_p=0.3)
    set_for_channel = Rules(person_messages=5)
    found = policy.rules(THREAD, set_for_space, NOBODY_SAID)
    assert (found.person_messages, found.top_k, found.top_p) == (4, 2, 0.3)
    assert policy.rules(THREAD, set_for_space, set_for_channel).person_messages == 5
    elsewhere = ThreadKey("slack", "T2", "C9", "1.0")
    assert policy.rules(elsewhere, NOBODY_SAID, NOBODY_SAID).person_messages == 1


@pytest.mark.parametrize(
    ("access", "who", "admitted"),
    [
        (AccessLists(), asker(), True),
        (AccessLists(allow_spaces=("T1",)), asker(), True),
        (AccessLists(allow_spaces=("slack:T1",)), asker(), True),
        (AccessLists(allow_spaces=("discord:T1",)), asker(), False),
        (AccessLists(deny_spaces=("T1",)), asker(), False),
        (AccessLists(allow_channels=("C2",)), asker(), False),
        (AccessLists(deny_channels=("C2",)), asker(), True),
        (AccessLists(allow_people=("U1",)), asker(), True),
        (AccessLists(allow_people=("U2",)), asker(), False),
        (AccessLists(allow_people=("U2",), allow_roles=("R1",)), asker("U1", "R1"), True),
        (AccessLists(allow_roles=("R1",)), asker("U1", "R2"), False),
        (AccessLists(allow_people=("U1",), deny_roles=("R1",)), asker("U1", "R1"), False),
        (AccessLists(allow_people=("U1",), deny_people=("slack:U1",)), asker(), False),
    ],
)
def test_who_may_ask(access: AccessLists, who: Asker, admitted: bool) -> None:
    permit = Policy(access=access).permit(NOBODY_SAID, who)
    assert permit.refuse == ("" if admitted else "not_allowed")


def test_a_place_may_be_closed_or_for_some() -> None:
    policy = Policy()
    assert policy.permit(Rules(enabled=False), asker()).refuse == "not_allowed"
    assert policy.permit(Rules(allow_people=("U2",)), asker()).refuse == "not_allowed"
    assert policy.permit(Rules(allow_roles=("R1",)), asker("U1", "R1")).refuse == ""


def test_of_several_roles_the_one_that_allows_most_counts() -> None:
    policy = Policy(
        everywhere=Rules(person_messages=5, person_tokens=100),
        roles={
            "R1": Allowance(messages=10),
            "slack:R2": Allowance(messages=20, tokens=0),
            "discord:R1": Allowance(messages=99),
        },
    )
    rules = policy.rules(THREAD, NOBODY_SAID, NOBODY_SAID)
    assert policy.permit(rules, asker("U1")).quota.person_messages == 5
    assert policy.permit(rules, asker("U1", "R1")).quota.person_messages == 10
    quota = policy.permit(rules, asker("U1", "R1", "R2")).quota
    assert (quota.person_messages, quota.person_tokens) == (20, 0)


def test_a_places_sampling_changes_what_it_names() -> None:
    usual = Sampling(0.7, 0.9, 50, 1.1)
    assert Rules(temperature=0.0, top_k=0).sampling(usual) == Sampling(0.0, 0.9, 0, 1.1)


def test_a_place_is_called_as_it_is_written() -> None:
    assert scopes(ThreadKey("slack", "T:1", "C1", "x")) == ("slack:T%3A1", "slack:T%3A1:C1")
