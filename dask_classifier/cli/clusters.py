"""The cluster of a command: started for it, or connected to, and looked up before that."""

import logging
from contextlib import contextmanager

from dask.system import CPU_COUNT

from ..engine.connect import INLINE
from ..engine.local import LocalCluster
from ..errors import ClusterError, StorageError, UsageError
from ..planner.estimate import EC2, LOCAL
from ..runs import planning
from ..runs.earlier import look_unlocked
from ..show.terminal import Display


@contextmanager
def cluster_of_run(
    display: Display,
    *,
    cluster: str,
    workers: int | None,
    dashboard_address: str,
    profile: bool,
    **options,
):
    """Start the cluster, or connect to it, for the `with` block."""
    if cluster == "local":
        with LocalCluster(
            workers, dashboard_address=dashboard_address, profile=profile, silence_logs=logging.CRITICAL
        ) as local:
            yield local
    elif cluster == "ec2":
        from ..cluster import EC2Cluster

        with EC2Cluster(workers, say=display.say, profile=profile, **options) as ec2:
            yield ec2
    elif cluster != "inline" and "://" not in cluster:
        with named_cluster(cluster, say=display.say) as named:
            yield named
    else:
        yield cluster


def named_cluster(name: str, **options):
    """Connect to a cluster of `up`."""
    from ..cluster import EC2Cluster
    from ..ec2 import named_clusters

    return EC2Cluster.attach(named_clusters.load(name), **options)


def check_credentials(region: str | None) -> None:
    """Check that there are AWS credentials, before the first request to S3. Raises ClusterError or UsageError."""
    from ..ec2.aws import Aws

    Aws(region).credentials()


def is_complete(plan: planning.Plan) -> bool:
    """Return whether the run is already complete, and if not, check that its folder can be written to.

    This happens before instances are launched. Raises ClusterError, or what the run itself would raise.
    """
    try:
        if look_unlocked(plan).complete:
            return True
        with plan.folder.probe():
            pass
    except StorageError as error:
        raise ClusterError(error.message, error.hint) from error
    return False


def cluster_size(options: dict):
    """Return the number of processes, and for EC2 also the price per hour and the instances, as AWS offers them."""
    workers = options.pop("workers")
    if (cluster := options.pop("cluster")) not in {"local", "ec2"}:
        raise UsageError(f"Cannot estimate a run on {cluster}.", "Use --cluster local or --cluster ec2.")
    if cluster == "local":
        return workers or CPU_COUNT, None, {}
    from ..ec2 import prices
    from ..ec2.aws import Aws
    from ..ec2.placement import find_placement
    from ..ec2.spec import spec_of

    spec = spec_of(workers, options)
    aws = Aws(spec.region)
    aws.credentials()
    placement = find_placement(aws, spec)
    price = prices.hourly(aws, spec, placement, spec.workers)
    instances = {
        "words": f"{placement.words(spec, spec.workers)}, in {aws.region}",
        "instances": spec.workers,
        "instance_type": placement.offers["worker"][0].type,
        "market": placement.offers["worker"][0].market,
        "scheduler_instance_type": placement.offers["scheduler"][0].type,
        "region": aws.region,
    }
    return spec.workers * placement.processes(spec), price, instances


@contextmanager
def plain_cluster(cluster: str, workers: int | None):
    """Start or connect to a cluster that is not on EC2, or one of `up`, for the `with` block."""
    if cluster == EC2:
        raise UsageError("publish does not start instances.", "Use --cluster local, or the name of a cluster of `up`.")
    if cluster == LOCAL:
        with LocalCluster(workers, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL) as local:
            yield local
    elif cluster != INLINE and "://" not in cluster:
        with named_cluster(cluster) as named:
            yield named
    else:
        yield cluster
