"""A run on disk, before and after: the plan, the run's folder, its progress, its result.

May import `parts` and the packages before it, but neither Dask's scheduler nor AWS.
"""
