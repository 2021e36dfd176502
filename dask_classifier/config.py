"""The settings of dask-classify in Dask's configuration; dask_classifier.yaml has their names and defaults."""

import dask.config


def configured() -> dict[str, object]:
    """Return the settings that are given, by option name with underscores.

    Files have `dask-classifier: {output: ...}`; the environment has DASK_CLASSIFIER__OUTPUT, which Dask reads as
    `classifier.output`, and which comes before the files. null and an empty list stand for a setting that is not given.
    """
    settings = {**(dask.config.get("dask-classifier", None) or {}), **(dask.config.get("classifier", None) or {})}
    return {name.replace("-", "_"): value for name, value in settings.items() if value not in (None, [])}
