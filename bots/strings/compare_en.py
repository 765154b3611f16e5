"""What `henji compare` says in English: its table, its report, and its page for people."""

from __future__ import annotations

from typing import Final

COMPARE_ENGLISH: Final[dict[str, str]] = {
    # The table and the report
    "compare_title": "{a} against {b}",
    "compare_by_people": "Judged by people",
    "compare_by_server": "Judged by {judge}",
    "compare_by_reward": "Judged by the reward model {judge}",
    "compare_by_rule": "Counted by the rule {judge}",
    "compare_win": "win",
    "compare_tie": "tie",
    "compare_loss": "loss",
    "compare_of": "of {total}",
    "compare_score": "score (win 1, tie ½)",
    "compare_interval": "{value:.3f}, 95 % interval {low:.3f} to {high:.3f}",
    "compare_sign_test": "sign test",
    "compare_sign_test_value": "{p} ({won} prompts won, {lost} lost)",
    "compare_equal_length": "score at equal length",
    "compare_contradictions": "contradictions between the orders",
    "compare_of_pairs": "{number} of {total} pairs",
    "compare_first_place": "the first place won",
    "compare_of_decisive": "{number} of {total} decisive verdicts",
    "compare_unreadable": "unreadable verdicts",
    "compare_both_bad": "both bad (counted as ties)",
    "compare_raters": "people",
    "compare_raters_value": "{raters}; on a prompt that two judged, {alike} of {together} alike",
    "compare_not_blind": "not blind: an answer names its model",
    "compare_not_blind_value": (
        "{number} prompts; without them {wins} | {ties} | {losses}, score {score}"
    ),
    "compare_answers": "The answers",
    "compare_median_length": "median length, characters",
    "compare_cut_off": "cut off at the length limit",
    "compare_looping": "looping",
    "compare_empty": "empty",
    "compare_not_known": "not known",
    "compare_left_out": "prompts left out",
    "compare_left_out_value": "{number}: longer than a model can read",
    # What it can and cannot show
    "compare_shows_better": "{name} won more prompts than chance explains ({p}).",
    "compare_shows_nothing": (
        "The table does not show which model is better ({p}). That is no proof that they are "
        "equally good."
    ),
    "compare_shows_mixed": (
        "The sign test and the interval do not agree on whether one of the models is better "
        "({p}): more prompts, or more people, would tell."
    ),
    "compare_power": (
        "{decisive} decided prompts see a true 60 % in {seen} of 10 cases, and a true "
        "{detectable} % in 8 of 10."
    ),
    "compare_little_power": (
        "{decisive} decided prompts see a true 60 % in {seen} of 10 cases: too few to see any "
        "difference reliably."
    ),
    "compare_no_verdicts": "Nothing was judged yet.",
    "compare_unfinished": "{number} of {total} pairs are not judged yet.",
    "compare_trained_on": (
        "{name} was trained on {number} of the {total} prompts: compare on others to see what it "
        "learned."
    ),
    "compare_judge_guesses": (
        "This judge's two verdicts on a pair agree no more clearly than a coin's would "
        "({agreed} agree, {opposed} contradict): its table says nothing about the models."
    ),
    "compare_judge_is_program": (
        "A model judged. Small judges agree with people on little more than half of the pairs: "
        "have people judge a sample too."
    ),
    "compare_rule_is_gameable": (
        "A rule counts one thing that can be counted. A model that follows it may still be worse: "
        "read the answers."
    ),
    "compare_lengths_differ": (
        "{name} writes longer answers (median {longer} characters against {shorter}), and judges "
        "like length: compare the score at equal length."
    ),
    # What is needed to repeat it
    "compare_repeat": "To repeat it",
    "compare_prompts": "prompts",
    "compare_prompts_value": "{number} from {file}, SHA-256 {sha256}",
    "compare_seed": "seed",
    "compare_model": "model {side}",
    "compare_judge": "judge",
    "compare_started": "started",
    # The report alone
    "compare_categories": "Score by category",
    "compare_whole": "all prompts",
    "compare_better_left": "{name} better",
    "compare_lengths": "Lengths of the answers",
    "compare_lengths_axis": "characters",
    "compare_pairs": "The answers, side by side",
    "compare_show_all": "all",
    "compare_show_wins": "{name} won",
    "compare_show_ties": "ties",
    "compare_no_verdict": "no verdict",
    "compare_verdict_unreadable": "unreadable",
    "compare_verdict_both_bad": "both bad",
    "compare_order": "{name} first",
    "compare_characters": "{number} characters",
    "compare_ending_length": "cut off",
    "compare_ending_repetition": "looping",
    "compare_made_by": "Made by henji compare from {directory}.",
    # The page for people
    "page_title": "Which answer is better?",
    "page_prompt": "The message",
    "page_left": "Answer 1 is better",
    "page_right": "Answer 2 is better",
    "page_tie": "Equally good",
    "page_both_bad": "Both are bad",
    "page_answer_left": "Answer 1",
    "page_answer_right": "Answer 2",
    "page_empty_answer": "(an empty answer)",
    "page_undo": "Undo",
    "page_progress": "{done} of {total}",
    "page_not_blind": "An answer names its model: this vote is marked as not blind.",
    "page_taken": (
        "This pair was judged already through this link, perhaps in another window. The first "
        "vote stands. Each person needs a link of their own."
    ),
    "page_undone": "Your last vote was taken back.",
    "page_nothing_to_undo": "There is no vote to take back.",
    "page_done_title": "Thank you",
    "page_done": "That was the last pair of {total}. You can close this page.",
    "page_keys": "Keys: 1 to 4 vote, U takes the last vote back",
    "page_unknown": "This page does not exist. Check that the whole link was copied.",
}
