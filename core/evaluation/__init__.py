"""Comparing two models: answers, judges, counting, a report. No bot's process imports it."""
