"""The command: words to calls.

May import everything; nothing imports it.
"""
