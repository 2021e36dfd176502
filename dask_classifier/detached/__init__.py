"""Runs that are driven from their scheduler's instance, without the computer that started them.

May import all but `planner` and `cli`; `handing_over.py` starts the driver, `following.py` is for those who watch.
"""
