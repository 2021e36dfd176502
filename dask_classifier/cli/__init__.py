"""The command `dask-classify`.

May import everything; nothing imports it.
"""
