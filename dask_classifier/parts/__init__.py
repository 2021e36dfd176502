"""The files of a block: its part in one of the part formats, its quarantine file and its receipt.

May import `rows` and `classifier`.
"""
