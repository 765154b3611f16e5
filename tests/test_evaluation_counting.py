"""The table of a comparison, held against published tables.

The two of rinna's model card are of 100 prompts, PPO against SFT-v2. Those of ja-vicuna-qa are of
80 questions that GPT-4 judged in both orders, each model against text-davinci-003, counted as
FastChat counts (github ku-nlp/ja-vicuna-qa-benchmark, Apache-2.0, 2023).
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.evaluation import statistics
from core.evaluation.statistics import (
    Side,
    Table,
    Verdict,
    Winner,
    count,
    reads_answers,
    seen_of_ten,
)
from tests.optional import needs_answers, published_answers

PPO = Counter(
    {("b", "b"): 60, ("a", "a"): 11, ("a", "b"): 4, ("tie", "b"): 2, ("a", "tie"): 1,
     ("b", "tie"): 1, ("tie", "tie"): 1}
)  # fmt: skip
SFT_V2 = Counter(
    {("b", "b"): 65, ("a", "a"): 7, ("a", "b"): 3, ("tie", "b"): 3, ("b", "tie"): 1,
     ("tie", "tie"): 1}
)  # fmt: skip
"""How often GPT-4 named which winner: with the model's answer second, then first. A is the model,
B text-davinci-003."""


def said_once(wins: int, ties: int, losses: int) -> list[Verdict]:
    """A table as verdicts of one person, one a prompt."""
    winners: list[Winner] = [*["a"] * wins, *["tie"] * ties, *["b"] * losses]  # type: ignore[list-item]  # literals
    return [Verdict(str(place), winner, "a", "P1") for place, winner in enumerate(winners)]


def said_twice(games: Counter[tuple[str, str]]) -> list[Verdict]:
    couples: Sequence[tuple[Winner, Winner]] = list(games.elements())  # type: ignore[arg-type]  # literals
    return [
        verdict
        for place, (second, first) in enumerate(couples)
        for verdict in (Verdict(str(place), second, "b"), Verdict(str(place), first, "a"))
    ]


@pytest.mark.parametrize(
    ("table", "score", "interval", "p"),
    [
        ((47, 30, 23), 0.62, (0.54, 0.70), 0.006),
        ((63, 3, 34), 0.645, (0.55, 0.735), 0.004),
    ],
    ids=["people", "ChatGPT"],
)
def test_the_cards_tables_have_their_scores_intervals_and_sign_tests(
    table: tuple[int, int, int], score: float, interval: tuple[float, float], p: float
) -> None:
    counted = count(said_once(*table), both_orders=False)
    assert counted.whole.table == Table(*table)
    assert counted.whole.score is not None
    assert counted.whole.score.value == pytest.approx(score)
    found = (counted.whole.score.low, counted.whole.score.high)
    assert found == pytest.approx(interval, abs=0.0051)
    assert round(counted.p, 3) == p


@pytest.mark.parametrize(
    ("games", "table", "contradictions", "first_won"),
    [(PPO, (11, 9, 60), 4, 72), (SFT_V2, (7, 8, 65), 3, 73)],
    ids=["ppo", "sft-v2"],
)
def test_verdicts_in_both_orders_are_counted_as_fastchat_counts(
    games: Counter[tuple[str, str]],
    table: tuple[int, int, int],
    contradictions: int,
    first_won: int,
) -> None:
    counted = count(said_twice(games), both_orders=True)
    assert counted.whole.table == Table(*table)
    assert counted.contradictions == contradictions
    assert (counted.first_won, counted.ordered) == (first_won, 154)
    assert counted.agreements == table[0] + table[2]
    assert reads_answers(counted)


@needs_answers
@pytest.mark.parametrize(("model", "games"), [("ppo", PPO), ("sft-v2", SFT_V2)])
def test_the_table_of_games_is_that_of_the_published_verdicts(
    model: str, games: Counter[tuple[str, str]]
) -> None:
    assert Counter(published(model).values()) == games


@needs_answers
def test_ppo_is_ahead_of_sft_v2_by_as_much_as_published_question_by_question() -> None:
    def scores(model: str) -> dict[str, float]:
        agreed = {("a", "a"): 1.0, ("b", "b"): 0.0}
        return {key: agreed.get(couple, 0.5) for key, couple in published(model).items()}

    ppo, sft = scores("ppo"), scores("sft-v2")
    ahead = statistics.mean([ppo[question] - sft[question] for question in ppo])
    assert ahead.value == pytest.approx(0.056, abs=0.0005)
    assert (ahead.low, ahead.high) == pytest.approx((-0.013, 0.131), abs=0.0065)


def published(model: str) -> dict[str, tuple[str, str]]:
    """By question: the winner with the model's answer second, then first."""
    path = published_answers() / f"judgments-{model}.jsonl"
    sides = {"model_1": "b", "model_2": "a", "tie": "tie"}
    judged = map(json.loads, path.read_text().splitlines())
    return {
        str(game["question_id"]): (sides[game["g1_winner"]], sides[game["g2_winner"]])
        for game in judged
    }


