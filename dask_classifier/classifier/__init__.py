"""The user's code: what a classifier must do, how its code is found, bundled and loaded, and the job it is given.

May import `rows`.
"""
