"""The bot's sentences in English."""

from __future__ import annotations

from typing import Final

ENGLISH: Final[dict[str, str]] = {
    # While a reply is on its way
    "thinking": "Thinking…",
    "thinking_for": "Thinking… {seconds} s",
    "queued": "Waiting: {position} in line…",
    "task_plan": "From the question to the reply",
    "task_queued": "Waited in line: {seconds} s",
    "task_thinking": "Read and thought: {seconds} s",
    "task_writing": "Writing the reply",
    # At the end of a reply
    "stopped": "Stopped.",
    "cut_short": "The reply reached its length limit. “Continue” goes on from here.",
    "repeated": "The reply began to repeat itself and was cut there.",
    "thought_cut": (
        "The model was still thinking when it reached its limit, so there is no answer yet. "
        "“Continue” lets it go on."
    ),
    "thought_over": (
        "The model has thought for as long as it can, and found no answer. "
        "Please ask in another way."
    ),
    "nothing_said": "The model had nothing to say to that.",
    "ended_by_reset": "This conversation was reset, so the reply ended here.",
    "ended_by_edit": "The question was edited, so the reply starts again.",
    "ended_by_delete": "The question was deleted, so the reply ended here.",
    # When there is none
    "no_core": "No language model is running right now. Please try again in a while.",
    "busy": (
        "{waiting} messages are waiting for an answer already, and there is no room for more. "
        "Please try again in a few minutes."
    ),
    "too_long": (
        "This message is longer than the model can read. Please shorten it and send it again."
    ),
    "too_long_by": (
        "This message is longer than the model can read: {tokens:,} tokens, and {limit:,} is the "
        "most. Please shorten it and send it again."
    ),
    "file_binary": "`{name}` is not text that I can read, so I did not answer.",
    "file_empty": "`{name}` is empty, so I did not answer.",
    "file_failed": "`{name}` could not be loaded, so I did not answer. Please send it again.",
    "file_gone": "`{name}` was deleted, or I may not read it, so I did not answer.",
    "file_too_large": (
        "I read at most 256 KB of text in one message, and `{name}` goes beyond that, "
        "so I did not answer."
    ),
    "file_too_many": (
        "I read at most 10 text files in one message, and `{name}` is one too many, "
        "so I did not answer."
    ),
    "prompt_gone": (
        "The message that this reply answers is not remembered any more, "
        "so it cannot be answered again."
    ),
    "deadline": "No answer came in time. Please ask again.",
    "internal": "Something went wrong here, and it has been logged. Please ask again.",
    "store_down": (
        "The memory of this bot cannot be reached right now, so the message was not taken. "
        "Please send it again in a while."
    ),
    "not_allowed": "I am not set up to answer you here. Please ask whoever runs me.",
    "quota": (
        "You have used up what you can ask me today; you can ask again at {time}. "
        "This message was not taken."
    ),
    "quota_channel": (
        "This channel has used up what can be asked here today; you can ask again at {time}. "
        "This message was not taken."
    ),
    "tomorrow": "the start of tomorrow",
    # Under a reply
    "file_read": "`{name}`: {tokens:,} of {whole:,} tokens",
    "turn_dropped": "The oldest message no longer fits.",
    "turns_dropped": "The oldest {turns} messages no longer fit.",
    "words_read": "your message: {tokens:,} of {whole:,} tokens",
    "file_named": "`{name}`: not read",
    "files_more": "and {files} more files",
    "ai_notice": "Written by AI ({model}): it may be wrong.",
    "ai_notice_blind": "Written by AI: it may be wrong.",
    "collects": "Feedback on it may be used to train a model; see “What I remember”.",
    # Two answers to one question
    "duel_asks": "Two answers: which is better? The models are named after the vote.",
    "duel_votes": "Votes: {votes}",
    "vote_a": "A",
    "vote_tie": "Tie",
    "vote_b": "B",
    "vote_bad": "Both bad",
    "voted_a": "You voted for A. You can change that until the models are named.",
    "voted_tie": "You voted for a tie. You can change that until the models are named.",
    "voted_b": "You voted for B. You can change that until the models are named.",
    "voted_bad": "You voted that both are bad. You can change that until the models are named.",
    "duel_over": "The vote on these answers is over.",
    "stop": "Stop",
    "regenerate": "Regenerate",
    "continue": "Continue",
    "begin": "Read the beginning",
    "as_file": "As a file",
    "file_is_there": "The whole reply, as one file:",
    "file_is_sent": "The whole reply is in your direct messages with me, as one file.",
    "file_gone_by_now": "That reply is not remembered any more, so there is no file of it.",
    "file_refused": "The platform did not take the file ({reason}).",
    "good": "Good answer",
    "bad": "Bad answer",
    "menu_help": "Help",
    "menu_privacy": "What I remember",
    "menu_model": "Which model answers",
    "menu_reset": "Forget this conversation",
    "feedback_thanks": "Thank you for the feedback.",
    "feedback_title": "Feedback",
    "feedback_reason": "What was good or bad? (optional)",
    "feedback_reason_hint": "Whoever runs the bot can read it, with the reply's id.",
    "send": "Send",
    "cancel": "Cancel",
    "close": "Close",
    "not_yours": "Only the person who asked and the admins can do that.",
    "too_late": "That reply has ended already.",
    # Where and how to talk
    "mention_again": "To go on in this thread, mention me again: {mention}.",
    "files_not_read": "I cannot read {files}, only messages and text files.",
    "stranger": "I answer only members of the workspace that runs me.",
    "cannot_post": "I am not allowed to write in {channel}. Please invite me there.",
    "post_refused": (
        "Slack refused my reply in {channel} ({error}). Please ask an admin of the workspace."
    ),
    "nothing_asked": "Yes? Write your question after the mention. “help” shows what I can do.",
    "asked": "{person} asks: {text}",
    # Help
    "runs_here": "on our own machine",
    "runs_host": "at {host}",
    "stays_here": "It stays on our own machine and goes to no other company.",
    "stays_host": (
        "It is kept on our own machine. To be answered, it is sent to the model’s server at {host}."
    ),
    "help": (
        "I answer with a language model. Write to me, and I reply in "
        "the same conversation; “reset” forgets it, “stop” stops a reply."
    ),
    "help_slack": (
        "*{name}* answers with a language model that runs {runs} ({model}).\n"
        "• Mention me in a channel or a thread, or write to me directly.\n"
        "• In a thread that I take part in, I answer without a mention.\n"
        "• “{mention} reset”: forget this thread. “{mention} stop”: stop the reply.\n"
        "• “{mention} privacy”: what I remember. “{mention} model”: what answers here."
    ),
    "help_command": (
        "`{command} ask …`, `{command} catchup`, `{command} usage`, `{command} reset`, "
        "`{command} privacy`, `{command} model`, `{command} persona`"
    ),
    "usage_command": "Write `{command} ask` and your question, or `{command} help`.",
    "privacy": (
        "I remember what was said in the threads that I take part in, as much as the model can "
        "read, and for at most {days} days after the last message. {stays} "
        "Messages that are edited or deleted are edited or deleted in my memory too."
    ),
    "privacy_training": (
        "Where admins have turned it on, replies that people rate, vote on or regenerate "
        "are kept with the conversation before them, to train a model. Each such reply says so."
    ),
    "opt_out": "Keep nothing of mine for training",
    "opt_in": "Allow my messages to be kept for training",
    "opted_out": (
        "From now on, nothing with your words or votes is kept to train a model, and what was kept "
        "is gone. A model that was trained before cannot forget."
    ),
    "opted_in": "From now on, replies to you may be kept to train a model, where admins want it.",
    "model": "The model that answers here is {model}.",
    # What is left, and help that fits
    "usage_head": "What was used today:",
    "usage_person": "you, here",
    "usage_all": "you, in all places",
    "usage_channel": "this channel, everybody",
    "usage_messages": "messages",
    "usage_tokens": "tokens",
    "usage_limited": "• {what} ({whose}): {used:,} of {most:,} used, {left:,} left.",
    "usage_free": "• {what} ({whose}): {used:,} used, without a limit.",
    "usage_again": "It starts again at {time}.",
    "guide_reads": (
        "• I read about {pages} pages in one go ({tokens:,} tokens), with what was said before."
    ),
    "guide_reads_page": (
        "• I read about one page in one go ({tokens:,} tokens), with what was said before."
    ),
    "guide_files": "• I read text files: up to {files} in a message, and {size} KB together.",
    "guide_blind": "• I cannot see images, PDFs, office documents or web pages: only their names.",
    "guide_typed": "• I read what you type here: no files, no images and no web pages.",
    "guide_remembers": (
        "• I remember a conversation for {days} days after its last message, as far back as I read."
    ),
    "guide_choices": "• You can choose who answers in a conversation: {names}.",
    "guide_left": "• You have left today: {left}. It starts again at {time}.",
    "guide_examples": "Here are three examples of what to ask me.",
    "example_explain": "• Explain in three sentences what a reverse proxy does.",
    "example_write": "• Write a friendly message that moves our meeting to Friday.",
    "example_plan": "• What should I pack for two days in Kyoto in winter?",
    "slack_help_refused": "You can still have everything that you said forgotten, on my home page.",
    "discord_help_refused": "With `/privacy` you can see, export and delete what is kept of you.",
    "help_admins": "• As an admin, you also have {commands}.",
    "cmd_usage": "usage",
    "cmd_usage_about": "What you have used today, what is left, and when it starts again",
    "menu_usage": "What I have left today",
    # Continue from here
    "branch_opened": "{person} continues from {link} in this thread.",
    "branch_link": "an earlier message",
    "branch_how": "Mention me in your first message here: {mention}.",
    "branch_done": "I remember that conversation up to the message that you chose.",
    "branch_evicted": (
        "I remember that conversation up to the message that you chose, but its oldest messages no "
        "longer fit, so they are not in my memory."
    ),
    "branch_told": "The conversation goes on here: {link}",
    "branch_gone": ("That message is not in my memory, or not yet, so I cannot continue from it."),
    "branch_full": "There are too many continuations of this conversation already.",
    "branch_private": (
        "Others could read the new thread, but not this conversation, so I cannot go on there."
    ),
    "branch_not_here": "I cannot open a thread here.",
    "shortcut_branch": "Continue from here",
    "shortcut_branch_about": "Go on in a new thread that remembers all up to a message",
    "cmd_menu_branch": "Continue from here",
    "cmd_menu_branch_about": "Go on in a new thread that remembers all up to a message",
    # Catch me up
    "catchup_prompt": (
        "Below is a conversation, one numbered message a line. Summarise it in a few short points: "
        "decisions, open questions, and who does what. Put the number of a message in square "
        "brackets behind each point, such as [3]. Add nothing that is not there."
    ),
    "catchup_reading": "Reading…",
    "catchup_progress": "Reading: {done} of {pieces} parts are done…",
    "catchup_head": "Summary of {messages} messages, [from here on]({link}):",
    "catchup_parts": "The parts: {links}",
    "catchup_nothing": "There is nothing new here.",
    "catchup_no_access": "I could not make sure that both of us may read that, so I did not.",
    "catchup_running": "A summary for you is being written already: stop that one first.",
    "catchup_stopped": "Stopped: there is no summary.",
    "catchup_stop_late": "There is no summary under way.",
    "catchup_no_span": (
        "That is no time span that I know. Write `2h`, `3d`, `today`, `2026-11-28`, or "
        "`since my last message`."
    ),
    "catchup_future": "That time is in the future: there is nothing to read yet.",
    "catchup_large": (
        "That is long: {messages} messages. A summary takes {pieces} steps and about {tokens:,} "
        "tokens of what you may use."
    ),
    "catchup_too_much": (
        "That is more than I can sum up at once. The newest {newest} messages would take {pieces} "
        "steps and about {tokens:,} tokens of what you may use."
    ),
    "catchup_limited": (
        "The platform lets me read only a few messages a minute here: these were the newest "
        "{messages}."
    ),
    "catchup_limited_all": (
        "The platform lets me read only a few messages a minute here, and I have just read some. "
        "Please try again in a minute."
    ),
    "catchup_go": "Summarise",
    "catchup_go_newest": "Summarise the newest part",
    "cmd_catchup": "catchup",
    "cmd_catchup_about": "Summarise what was said here, for you alone",
    "cmd_span": "since",
    "cmd_span_about": "2h, 3d, today, a date, or since my last message (the default)",
    "cmd_menu_summary": "Summarise thread",
    "cmd_menu_summary_about": "Summarise the thread of a message, for you alone",
    "shortcut_summary": "Summarise thread",
    "shortcut_summary_about": "Summarise the thread of a message, for you alone",
    # Reset
    "reset_not_yours": (
        "Somebody else is waiting for a reply here. Only they and the admins can end it: "
        "try again when it is written."
    ),
    "reset_done": "This conversation is forgotten.",
    "reset_nothing": "There was nothing to forget here.",
    "reset_scope_done": "Forgotten: {scope}.",
    "reset_title": "Forget?",
    "reset_confirm": "What I remember of {scope} will be forgotten. This cannot be undone.",
    "reset_yes": "Forget",
    "reset_refused": "Only admins can reset {scope}.",
    "scope_thread": "this conversation",
    "scope_channel": "this channel",
    "scope_user": "one person",
    "scope_space": "the whole workspace",
    "scope_mine": "everything that you said",
    "reset_pick_channel": "Which channel?",
    "reset_pick_user": "Which person?",
    "app_description": "Answers in threads with a language model that our team runs itself.",
    # Rules of a place
    "config_shown": "Set here:\n{rules}",
    "config_nothing": "Nothing is set here. There are: {names}.",
    "config_not_set": "{name} is not set here.",
    "config_set": "From now on, here: {name} = {value}.",
    "config_unset": "{name} is not set here any more.",
    "config_unserved": "No core serves {model} now: until one does, nobody is answered here.",
    "config_unmeasured": (
        "No core could count the prompt’s tokens now: it may be longer than the model allows."
    ),
    "prompt_too_long": (
        "the system prompt takes {tokens:,} tokens, and half of what the model reads is {most:,}"
    ),
    "persona_gone": (
        "Conversations that use it go back to the default of their place, and say so once."
    ),
    # What people choose
    "persona": "The persona that answers here: {persona}.",
    "choice_usual": "the default here",
    "choice_away": "{name} (away)",
    "choice_offered": "To choose from: {names}.",
    "choice_lost": "“{name}” is not offered here any more: the default answers.",
    "choice_unknown": "“{name}” is not offered here: nothing was changed.",
    "choice_refused": "No core runs {name} now. Nothing was changed.",
    "choice_set": "From now on in this conversation: {name}.",
    "choice_unset": "From now on in this conversation: the default here.",
    "choice_where": (
        "In a thread, the menu under a reply (“Which model answers”) changes it for that thread."
    ),
    "choice_title": "Who answers here",
    "choice_model": "Model",
    "choice_persona": "Persona",
    "config_collects": "Every reply here says so. People can say no under “What I remember”.",
    "config_wrong": "Nothing was changed: {reason}",
    # The home page
    "home_title": "{name}",
    "home_what": "A chat bot that our team hosts itself: it answers in threads, as it writes.",
    "home_model": "Model: {model}",
    "home_host": "The model’s server at {host} is sent what you ask me.",
    "home_forget": "Forget everything I said",
    "home_admin": "For admins",
    "home_reset_channel": "Reset a channel",
    "home_reset_user": "Reset a person",
    "home_reset_space": "Reset the workspace",
    # First words
    "prompt_greeting": "What would you like to talk about?",
    "prompt_summary_title": "Summarise a text",
    "prompt_summary": "Please summarise this text in three lines:\n",
    "prompt_draft_title": "Draft a message",
    "prompt_draft": "Please draft a polite message that says:\n",
    "prompt_ideas_title": "Find ideas",
    "prompt_ideas": "Please list five ideas for:\n",
    "shortcut_ask": "Ask about this message",
    "shortcut_ask_about": "Ask the language model about a message",
    "shortcut_reset": "Reset this thread",
    "shortcut_reset_about": "Forget the conversation in the message’s thread",
    "slack_model_about": "Which model answers here, and which ones a thread may choose",
    "slack_persona_about": "Which persona answers here, and which ones a thread may choose",
    "slack_privacy_about": "What is remembered, and for how long",
    # On Discord
    "moved_here": "Your private reply goes on here, because the command has expired.",
    "moved_there": (
        "The reply takes longer than a command may: it goes on in your direct messages."
    ),
    "cmd_ask": "ask",
    "cmd_ask_about": "Ask the language model",
    "cmd_prompt": "prompt",
    "cmd_prompt_about": "What you want to ask",
    "cmd_private": "private",
    "cmd_private_about": "Only you see the reply",
    "cmd_file": "file",
    "cmd_file_about": "A text file to read",
    "cmd_chat": "chat",
    "cmd_chat_about": "Open a thread for a conversation",
    "cmd_reset": "reset",
    "cmd_reset_about": "Forget this conversation",
    "cmd_stop": "stop",
    "cmd_stop_about": "Stop the reply that is being written",
    "cmd_regenerate": "regenerate",
    "cmd_regenerate_about": "Write the newest reply again",
    "cmd_model": "model",
    "cmd_model_about": "Which model answers here; choose another for this conversation",
    "cmd_choice": "name",
    "cmd_choice_about": "Which one answers in this conversation",
    "cmd_persona": "persona",
    "cmd_persona_about": "Which persona answers here; choose another for this conversation",
    "cmd_privacy": "privacy",
    "cmd_privacy_about": "What is kept of you; export it, or have it forgotten",
    "cmd_help": "help",
    "cmd_help_about": "What I can do",
    "cmd_admin": "admin",
    "cmd_admin_about": "For admins of this server",
    "cmd_admin_reset": "reset",
    "cmd_admin_reset_about": "Forget conversations",
    "cmd_thread": "thread",
    "cmd_thread_about": "Forget the conversation in this thread",
    "cmd_channel": "channel",
    "cmd_channel_about": "Forget every conversation of a channel",
    "cmd_user": "user",
    "cmd_user_about": "Forget what a person wrote here",
    "cmd_server": "server",
    "cmd_server_about": "Forget every conversation of this server",
    "cmd_status": "status",
    "cmd_status_about": "What is running, and what waits",
    "cmd_config": "config",
    "cmd_config_about": "Show or set the rules of this channel, or of the server",
    "cmd_rules": "rule",
    "cmd_rules_about": "For example: temperature 0.2, or: space person_messages 50",
    "cmd_audit": "audit",
    "cmd_audit_about": "The audit log: resets, exports and changes",
    "cmd_which": "which",
    "cmd_which_about": "By default the one you are in",
    "cmd_menu_ask": "Ask Henji about this",
    "cmd_menu_ask_about": "Ask the language model about a message",
    "discord_help": (
        "I answer with a language model that runs {runs} ({model}).\n"
        "• `/ask`: a question; with `private`, only you see the reply. "
        "`/chat`: a thread for a conversation.\n"
        "• Mention me in a channel or a thread, or write to me directly.\n"
        "• `/stop`, `/regenerate` and `/reset` are about the conversation "
        "that you are in.\n"
        "• `/catchup`: a summary for you alone. `/usage`: what you have left today.\n"
        "• `/privacy`: what I remember of you."
    ),
    "chat_opened": "A conversation with {person}: write in the thread below.",
    "chat_mention": "What would you like to talk about? Mention me in each message: {mention}.",
    "chat_here": "This is a conversation already: just write.",
    "chat_not_here": "I cannot open a thread here. Use `/ask` instead.",
    "nothing_asked_here": (
        "Yes? Write your question after the mention, or use `/ask`. `/help` shows what I can do."
    ),
    "no_time": (
        "Too much is going on right now, so the message was not taken. "
        "Please send it again in a while."
    ),
    "no_text_there": "There is no text in that message that I could read.",
    "nothing_to_stop": "Nothing of yours is being written here.",
    "stopping": "Stopping.",
    "nothing_to_regenerate": "There is no reply here that could be written again.",
    "regenerating": "I am writing the newest reply again.",
    "admins_only": "Only admins can do that.",
    "not_in_thread": "Use this inside a thread.",
    "export_button": "Export what is kept of me",
    "forget_button": "Forget me",
    "forget_sure": (
        "Everything that you wrote to me here and in direct messages, "
        "and my replies to it, will be forgotten. This cannot be undone."
    ),
    "forget_done": "Forgotten: {turns} messages.",
    "export_done": "What I remember of you ({turns} messages):",
    "export_nothing": "I remember nothing of you here.",
    "status_line": (
        "Model: {model}. Language models running: {cores}. Conversations that wait for an answer: "
        "{waiting}. Conversations remembered on this server: {threads}."
    ),
    "audit_nothing": "Nothing is in the audit log for this place.",
    "cannot_post_here": (
        "I am not allowed to write in {channel}. An admin can change "
        "that in the channel’s permissions."
    ),
    "thread_locked": "The thread {channel} is locked, so I cannot answer there.",
    "reply_blocked": "A rule against harmful messages blocked my answer.",
    "reply_not_accepted": "My answer was not accepted here. Please ask in another way.",
    "rest_in_file": "The whole answer is in the file: no more messages fit here.",
    # The terminal
    "console_small_model": (
        "{model} is a small English model, for trying things out. Japanese, from rinna's model:"
    ),
    "console_commands": "/help shows the commands. Ctrl-C stops a reply; twice, it leaves.",
    "console_help": (
        "{model} answers here.\n"
        "/continue  go on with a reply that reached its length limit\n"
        "/beginning answer the beginning of a message that was too long\n"
        "/reset     forget this conversation\n"
        "/history   show what is remembered of it\n"
        "/usage     show what was used today\n"
        "/help      show this\n"
        "Ctrl-C stops a reply; twice, or Ctrl-D, it leaves."
    ),
    "console_leave": "Ctrl-C again leaves.",
    "console_nothing_cut": "There is no reply to go on with.",
    "console_begin": "/beginning answers the beginning of it.",
    "console_nothing_refused": "No message was too long.",
    "console_you": "you",
    "console_no_history": "Nothing is remembered of this conversation.",
    "console_remembered": "{turns} messages of this conversation are remembered.",
    # -- henji compare
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
    "compare_raters_value": (
        "{raters}; two agree on {alike} of the {together} prompts that both judged"
    ),
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
        "With {decisive} decided prompts, a true win rate of 60 % is found in {seen} of 10 cases, "
        "and one of {detectable} % in 8 of 10."
    ),
    "compare_little_power": (
        "With {decisive} decided prompts, a true win rate of 60 % is found in {seen} of 10 cases: "
        "too few to find any difference reliably."
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
        "vote counts. Each person needs their own link."
    ),
    "page_undone": "Your last vote was taken back.",
    "page_nothing_to_undo": "There is no vote to take back.",
    "page_done_title": "Thank you",
    "page_done": "That was the last pair of {total}. You can close this page.",
    "page_keys": "Keys: 1 to 4 vote, U takes the last vote back",
    "page_unknown": "This page does not exist. Check that the whole link was copied.",
}
