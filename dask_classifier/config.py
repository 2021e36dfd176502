"""The settings of dask-classify in Dask's configuration."""

import dask.config


def configured() -> dict[str, object]:
    """All of them, by option name with underscores.

    Files have `dask-classifier: {output: ...}`; the environment has DASK_CLASSIFIER__OUTPUT, which Dask reads as
    `classifier.output`, and which comes before the files.
    """
    found = {**(dask.config.get("dask-classifier", None) or {}), **(dask.config.get("classifier", None) or {})}
    return {name.replace("-", "_"): value for name, value in found.items()}
