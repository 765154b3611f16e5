"""Slack: mentions, threads, direct messages and the agent pane."""