@pytest.mark.parametrize(("share", "seen"), [(0.60, 0.37), (0.65, 0.72), (0.70, 0.94)])
def test_eighty_decisive_verdicts_see_a_better_model_as_often_as_computed_elsewhere(
    share: float, seen: float
) -> None:
    assert statistics.power(80, share) == pytest.approx(seen, abs=0.005)


def test_the_power_of_a_table_is_told_in_cases_of_ten() -> None:
    assert seen_of_ten(80, 0.60) == 4
    assert statistics.detectable(80) == 67
    assert statistics.detectable(5) is None
    assert statistics.power(0, 0.6) == 0


def test_power_over_a_thousand_verdicts_goes_on_from_the_exact_one() -> None:
    assert statistics.power(1001, 0.54) == pytest.approx(statistics.power(1000, 0.54), abs=0.03)


def test_a_verdict_that_cannot_be_read_is_told_and_not_counted() -> None:
    verdicts = [Verdict("0", "a", "a"), Verdict("0", "unreadable", "b"), *said_twice(SFT_V2)[2:]]
    counted = count(verdicts, both_orders=True)
    assert counted.unreadable == 1
    assert counted.whole.table.total == 79


def test_a_pair_that_was_seen_in_one_order_only_waits_for_the_other() -> None:
    assert count([Verdict("1", "a", "a")], both_orders=True).whole.table.total == 0
    assert count([Verdict("1", "a", "a")], both_orders=True).whole.score is None


def test_only_the_last_verdict_of_a_person_on_a_pair_counts() -> None:
    counted = count([Verdict("1", "a", "b", "P1"), Verdict("1", "b", "b", "P1")], both_orders=False)
    assert counted.whole.table == Table(0, 0, 1)


def test_both_bad_is_a_tie_that_is_told() -> None:
    counted = count([Verdict("1", "both bad", "a", "P1")], both_orders=False)
    assert (counted.whole.table, counted.both_bad) == (Table(0, 1, 0), 1)


def test_a_judge_that_always_names_the_first_place_contradicts_itself_and_is_found_out() -> None:
    sides: tuple[Side, Side] = ("a", "b")
    verdicts = [Verdict(str(n), side, side) for n in range(20) for side in sides]
    counted = count(verdicts, both_orders=True)
    assert counted.whole.table == Table(0, 20, 0)
    assert (counted.contradictions, counted.first_won, counted.ordered) == (20, 40, 40)
    assert not reads_answers(counted)


def test_a_judge_that_guesses_is_found_out() -> None:
    draw = random.Random(3)
    sides: tuple[Side, Side] = ("a", "b")
    verdicts = [Verdict(str(n), draw.choice(sides), side) for n in range(80) for side in sides]
    assert not reads_answers(count(verdicts, both_orders=True))


def test_categories_have_tables_of_their_own_in_the_order_of_the_prompts() -> None:
    verdicts = said_once(2, 1, 1)
    categories = {"9": "unseen", "3": "writing", "0": "math", "1": "math", "2": ""}
    counted = count(verdicts, both_orders=False, categories=categories)
    assert [(name, part.table) for name, part in counted.categories.items()] == [
        ("writing", Table(0, 0, 1)),
        ("math", Table(2, 0, 0)),
    ]


def test_a_table_without_the_answers_that_name_their_model_is_made_beside_the_whole() -> None:
    counted = count(said_once(3, 0, 1), both_orders=False, named={"0", "1"})
    assert counted.blind is not None
    assert counted.blind.table == Table(1, 0, 1)
    assert count(said_once(3, 0, 1), both_orders=False).blind is None


# -- several people ------------------------------------------------------------------------------


