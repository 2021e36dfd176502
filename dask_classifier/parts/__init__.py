"""The files of a block: its part in one of the formats, its quarantine file, its receipt; the run's folder around them.

May import `rows` and `classifier`.
"""
