"""Plausible bugs, planted one at a time: which of them do the tests not catch?"""
