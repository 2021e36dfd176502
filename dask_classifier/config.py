"""Read the options of dask-classify from Dask's configuration."""

import dask.config


def configured() -> dict[str, object]:
    """Return all configured options, by name with underscores.

    Configuration files contain `dask-classifier: {output: ...}`. Environment variables such as
    DASK_CLASSIFIER__OUTPUT, which Dask reads as `classifier.output`, take precedence.
    """
    options = {**(dask.config.get("dask-classifier", None) or {}), **(dask.config.get("classifier", None) or {})}
    return {name.replace("-", "_"): value for name, value in options.items()}
