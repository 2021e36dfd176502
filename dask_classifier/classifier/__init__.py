"""The user's code: the contract of a classifier, how its code is located, bundled and loaded, and the job of a run.

May import `rows`.
"""
