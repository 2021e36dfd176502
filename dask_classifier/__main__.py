"""`python -m dask_classifier`."""

from .cli import main

main()
