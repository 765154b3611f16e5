"""The bot's sentences in Japanese."""

from __future__ import annotations

from typing import Final

JAPANESE: Final[dict[str, str]] = {
    # While a reply is on its way
    "thinking": "考えています…",
    "thinking_for": "考えています… {seconds}秒",
    "queued": "順番を待っています({position}番目)…",
    "task_plan": "返事ができるまで",
    "task_queued": "順番待ち: {seconds}秒",
    "task_thinking": "読んで考える: {seconds}秒",
    "task_writing": "返事を書く",
    # At the end of a reply
    "stopped": "停止しました。",
    "cut_short": "長さの上限に達しました。「続ける」を押すと続きを書きます。",
    "repeated": "同じ内容の繰り返しが始まったため、そこで打ち切りました。",
    "thought_cut": (
        "まだ考えている途中で上限に達したため、答えが出ていません。"
        "「続ける」を押すと、続きを考えます。"
    ),
    "thought_over": "考えられる限り考えましたが、答えが出ませんでした。別の聞き方をしてください。",
    "nothing_said": "これに対する言葉がモデルから出てきませんでした。",
    "ended_by_reset": "この会話がリセットされたため、返事はここで終わりました。",
    "ended_by_edit": "質問が編集されたため、返事を書き直します。",
    "ended_by_delete": "質問が削除されたため、返事はここで終わりました。",
    # When there is none
    "no_core": "いま言語モデルが動いていません。しばらくしてからもう一度お試しください。",
    "busy": (
        "すでに{waiting}件のメッセージが順番を待っており、これ以上お受けできません。"
        "数分後にもう一度お試しください。"
    ),
    "too_long": (
        "このメッセージはモデルが読める長さを超えています。短くして、もう一度送ってください。"
    ),
    "too_long_by": (
        "このメッセージはモデルが読める長さを超えています({tokens:,}トークン、上限は{limit:,}トークン)。"
        "短くして、もう一度送ってください。"
    ),
    "file_binary": "`{name}` は読めるテキストではないため、お答えしていません。",
    "file_empty": "`{name}` は空のため、お答えしていません。",
    "file_failed": (
        "`{name}` を読み込めなかったため、お答えしていません。もう一度送ってください。"
    ),
    "file_gone": "`{name}` がなくなったか、読む権限がないため、お答えしていません。",
    "file_too_large": (
        "一つのメッセージで読めるテキストは256 KBまでです。`{name}` で超えたため、"
        "お答えしていません。"
    ),
    "file_too_many": (
        "一つのメッセージで読めるテキストファイルは10個までです。`{name}` で超えたため、"
        "お答えしていません。"
    ),
    "prompt_gone": "この返事のもとになったメッセージはもう記憶にないため、答え直せません。",
    "deadline": "時間内に答えられませんでした。もう一度質問してください。",
    "internal": "こちらで問題が起き、記録しました。もう一度質問してください。",
    "store_down": (
        "いま記憶装置につながらないため、メッセージを受け取れませんでした。"
        "しばらくしてからもう一度送ってください。"
    ),
    "not_allowed": "ここではお答えできない設定になっています。運用担当者にお尋ねください。",
    "quota": (
        "今日の利用上限に達しました。{time}からまた使えます。このメッセージは受け取っていません。"
    ),
    "quota_channel": (
        "このチャンネルの今日の利用上限に達しました。{time}からまた使えます。"
        "このメッセージは受け取っていません。"
    ),
    "tomorrow": "明日の0時",
    # Under a reply
    "file_read": "`{name}`: {whole:,}トークン中{tokens:,}トークンを読みました",
    "turn_dropped": "いちばん古いメッセージは、もう読める長さに入りません。",
    "turns_dropped": "古いほうから{turns}件のメッセージは、もう読める長さに入りません。",
    "words_read": "メッセージ: {whole:,}トークン中{tokens:,}トークンを読みました",
    "file_named": "`{name}`: 読んでいません",
    "files_more": "ほかに{files}個のファイル",
    "ai_notice": "AI({model})が書いた文章です。誤りが含まれることがあります。",
    "ai_notice_blind": "AIが書いたもので、誤りがあるかもしれません。",
    "collects": (
        "この返事への評価はモデルの学習に使われることがあります(「覚えていること」を参照)。"
    ),
    # Two answers to one question
    "duel_asks": "二つの答えのどちらが良いですか?どのモデルの答えかは最後に表示します。",
    "duel_votes": "投票: {votes}",
    "vote_a": "Aが良い",
    "vote_tie": "引き分け",
    "vote_b": "Bが良い",
    "vote_bad": "どちらも悪い",
    "voted_a": "Aに投票しました。モデル名が表示されるまでは変更できます。",
    "voted_tie": "「引き分け」に投票しました。モデル名が表示されるまでは変更できます。",
    "voted_b": "Bに投票しました。モデル名が表示されるまでは変更できます。",
    "voted_bad": "「どちらも悪い」に投票しました。モデル名が表示されるまでは変更できます。",
    "duel_over": "この答えへの投票は終わりました。",
    "stop": "停止",
    "regenerate": "書き直す",
    "continue": "続ける",
    "begin": "はじめの部分を読む",
    "as_file": "ファイルで受け取る",
    "file_is_there": "返事の全文です(一つのファイル):",
    "file_is_sent": "返事の全文を一つのファイルにして、ダイレクトメッセージでお送りしました。",
    "file_gone_by_now": "その返事はもう記憶にないため、ファイルにできません。",
    "file_refused": "ファイルを送れませんでした({reason})。",
    "good": "良い回答",
    "bad": "良くない回答",
    "menu_help": "使い方",
    "menu_privacy": "覚えていること",
    "menu_model": "返事をするモデル",
    "menu_reset": "この会話を忘れる",
    "feedback_thanks": "フィードバックをありがとうございます。",
    "feedback_title": "フィードバック",
    "feedback_reason": "良かった点、良くなかった点(任意)",
    "feedback_reason_hint": "この返事の番号とともに、運用担当者が読めるように保存されます。",
    "send": "送信",
    "cancel": "キャンセル",
    "close": "閉じる",
    "not_yours": "この操作は、質問した人と管理者だけができます。",
    "too_late": "その返事はすでに終わっています。",
    # Where and how to talk
    "mention_again": "このスレッドで続けるには、もう一度メンションしてください: {mention}",
    "files_not_read": "{files}は読めません。読めるのは、文章とテキストファイルです。",
    "stranger": "このボットを運用しているワークスペースのメンバーにだけお答えしています。",
    "cannot_post": "{channel} に書き込む権限がありません。チャンネルに招待してください。",
    "post_refused": (
        "{channel} への返信を Slack が受け付けませんでした（{error}）。"
        "ワークスペースの管理者に確認してください。"
    ),
    "nothing_asked": (
        "はい、何でしょうか。メンションに続けて質問を書いてください。「help」で使い方を表示します。"
    ),
    "asked": "{person} さんの質問: {text}",
    # Help
    "runs_here": "自分たちのマシンで動く",
    "runs_host": "{host} で動く",
    "stays_here": "内容は自分たちのマシンにとどまり、他社には送られません。",
    "stays_host": (
        "内容は自分たちのマシンに保存されます。"
        "答えるために、{host} にあるモデルのサーバーへ送られます。"
    ),
    "help": (
        "言語モデルでお答えします。話しかけると同じ会話の中で返事をします。"
        "「reset」で会話を忘れ、「stop」で返事を止めます。"
    ),
    "help_slack": (
        "*{name}* は、{runs}言語モデル({model})でお答えします。\n"
        "• チャンネルやスレッドでメンションするか、直接メッセージを送ってください。\n"
        "• 参加しているスレッドでは、メンションがなくても答えます。\n"
        "• 「{mention} reset」: このスレッドを忘れます。「{mention} stop」: 返事を止めます。\n"
        "• 「{mention} privacy」: 記憶の内容。「{mention} model」: 答えているモデル。"
    ),
    "help_command": (
        "`{command} ask …`・`{command} catchup`・`{command} usage`・`{command} reset`・"
        "`{command} privacy`・`{command} model`・`{command} persona`"
    ),
    "usage_command": "`{command} ask` に続けて質問を書くか、`{command} help` をお試しください。",
    "privacy": (
        "参加しているスレッドでの発言を、モデルが読める分だけ、"
        "最後のメッセージから最長 {days} 日間記憶します。"
        "{stays}"
        "編集・削除されたメッセージは、記憶からも編集・削除されます。"
    ),
    "privacy_training": (
        "管理者が有効にした場所では、評価、投票、再生成された返事を、それまでの会話とともに"
        "モデルの学習のために保存します。該当する返事にはその旨を表示します。"
    ),
    "opt_out": "私の発言を学習のために保存しない",
    "opt_in": "私の発言を学習のために保存してよい",
    "opted_out": (
        "今後、あなたの発言や投票を含むものは学習のために保存しません。保存していたものは消しました。"
        "すでに学習したモデルは忘れることができません。"
    ),
    "opted_in": (
        "今後、管理者が有効にした場所では、あなたへの返事を学習のために保存することがあります。"
    ),
    "model": "ここで答えているモデルは {model} です。",
    # What is left, and help that fits
    "usage_head": "今日の利用状況:",
    "usage_person": "あなた(ここ)",
    "usage_all": "あなた(すべての場所)",
    "usage_channel": "このチャンネル全体",
    "usage_messages": "メッセージ",
    "usage_tokens": "トークン",
    "usage_limited": "• {what}({whose}): {most:,} のうち {used:,} を使い、残りは {left:,} です。",
    "usage_free": "• {what}({whose}): {used:,} を使いました。上限はありません。",
    "usage_again": "次は {time} に始まります。",
    "guide_reads": (
        "• 一度に読めるのは、それまでの会話を含めて約{pages}ページ({tokens:,}トークン)です。"
    ),
    "guide_reads_page": (
        "• 一度に読めるのは、それまでの会話を含めて約1ページ({tokens:,}トークン)です。"
    ),
    "guide_files": (
        "• テキストファイルを読めます。一つのメッセージに{files}個、合わせて{size} KBまでです。"
    ),
    "guide_blind": "• 画像、PDF、オフィス文書、ウェブページは読めません。分かるのは名前だけです。",
    "guide_typed": "• 入力された文章だけを読みます。ファイル、画像、ウェブページは読めません。",
    "guide_remembers": "• 会話は、最後のメッセージから{days}日間、読める長さの分だけ記憶します。",
    "guide_choices": "• 会話ごとに、答えるものを選べます: {names}。",
    "guide_left": "• 今日の残りは {left} です。次は {time} に始まります。",
    "guide_examples": "聞き方の例を三つ挙げます。",
    "example_explain": "• リバースプロキシの働きを、三文で説明してください。",
    "example_write": "• 会議を金曜日に変更したいという、丁寧な文面を書いてください。",
    "example_plan": "• 冬の京都に二日間行きます。何を持っていけばよいですか?",
    "slack_help_refused": "ホームページから、あなたの発言をすべて忘れさせることはできます。",
    "discord_help_refused": (
        "`/プライバシー` で、あなたについての記憶の表示・書き出し・消去ができます。"
    ),
    "help_admins": "• 管理者は {commands} も使えます。",
    "cmd_usage": "利用状況",
    "cmd_usage_about": "今日使った量と残り、次に始まる時刻を表示します",
    "menu_usage": "今日の残り",
    # Continue from here
    "branch_opened": "{person} さんが、{link}からの続きをこのスレッドで始めます。",
    "branch_link": "前のメッセージ",
    "branch_how": "最初のメッセージではメンションしてください: {mention}。",
    "branch_done": "選ばれたメッセージまでの会話を覚えています。",
    "branch_evicted": (
        "選ばれたメッセージまでの会話を覚えています。ただし、いちばん古いメッセージは読める長さを"
        "超えたため、記憶にありません。"
    ),
    "branch_told": "会話の続きはこちらです: {link}",
    "branch_gone": "そのメッセージは記憶にない(またはまだ書いている)ため、続きを始められません。",
    "branch_full": "この会話の続きは、すでに上限まで作られています。",
    "branch_private": (
        "新しいスレッドは、この会話を読めない人にも見えるため、続きを始められません。"
    ),
    "branch_not_here": "ここではスレッドを開けません。",
    "shortcut_branch": "ここから続ける",
    "shortcut_branch_about": "メッセージまでの会話を覚えた、新しいスレッドで続けます",
    "cmd_menu_branch": "ここから続ける",
    "cmd_menu_branch_about": "メッセージまでの会話を覚えた、新しいスレッドで続けます",
    # Catch me up
    "catchup_prompt": (
        "以下は会話です。一行に一つ、番号付きのメッセージがあります。決まったこと、未解決の質問、"
        "誰が何をするかを、短い箇条書きで要約してください。各項目の末尾に、もとの"
        "メッセージの番号を [3] のように書いてください。書かれていないことは加えないでください。"
    ),
    "catchup_reading": "読んでいます…",
    "catchup_progress": "読んでいます({pieces}個のうち{done}個が終わりました)…",
    "catchup_head": "{messages}件のメッセージの要約([ここから]({link})):",
    "catchup_parts": "もとの部分:{links}",
    "catchup_nothing": "新しいメッセージはありません。",
    "catchup_no_access": "あなたと私の両方が読める場所だと確認できなかったため、読んでいません。",
    "catchup_running": "あなたの要約を作成中です。先にそちらを停止してください。",
    "catchup_stopped": "停止しました。要約はありません。",
    "catchup_stop_late": "作成中の要約はありません。",
    "catchup_no_span": (
        "期間として読めませんでした。`2h`・`3d`・`今日`・`2026-11-28`・`前回から` のように"
        "書いてください。"
    ),
    "catchup_future": "その時刻は未来です。まだ読むものがありません。",
    "catchup_large": (
        "長い会話です({messages}件)。要約には{pieces}回の処理と、あなたの利用分から約{tokens:,}"
        "トークンが必要です。"
    ),
    "catchup_too_much": (
        "一度に要約できる量を超えています。新しいほうの{newest}件なら、{pieces}回の処理と、"
        "あなたの利用分から約{tokens:,}トークンで要約できます。"
    ),
    "catchup_limited": (
        "ここでは一分に読めるメッセージの数が限られているため、新しいほうの{messages}件の要約です。"
    ),
    "catchup_limited_all": (
        "ここでは一分に読めるメッセージの数が限られています。一分後にもう一度お試しください。"
    ),
    "catchup_go": "要約する",
    "catchup_go_newest": "新しい部分を要約する",
    "cmd_catchup": "要約",
    "cmd_catchup_about": "ここでの会話を、あなただけに要約します",
    "cmd_span": "期間",
    "cmd_span_about": "2h・3d・今日・日付・前回から(既定)",
    "cmd_menu_summary": "スレッドを要約",
    "cmd_menu_summary_about": "メッセージのスレッドを、あなただけに要約します",
    "shortcut_summary": "スレッドを要約",
    "shortcut_summary_about": "メッセージのスレッドを、あなただけに要約します",
    # Reset
    "reset_not_yours": (
        "ここではほかの人が返事を待っています。その返事を終わらせられるのは、"
        "質問した人と管理者だけです。書き終わってからもう一度お試しください。"
    ),
    "reset_done": "この会話の内容を忘れました。",
    "reset_nothing": "忘れるものはありませんでした。",
    "reset_scope_done": "{scope}の記憶を消しました。",
    "reset_title": "記憶を消しますか",
    "reset_confirm": "{scope}について記憶していることをすべて消します。元に戻せません。",
    "reset_yes": "消す",
    "reset_refused": "{scope}のリセットは管理者だけができます。",
    "scope_thread": "この会話",
    "scope_channel": "このチャンネル",
    "scope_user": "特定の人",
    "scope_space": "ワークスペース全体",
    "scope_mine": "あなたのすべての発言",
    "reset_pick_channel": "どのチャンネルですか",
    "reset_pick_user": "どの人ですか",
    "app_description": "自分たちで動かす言語モデルが、スレッドで答えます。",
    # Rules of a place
    "config_shown": "ここでの設定:\n{rules}",
    "config_nothing": "ここでは何も設定されていません。設定できるもの: {names}",
    "config_not_set": "{name} はここでは設定されていません。",
    "config_set": "ここでは今から {name} = {value} です。",
    "config_unset": "{name} の設定をここから外しました。",
    "config_unserved": "今 {model} の core は動いていません。動くまで、ここではお答えできません。",
    "config_unmeasured": (
        "今はプロンプトのトークン数を数えられません。モデルの上限を超えているかもしれません。"
    ),
    "prompt_too_long": (
        "システムプロンプトは{tokens:,}トークンで、モデルが読める長さの半分({most:,}トークン)を"
        "超えています"
    ),
    "persona_gone": "使っていた会話は既定の設定に戻り、そのことを一度だけお知らせします。",
    # What people choose
    "persona": "ここで答えているペルソナ:{persona}",
    "choice_usual": "ここの既定",
    "choice_away": "{name}(停止中)",
    "choice_offered": "選べるもの:{names}",
    "choice_lost": "「{name}」はここでは選べなくなりました。既定の設定でお答えします。",
    "choice_unknown": "「{name}」はここでは選べません。何も変更していません。",
    "choice_refused": "{name} は停止中で、動いている core がありません。何も変更していません。",
    "choice_set": "この会話では、これから {name} でお答えします。",
    "choice_unset": "この会話では、これから既定の設定でお答えします。",
    "choice_where": "スレッドごとの変更は、返事の下のメニュー(「返事をするモデル」)からできます。",
    "choice_title": "ここで答えるもの",
    "choice_model": "モデル",
    "choice_persona": "ペルソナ",
    "config_collects": "ここでの返事にはその旨を表示します。「覚えていること」から拒否できます。",
    "config_wrong": "何も変更していません。理由: {reason}",
    # The home page
    "home_title": "{name} (返事)",
    "home_what": "自分たちで運用するチャットボットです。スレッドで、書きながら返事をします。",
    "home_model": "モデル: {model}",
    "home_host": "質問は、{host} にあるモデルのサーバーへ送られます。",
    "home_forget": "私の発言をすべて忘れる",
    "home_admin": "管理者向け",
    "home_reset_channel": "チャンネルをリセット",
    "home_reset_user": "特定の人をリセット",
    "home_reset_space": "ワークスペースをリセット",
    # First words
    "prompt_greeting": "何についてお話ししましょうか。",
    "prompt_summary_title": "文章を要約する",
    "prompt_summary": "次の文章を3行で要約してください:\n",
    "prompt_draft_title": "文面を作る",
    "prompt_draft": "次の内容を伝える丁寧な文面を書いてください:\n",
    "prompt_ideas_title": "アイデアを出す",
    "prompt_ideas": "次のテーマでアイデアを5つ挙げてください:\n",
    "shortcut_ask": "このメッセージについて聞く",
    "shortcut_ask_about": "メッセージについて言語モデルに質問します",
    "shortcut_reset_about": "メッセージのスレッドの会話を忘れます",
    "slack_model_about": "ここで答えているモデルと、スレッドで選べるモデルを表示します",
    "slack_persona_about": "ここで答えているペルソナと、スレッドで選べるものを表示します",
    "slack_privacy_about": "記憶する内容と期間を表示します",
    "shortcut_reset": "このスレッドをリセット",
    # On Discord
    "moved_here": "コマンドの有効時間が過ぎるため、非公開の返事の続きはここに書きます。",
    "moved_there": "返事に時間がかかっているため、続きはダイレクトメッセージでお送りします。",
    "cmd_ask": "聞く",
    "cmd_ask_about": "言語モデルに質問します",
    "cmd_prompt": "質問",
    "cmd_prompt_about": "聞きたいこと",
    "cmd_private": "非公開",
    "cmd_private_about": "返事を自分だけに表示します",
    "cmd_file": "ファイル",
    "cmd_file_about": "読むテキストファイル",
    "cmd_chat": "会話",
    "cmd_chat_about": "会話用のスレッドを開きます",
    "cmd_reset": "リセット",
    "cmd_reset_about": "この会話を忘れます",
    "cmd_stop": "停止",
    "cmd_stop_about": "書いている途中の返事を止めます",
    "cmd_regenerate": "書き直し",
    "cmd_regenerate_about": "最新の返事を書き直します",
    "cmd_model": "モデル",
    "cmd_model_about": "ここで答えているモデルを表示し、この会話用に選びます",
    "cmd_choice": "名前",
    "cmd_choice_about": "この会話で使うもの",
    "cmd_persona": "ペルソナ",
    "cmd_persona_about": "ここで答えているペルソナを表示し、この会話用に選びます",
    "cmd_privacy": "プライバシー",
    "cmd_privacy_about": "あなたについての記憶の表示・書き出し・消去",
    "cmd_help": "ヘルプ",
    "cmd_help_about": "使い方を表示します",
    "cmd_admin": "管理",
    "cmd_admin_about": "このサーバーの管理者向け",
    "cmd_admin_reset": "リセット",
    "cmd_admin_reset_about": "会話を忘れます",
    "cmd_thread": "スレッド",
    "cmd_thread_about": "このスレッドの会話を忘れます",
    "cmd_channel": "チャンネル",
    "cmd_channel_about": "チャンネルのすべての会話を忘れます",
    "cmd_user": "ユーザー",
    "cmd_user_about": "ある人がここで書いたことを忘れます",
    "cmd_server": "サーバー",
    "cmd_server_about": "このサーバーのすべての会話を忘れます",
    "cmd_status": "状態",
    "cmd_status_about": "動いているものと待っているものを表示します",
    "cmd_config": "設定",
    "cmd_config_about": "このチャンネル、またはサーバーの設定を表示・変更します",
    "cmd_rules": "規則",
    "cmd_rules_about": "例: temperature 0.2、サーバー全体は space person_messages 50",
    "cmd_audit": "監査",
    "cmd_audit_about": "誰が何を忘れさせたかを表示します",
    "cmd_which": "対象",
    "cmd_which_about": "省略すると今いる場所",
    "cmd_menu_ask_about": "メッセージについて言語モデルに質問します",
    "cmd_menu_ask": "これについて聞く",
    "discord_help": (
        "{runs}言語モデル({model})でお答えします。\n"
        "• `/聞く`: 質問します。`非公開` にすると返事は自分だけに見えます。"
        "`/会話`: 会話用のスレッドを開きます。\n"
        "• チャンネルやスレッドでメンションするか、直接メッセージを送ってください。"
        "\n"
        "• `/停止`・`/書き直し`・`/リセット` は、今いる会話が対象です。"
        "\n"
        "• `/要約`: あなただけへの要約。`/利用状況`: 今日の残り。\n"
        "• `/プライバシー`: あなたについて記憶していること。"
    ),
    "chat_opened": "{person} さんとの会話です。下のスレッドに書いてください。",
    "chat_mention": (
        "何についてお話ししましょうか。メッセージごとにメンションしてください: {mention}"
    ),
    "chat_here": "ここはすでに会話の場です。そのまま書いてください。",
    "chat_not_here": "ここではスレッドを開けません。代わりに `/聞く` をお使いください。",
    "nothing_asked_here": (
        "はい、何でしょうか。メンションに続けて質問を書くか、`/聞く` をお使いください。"
        "`/ヘルプ` で使い方を表示します。"
    ),
    "no_time": (
        "いま混み合っているため、メッセージを受け取れませんでした。"
        "しばらくしてからもう一度お送りください。"
    ),
    "no_text_there": "そのメッセージには、読める文章がありません。",
    "nothing_to_stop": "ここで書いている途中の、あなたへの返事はありません。",
    "stopping": "停止します。",
    "nothing_to_regenerate": "ここには書き直せる返事がありません。",
    "regenerating": "最新の返事を書き直しています。",
    "admins_only": "この操作は、管理者だけができます。",
    "not_in_thread": "スレッドの中でお使いください。",
    "export_button": "自分の記録を書き出す",
    "forget_button": "自分を忘れさせる",
    "forget_sure": (
        "ここと直接メッセージであなたが書いたことと、それへの返事をすべて忘れます。元に戻せません。"
    ),
    "forget_done": "{turns} 件のメッセージを忘れました。",
    "export_done": "あなたについて記憶していること({turns} 件):",
    "export_nothing": "ここではあなたについて何も記憶していません。",
    "status_line": (
        "モデル: {model}。動いている言語モデル: {cores}。返事を待っている会話: {waiting}。"
        "このサーバーで記憶している会話: {threads}。"
    ),
    "audit_nothing": "この場所の監査ログには何もありません。",
    "cannot_post_here": (
        "{channel} に書き込む権限がありません。管理者がチャンネルの権限で変更できます。"
    ),
    "thread_locked": "スレッド {channel} はロックされているため、返答できません。",
    "reply_blocked": "有害なメッセージを防ぐルールにより、返答がブロックされました。",
    "reply_not_accepted": "ここでは返答が受け付けられませんでした。別の聞き方でお試しください。",
    "rest_in_file": "ここに送れるメッセージ数の上限に達しました。全文はファイルにあります。",
    # The terminal
    "console_small_model": (
        "{model}は試用のための小さな英語モデルです。日本語のrinnaのモデルを使うには:"
    ),
    "console_commands": (
        "/help で使い方を表示します。Ctrl-C で返事を止め、続けて2回押すと終了します。"
    ),
    "console_help": (
        "{model} が答えます。\n"
        "/continue  長さの上限に達した返事の続きを書く\n"
        "/beginning 長すぎたメッセージのはじめの部分に答える\n"
        "/reset     この会話を忘れる\n"
        "/history   覚えている内容を表示する\n"
        "/usage     今日の利用状況を表示する\n"
        "/help      この説明を表示する\n"
        "Ctrl-C で返事を止め、2回押すか Ctrl-D で終了します。"
    ),
    "console_leave": "もう一度 Ctrl-C を押すと終了します。",
    "console_nothing_cut": "続きを書ける返事はありません。",
    "console_begin": "/beginning と入力すると、はじめの部分に答えます。",
    "console_nothing_refused": "長すぎたメッセージはありません。",
    "console_you": "あなた",
    "console_no_history": "この会話について覚えていることはありません。",
    "console_remembered": "この会話のメッセージを{turns}件覚えています。",
    # -- henji compare
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
