"""Execution of tasks: in this process, or in classifier processes on the workers of any Dask cluster.

May import `dashboard` and the modules before it, but not AWS.
"""
