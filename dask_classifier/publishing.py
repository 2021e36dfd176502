"""`publish(run, url)`: one file with all rows of a finished run, written by workers."""

from pathlib import Path

from distributed import Client
from distributed.deploy.cluster import Cluster

from . import storage
from .classifier import bundle
from .engine.connect import connect
from .engine.single_file import write_single_file
from .errors import OutputExists
from .parts.formats import format_of_file
from .runs.planning import new_run_id
from .runs.progress import Progress
from .runs.result import Result, open_run


def publish(
    run: str | Path | Result,
    url: str | Path,
    *,
    cluster: Cluster | Client | str | None = None,
    header: bool | None = None,
    overwrite: bool = False,
) -> int:
    """Write all rows of a complete run, in order, to one file, by workers.

    Parameters
    ----------
    run : str, Path or Result
        The run.
    url : str or Path
        The file: a path or an s3:// URL. Its suffix sets the format, as in `Result.fetch`. If it is that of the run's
        parts, the file is assembled from these in parallel and, within S3, mostly by S3 itself; else one worker
        converts all of them.
    cluster : Dask cluster, Client or str, optional
        Where to run, as in `run`.
    header : bool, optional
        Whether CSV begins with a line of the columns' names. Default: as in the run's first part.
    overwrite : bool
        Whether to replace a file that exists.

    Returns
    -------
    int
        Size of the file in bytes.

    Raises
    ------
    OutputExists
        The file exists already.
    DamagedRun
        A part is missing or is not that of its receipt.
    StorageError
        A file cannot be read or written.

    Examples
    --------
    >>> dc.publish("s3://bucket/runs/today", "s3://bucket/out/today.csv.gz")  # doctest: +SKIP
    """
    result = run if isinstance(run, Result) else open_run(run)
    target = storage.absolute(str(url))
    format_of_file(target)
    if storage.exists(target) and not overwrite:
        raise OutputExists(f"{target} already exists.", "Choose another name, or use --overwrite.")
    no_classifier = bundle.create("blackbox", (), 1)  # a worker has one, whether it is called or not
    with connect(cluster, new_run_id(), no_classifier, Progress()) as executor:
        return write_single_file(result, target, executor, header=header)
