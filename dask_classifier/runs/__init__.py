"""A run, before and after: its plan, its progress, its manifest, its result.

May import `parts` and the packages before it, but neither Dask's scheduler nor AWS.
"""
