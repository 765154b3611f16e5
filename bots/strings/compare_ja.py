"""What `henji compare` says in Japanese: its table, its report, and its page for people."""

from __future__ import annotations

from typing import Final

COMPARE_JAPANESE: Final[dict[str, str]] = {
    # The table and the report
    "compare_title": "{a} と {b} の比較",
    "compare_by_people": "人による判定",
    "compare_by_server": "{judge} による判定",
    "compare_by_reward": "報酬モデル {judge} による判定",
    "compare_by_rule": "規則 {judge} による集計",
    "compare_win": "勝ち",
    "compare_tie": "引き分け",
    "compare_loss": "負け",
    "compare_of": "計 {total}",
    "compare_score": "スコア(勝ち1、引き分け½)",
    "compare_interval": "{value:.3f}、95%区間 {low:.3f}〜{high:.3f}",
    "compare_sign_test": "符号検定",
    "compare_sign_test_value": "{p}(質問単位で{won}勝{lost}敗)",
    "compare_equal_length": "同じ長さでのスコア",
    "compare_contradictions": "順番を替えると矛盾した判定",
    "compare_of_pairs": "{total}組のうち{number}組",
    "compare_first_place": "先に示した回答の勝ち",
    "compare_of_decisive": "勝敗のついた判定{total}件のうち{number}件",
    "compare_unreadable": "読み取れない判定",
    "compare_both_bad": "どちらも悪い(引き分けに数える)",
    "compare_raters": "判定者",
    "compare_raters_value": "{raters}人。二人が判定した{together}組のうち{alike}組で一致",
    "compare_not_blind": "名前が見えた回答(モデル名を含む)",
    "compare_not_blind_value": ("{number}問。除くと {wins} | {ties} | {losses}、スコア {score}"),
    "compare_answers": "回答",
    "compare_median_length": "長さの中央値(文字)",
    "compare_cut_off": "長さの上限で切れた回答",
    "compare_looping": "繰り返しに陥った回答",
    "compare_empty": "空の回答",
    "compare_not_known": "不明",
    "compare_left_out": "除いた質問",
    "compare_left_out_value": "{number}問:モデルが読める長さを超える",
    # What it can and cannot show
    "compare_shows_better": "{name} は、偶然では説明できないほど多くの質問で勝ちました({p})。",
    "compare_shows_nothing": (
        "この表からは、どちらのモデルが良いかは分かりません({p})。"
        "同じくらい良いという証明でもありません。"
    ),
    "compare_shows_mixed": (
        "どちらかが良いかどうか、符号検定と区間の結果が一致しません({p})。"
        "質問か判定者を増やせば分かります。"
    ),
    "compare_power": (
        "勝敗のついた質問{decisive}問では、真の勝率60%を10回に{seen}回、"
        "真の勝率{detectable}%を10回に8回見つけられます。"
    ),
    "compare_little_power": (
        "勝敗のついた質問{decisive}問では、真の勝率60%を10回に{seen}回しか見つけられません。"
        "差を確かめるには少なすぎます。"
    ),
    "compare_no_verdicts": "まだ判定がありません。",
    "compare_unfinished": "{total}組のうち{number}組はまだ判定されていません。",
    "compare_trained_on": (
        "{name} は{total}問のうち{number}問で学習しています。"
        "学習の成果を見るには、ほかの質問で比べてください。"
    ),
    "compare_judge_guesses": (
        "順番を替えた2回の判定の一致が、硬貨を投げた場合と区別できません"
        "(一致{agreed}組、矛盾{opposed}組)。この表はモデルについて何も語りません。"
    ),
    "compare_judge_is_program": (
        "審判はモデルです。小さな審判が人と一致するのは半分を少し超える程度です。"
        "一部は人にも判定してもらってください。"
    ),
    "compare_rule_is_gameable": (
        "規則は数えられる一つのことだけを数えます。"
        "規則に従うモデルのほうが悪いこともあります。回答を読んでください。"
    ),
    "compare_lengths_differ": (
        "{name} の回答のほうが長く(中央値 {longer} 文字、相手は {shorter} 文字)、"
        "審判は長い回答を好みます。同じ長さでのスコアも見てください。"
    ),
    # What is needed to repeat it
    "compare_repeat": "再現に必要なもの",
    "compare_prompts": "質問",
    "compare_prompts_value": "{file} の{number}問、SHA-256 {sha256}",
    "compare_seed": "シード値",
    "compare_model": "モデル {side}",
    "compare_judge": "審判",
    "compare_started": "開始日時",
    # The report alone
    "compare_categories": "分野別スコア",
    "compare_whole": "全質問",
    "compare_better_left": "{name} が優勢",
    "compare_lengths": "回答の長さ",
    "compare_lengths_axis": "文字",
    "compare_pairs": "回答の比較",
    "compare_show_all": "すべて",
    "compare_show_wins": "{name} の勝ち",
    "compare_show_ties": "引き分け",
    "compare_no_verdict": "判定なし",
    "compare_verdict_unreadable": "読み取れない",
    "compare_verdict_both_bad": "どちらも悪い",
    "compare_order": "{name} が先",
    "compare_characters": "{number}文字",
    "compare_ending_length": "途中で切れた",
    "compare_ending_repetition": "繰り返し",
    "compare_made_by": "henji compare が {directory} から作成しました。",
    # The page for people
    "page_title": "どちらの回答が良いですか?",
    "page_prompt": "質問",
    "page_left": "回答1が良い",
    "page_right": "回答2が良い",
    "page_tie": "同じくらい",
    "page_both_bad": "どちらも悪い",
    "page_answer_left": "回答1",
    "page_answer_right": "回答2",
    "page_empty_answer": "(空の回答)",
    "page_undo": "取り消す",
    "page_progress": "{total}組中 {done}組",
    "page_not_blind": "モデル名を含む回答があります。この判定にはその印が付きます。",
    "page_taken": (
        "この組は、このリンクからすでに判定されています(別のウィンドウかもしれません)。"
        "先の判定が有効です。一人に一つのリンクが必要です。"
    ),
    "page_undone": "直前の判定を取り消しました。",
    "page_nothing_to_undo": "取り消せる判定はありません。",
    "page_done_title": "ありがとうございました",
    "page_done": "{total}組すべての判定が終わりました。このページは閉じて構いません。",
    "page_keys": "キー:1〜4で判定、Uで直前の判定を取り消し",
    "page_unknown": "ページが見つかりません。リンク全体を写したか確かめてください。",
}
