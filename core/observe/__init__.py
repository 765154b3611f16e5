"""Logs, metrics, traces and health: the state of a process, for its operator."""
