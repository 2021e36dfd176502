"""Instances: what is asked for, where it can be launched, how it boots, and how it surely terminates.

May import `engine` for Dask's settings, and `environment`; knows nothing of CSV or runs, and of classifiers only what
they require.
"""
