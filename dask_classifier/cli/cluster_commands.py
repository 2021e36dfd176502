"""What the commands for EC2 do: up, down, status, reap, doctor."""

import dataclasses
import functools
import json
import time

import click
from rich.console import Console
from rich.table import Table

from .. import s3
from ..cluster import EC2Cluster
from ..detached.following import is_at_work
from ..ec2 import named_clusters, owners, prices, teardown
from ..ec2.aws import Aws, configured_region
from ..ec2.doctor import examine
from ..ec2.named_clusters import NamedCluster
from ..ec2.policies import policies
from ..ec2.spec import ClusterSpec, spec_of
from ..ec2.template import template
from ..errors import ClusterError, DaskClassifyError, InstancesLeft, UsageError
from ..parts.run_folder import RunFolder
from ..units import count_of, format_seconds, parse_seconds
from .choosing import staging_in

_MARKS = {True: ("ok", "green"), False: ("wrong", "red"), None: ("?", "yellow")}


def _say(text: str) -> None:
    click.echo(text, err=True)


def up(name: str, options: dict, *, typed: list[str]) -> None:
    """Start a named cluster, or change its number of workers; then, only `typed` options are considered."""
    with named_clusters.locked(name, _say):
        if named_clusters.path(name).exists():
            _resize(named_clusters.load(name), {key: options[key] for key in typed})
        else:
            _start(name, options)


def _start(name: str, options: dict) -> None:
    cluster = EC2Cluster(options.pop("workers"), say=_say, name=name, **options)
    try:
        cluster.wait_until_ready()
        if not named_clusters.path(name).exists() or named_clusters.load(name).id != cluster.id:
            raise _terminated_meanwhile(name, "started")
        _describe(cluster, name)
    except BaseException:
        cluster.close()
        raise
    cluster.leave()


def _resize(kept: NamedCluster, typed: dict) -> None:
    """Change the number of workers of a running cluster."""
    workers = typed.pop("workers", None)
    wanted = ClusterSpec.of(**vars(kept.spec) | typed)
    if differences := [name for name in typed if getattr(wanted, name) != getattr(kept.spec, name)]:
        raise UsageError(
            f"The cluster {kept.name} is already running, with another --{differences[0].replace('_', '-')}.",
            f"Change only --workers, or terminate the cluster first: dask-classify down --name {kept.name}.",
        )
    with EC2Cluster.attach(kept, say=_say) as cluster:
        if workers:
            if workers > len(cluster.worker_spec):
                _announce_growth(cluster, workers)
            cluster.resize(workers)
        if not named_clusters.path(kept.name).exists():
            _terminate(kept)
            raise _terminated_meanwhile(kept.name, "resized")
        count = len(cluster.worker_spec)
        spec = dataclasses.replace(kept.spec, workers=count, min_workers=min(kept.spec.min_workers, count))
        named_clusters.save(dataclasses.replace(kept, spec=spec))
        _describe(cluster, kept.name)


def _announce_growth(cluster: EC2Cluster, workers: int) -> None:
    price = prices.hourly(cluster.aws, cluster.spec, cluster.placement, workers)
    more, until = workers - len(cluster.worker_spec), teardown.moment(cluster.fleet.deadline)
    _say(f"Starting {count_of(more, 'instance')} more; the cluster then costs {price}, until {until} at the latest.")


def _terminated_meanwhile(name: str, what: str) -> ClusterError:
    return ClusterError(
        f"The cluster {name} was terminated by another command while it was being {what}.",
        f"Start it again: dask-classify up --name {name}.",
    )


def _describe(cluster: EC2Cluster, name: str) -> None:
    workers = len(cluster.worker_spec)
    price = prices.hourly(cluster.aws, cluster.spec, cluster.placement, workers)
    size, address = count_of(workers, "worker"), cluster.scheduler_address
    _say(f"Cluster {name}: {size} at {address}; dashboard: {cluster.dashboard_link}")
    _say(f"It costs money ({price}) until {teardown.moment(cluster.fleet.deadline)} at the latest.")
    _say(f"To use it:        dask-classify --rows 10k --output s3://... --cluster {name}")
    _say(f"To terminate it:  dask-classify down --name {name}")


