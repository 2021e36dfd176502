"""The page /classify of Dask's dashboard, and the scheduler plugin that collects its data.

May import `runs`.
"""
