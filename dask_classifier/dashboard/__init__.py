"""The page /classify of Dask's dashboard, and the scheduler plugin that feeds it.

May import `runs`.
"""