def test_votes_of_several_people_on_a_prompt_are_not_so_many_prompts() -> None:
    """Ten people who say the same of four prompts know no more than one of them."""
    four: list[Winner] = ["a", "a", "a", "b"]
    verdicts = [
        Verdict(str(n), winner, "a", f"P{p}") for n, winner in enumerate(four) for p in range(10)
    ]
    counted = count(verdicts, both_orders=False)
    assert counted.whole.table == Table(30, 0, 10)
    assert counted.whole.score is not None
    assert counted.whole.score.low <= 0.25
    assert (counted.prompts_won, counted.prompts_lost, counted.p) == (3, 1, 0.625)
    assert (counted.raters, counted.rated_together, counted.rated_alike) == (10, 180, 180)


def test_people_who_do_not_agree_widen_the_interval() -> None:
    """Each of two people likes one model, whatever the prompt: nobody knows what a third likes."""
    likes: dict[str, Winner] = {"P1": "a", "P2": "b"}
    verdicts = [
        Verdict(str(n), winner, "a", rater) for n in range(100) for rater, winner in likes.items()
    ]
    counted = count(verdicts, both_orders=False)
    assert counted.whole.score == statistics.Estimate(0.5, 0.0, 1.0)
    assert counted.rated_alike == 0


# -- equal length --------------------------------------------------------------------------------


def test_a_judge_of_lengths_alone_sees_no_difference_at_equal_length() -> None:
    draw = random.Random(1)
    differences = [draw.gauss(60, 50) for _ in range(2000)]
    spread = math.sqrt(sum(d * d for d in differences) / 2000)
    scores = [
        float(draw.random() < 1 / (1 + math.exp(-3 * math.tanh(d / spread)))) for d in differences
    ]
    assert sum(scores) / 2000 > 0.75
    found = statistics.at_equal_length(scores, differences)
    assert found.value == pytest.approx(0.5, abs=0.05)
    assert found.low < 0.5 < found.high


def test_the_score_at_equal_length_is_that_of_the_answers_that_were_drawn() -> None:
    """2,000 verdicts of a judge who likes A by 0.4 log-odds and length besides."""
    draw = random.Random(2)
    differences = [draw.gauss(1, 1) for _ in range(2000)]
    spread = math.sqrt(sum(d * d for d in differences) / 2000)
    scores = [
        float(draw.random() < 1 / (1 + math.exp(-0.4 - 1.5 * math.tanh(d / spread))))
        for d in differences
    ]
    found = statistics.at_equal_length(scores, differences)
    assert found.value == pytest.approx(1 / (1 + math.exp(-0.4)), abs=0.05)
    assert 0.5 < found.low < found.value < found.high < sum(scores) / 2000


def test_answers_of_the_same_length_keep_their_score() -> None:
    same = statistics.at_equal_length([1, 1, 1, 0] * 25, [0.0] * 100)
    assert same.value == pytest.approx(0.75, abs=0.001)
    assert (same.low, same.high) == pytest.approx((0.66, 0.83), abs=0.03)
    assert 0.98 < statistics.at_equal_length([1.0] * 100, [5.0] * 100).value < 1


def test_a_score_without_exception_is_not_certain() -> None:
    """Seven losses of seven: of so many, 41 % wins might go unseen once in forty cases."""
    never = statistics.mean([0.0] * 7)
    assert (never.value, never.low) == (0, 0)
    assert never.high == pytest.approx(0.41, abs=0.01)
    assert statistics.mean([1.0] * 7).low == pytest.approx(0.59, abs=0.01)
    narrow = statistics.mean([0.5] * 1000)
    assert 0.49 < narrow.low < 0.5 < narrow.high < 0.51


# -- invariants ----------------------------------------------------------------------------------


tables = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))


@settings(max_examples=10)  # each counts twice
@given(tables)
def test_a_table_and_its_mirror_image_say_the_same(table: tuple[int, int, int]) -> None:
    one = count(said_once(*table), both_orders=False)
    other = count(said_once(*reversed(table)), both_orders=False)
    assert one.p == other.p
    if one.whole.score and other.whole.score:
        assert one.whole.score.value == pytest.approx(1 - other.whole.score.value)
        assert 0 <= one.whole.score.low <= one.whole.score.value <= one.whole.score.high <= 1


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_sign_test_is_a_probability(wins: int, losses: int) -> None:
    p = statistics.sign_test(wins, losses)
    assert 0 < p <= 1
    assert p == 1 or wins != losses