def down(name: str) -> None:
    """Terminate a named cluster."""
    kept = named_clusters.load(name)
    ending = _terminate(kept)
    named_clusters.forget(name, kept.id)
    _say(f"Cluster {name}: {count_of(ending.terminated, 'instance')} terminated, nothing is left.")


def _terminate(kept: NamedCluster) -> teardown.Ending:
    """Terminate everything with the cluster's tag. Raises InstancesLeft."""
    ending = teardown.end(Aws(kept.spec.region), kept.id, limit=kept.spec.teardown_limit, say=_say)
    teardown.refuse_leftovers(ending, kept.spec.region, kept.deadline, kept.id)
    return ending


def status(region: str | None, *, as_json: bool) -> None:
    """List everything with dask-classify's tag."""
    aws = Aws(region)
    instances, groups = teardown.instances(aws), teardown.groups(aws)
    if as_json:
        click.echo(json.dumps({"instances": list(map(vars, instances)), "groups": list(map(vars, groups))}))
        return
    if not instances and not groups:
        click.echo(f"dask-classify has no instances or security groups in {aws.region}.")
        return
    table = Table("cluster", "node", "instance", "type", "state", "age", "shuts down by", "started by", box=None)
    for instance in instances:
        table.add_row(*_row(instance))
    for group in groups:
        table.add_row(group.name or group.cluster, "security group", group.id, "", "", "", "", _started_by(group))
    Console(soft_wrap=True).print(table)


def _row(instance: teardown.Instance) -> list[str]:
    market = "" if instance.market == "on-demand" else f" ({instance.market})"
    return [
        instance.name or instance.cluster,
        instance.worker,
        instance.id,
        f"{instance.type}{market}",
        instance.state,
        format_seconds(max(0, time.time() - instance.launched)),
        time.strftime("%m-%d %H:%M", time.localtime(instance.deadline)) if instance.deadline else "",
        _started_by(instance),
    ]


def _started_by(resource: teardown.Instance | teardown.Group) -> str:
    leaked = _is_leaked(resource)
    if leaked:
        return "leaked"
    if resource.name:
        return f"up --name {resource.name}"
    if resource.detached:
        return f"run --detach, {resource.detached}"
    pid, host = owners.process_and_host(resource.client)
    return f"process {pid} on {host}{'' if leaked is False else ', if it is running'}"


def reap(region: str | None, clusters, older_than: str | None, output: str | None, *, everything: bool, yes: bool):
    """Terminate leaked clusters, or those selected; with `output`, abort unfinished uploads instead."""
    if output:
        if region or clusters or older_than or everything:
            raise UsageError("--output cannot be combined with options for clusters.", "Use --output alone.")
        _reap_uploads(output, yes=yes)
        return
    aws = Aws(region)
    age = parse_seconds(older_than, "time for --older-than") if older_than else 0.0
    by_cluster: dict[str, list[teardown.Instance | teardown.Group]] = {}
    for resource in [*teardown.instances(aws), *teardown.groups(aws)]:
        by_cluster.setdefault(resource.cluster, []).append(resource)
    selecting = everything or clusters or age
    selected = {
        cluster: resources
        for cluster, resources in by_cluster.items()
        if (selecting or any(map(_is_leaked, resources)))
        and (not clusters or cluster in clusters)
        and (not age or _is_older(resources, age))
    }
    for cluster, resources in selected.items():
        click.echo(f"{'Terminating' if yes else 'Would terminate'} cluster {cluster}: {_ids(resources)}")
    if not selected:
        click.echo(f"Nothing to terminate in {aws.region}. `dask-classify status` lists all clusters.")
    if not selecting:
        _list_unknown(aws, {cluster: resources for cluster, resources in by_cluster.items() if cluster not in selected})
    if selected and not yes:
        click.echo("Nothing was terminated. Hint: add --yes.")
    elif selected:
        _terminate_all(aws, list(selected))


def _is_leaked(resource: teardown.Instance | teardown.Group) -> bool | None:
    """Return whether nobody looks after the resource any more; None if this computer cannot tell."""
    leaked = owners.is_leaked(resource)
    if leaked or resource.name or not resource.detached:
        return leaked
    at_work = _is_at_work(resource.detached, resource.cluster)
    return None if at_work is None else not at_work and owners.is_orphaned(resource)


@functools.cache
def _is_at_work(output: str, cluster: str) -> bool | None:
    return is_at_work(output, cluster) if len(output) < teardown.TAG_LENGTH else None  # a longer one was cut off


def _ids(resources: list[teardown.Instance | teardown.Group]) -> str:
    return ", ".join(resource.id for resource in resources)


def _is_older(resources: list[teardown.Instance | teardown.Group], age: float) -> bool:
    """Return whether all resources with a known age are older. A group of unknown age alone is not."""
    launched = [resource.launched for resource in resources if resource.launched]
    return bool(launched) and time.time() - max(launched) >= age


def _list_unknown(aws: Aws, clusters: dict[str, list[teardown.Instance | teardown.Group]]) -> None:
    """Print the clusters whose command may still be running, on another computer for example."""
    for cluster, resources in clusters.items():
        output = resources[0].detached
        if output and _is_at_work(output, cluster):
            click.echo(f"Skipped cluster {cluster}: {_ids(resources)}. It runs by itself, for {output}.")
            click.echo(f"Hint: end it with `dask-classify cancel {output}`.")
            continue
        if all(resource.name or _is_leaked(resource) is not None for resource in resources):
            continue
        pid, host = owners.process_and_host(resources[0].client)
        click.echo(
            f"Skipped cluster {cluster}: {_ids(resources)}. Its command may still be running: process {pid} on {host}."
        )
        click.echo(f"Hint: if it is not, run `dask-classify reap --region {aws.region} --cluster {cluster} --yes`.")


def _reap_uploads(output: str, *, yes: bool) -> None:
    """Abort unfinished uploads that killed commands left: of a run's files, or of a file written by `fetch`."""
    uploads = RunFolder(output).uploads()
    for upload in uploads:
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(upload.began))
        click.echo(f"{'Aborting' if yes else 'Would abort'} the upload to {upload.url}, started {began}")
        if yes:
            s3.abort(upload)
    if not uploads:
        click.echo(f"There are no unfinished uploads of a run in {output}.")
    elif not yes:
        click.echo("Nothing was aborted. Hint: if no command is writing there, add --yes.")


def _terminate_all(aws: Aws, clusters: list[str]) -> None:
    left: list[str] = []
    for cluster in clusters:
        ending = teardown.end(aws, cluster, say=_say)
        left += ending.left
        click.echo(
            f"Cluster {cluster}: {count_of(ending.terminated, 'instance')} terminated"
            + (f"; left: {', '.join(ending.left)}" if ending.left else ", nothing is left")
        )
    if left:
        raise InstancesLeft(
            f"Not terminated or deleted in {aws.region}: {', '.join(left)}.",
            "Run the command again in a few minutes, or terminate them in the AWS console.",
        )


def doctor(workers: int | None, output: str | None, options: dict, shown: str | None, *, detach: bool) -> None:
    """Print the findings, or what is to be shown instead. Raise DaskClassifyError if a run would fail."""
    if shown:
        wanted = (output, options["instance_profile"], options["staging"])
        region = Aws(options["region"]).region if options["region"] else configured_region() or ""
        text = template(detach=detach) if shown == "template" else policies(*wanted, detach=detach, region=region)
        click.echo(json.dumps(text, indent=2))
        return
    if detach:
        raise UsageError("--detach has no effect without --policy or --template.", "Add one of them.")
    if not options.get("image"):
        options["staging"] = options["staging"] or staging_in(output)
    console = Console(soft_wrap=True, highlight=False)
    failed = 0
    for finding in examine(spec_of(workers, options), output):
        mark, style = _MARKS[finding.good]
        console.print(f"[{style}]{mark:<5}[/] {finding.what}: ", end="")
        console.print(finding.text, markup=False)
        if finding.hint:
            console.print(f"      {finding.hint}", markup=False)
        failed += finding.good is False
    if failed:
        raise DaskClassifyError(f"A run would fail: {failed} {'check' if failed == 1 else 'checks'} failed.")
