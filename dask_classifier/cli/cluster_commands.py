"""What the commands about machines on EC2 do: up, down, status, reap, doctor."""

import dataclasses
import json
import time

import click
from rich.console import Console
from rich.table import Table

from .. import storage
from ..cluster import EC2Cluster
from ..ec2 import named_clusters, owners, prices, teardown
from ..ec2.aws import Aws
from ..ec2.doctor import examine
from ..ec2.named_clusters import Saved
from ..ec2.policies import policies
from ..ec2.spec import ClusterSpec, spec_of
from ..errors import ClusterError, DaskClassifyError, InstancesLeft, UsageError
from ..parts.run_folder import RunFolder
from ..units import format_seconds, parse_seconds

_SIGNS = {True: ("ok", "green"), False: ("wrong", "red"), None: ("?", "yellow")}


def _say(text: str) -> None:
    click.echo(text, err=True)


def up(name: str, options: dict, *, typed: list[str]) -> None:
    """Start a named cluster; or change its number of workers, for which only what was typed counts."""
    with named_clusters.locked(name, _say):
        if named_clusters.path(name).exists():
            _resize(named_clusters.load(name), {key: options[key] for key in typed})
        else:
            _start(name, options)


def _start(name: str, options: dict) -> None:
    cluster = EC2Cluster(options.pop("workers"), say=_say, name=name, **options)
    try:
        cluster.wait_until_ready()
        _describe(cluster, name)
    except BaseException:
        cluster.close()
        raise
    cluster.leave()


def _resize(kept: Saved, typed: dict) -> None:
    """Attach, scale, leave."""
    workers = typed.pop("workers", None)
    wanted = ClusterSpec.of(**vars(kept.spec) | typed)
    if differences := [each for each in typed if getattr(wanted, each) != getattr(kept.spec, each)]:
        raise UsageError(
            f"The cluster {kept.name} runs already, with another --{differences[0].replace('_', '-')}.",
            f"Only its number of workers can change; or end it first: dask-classify down --name {kept.name}.",
        )
    with EC2Cluster.attach(kept, say=_say) as cluster:
        if workers:
            cluster.resize(workers)
        if not named_clusters.path(kept.name).exists():
            _end(kept)
            raise ClusterError(
                f"The cluster {kept.name} was terminated by another command while its size changed.",
                f"Start it again: dask-classify up --name {kept.name}.",
            )
        count = len(cluster.worker_spec)
        smaller = dataclasses.replace(kept.spec, workers=count, min_workers=min(kept.spec.min_workers, count))
        named_clusters.save(dataclasses.replace(kept, spec=smaller))
        _describe(cluster, kept.name)


def _describe(cluster: EC2Cluster, name: str) -> None:
    workers = len(cluster.worker_spec)
    price = prices.hourly(cluster.aws, cluster.spec, cluster.ground, workers)
    _say(f"Cluster {name}: {workers} workers at {cluster.scheduler_address}; dashboard: {cluster.dashboard_link}")
    _say(f"It costs money ({price}) until {teardown.moment(cluster.fleet.deadline)} at the latest.")
    _say(f"Use it:  dask-classify --rows 10k --output s3://... --cluster {name}")
    _say(f"End it:  dask-classify down --name {name}")


def down(name: str) -> None:
    """End a named cluster."""
    kept = named_clusters.load(name)
    ending = _end(kept)
    named_clusters.forget(name, kept.id)
    _say(f"Cluster {name}: {ending.terminated} instances terminated, nothing is left.")


def _end(kept: Saved) -> teardown.Ending:
    """Terminate all that has the cluster's tag. Raises InstancesLeft."""
    ending = teardown.end(Aws(kept.spec.region), kept.id, limit=kept.spec.teardown_limit, say=_say)
    teardown.refuse_leftovers(ending, kept.spec.region, kept.deadline, kept.id)
    return ending


def status(region: str | None, *, as_json: bool) -> None:
    """Everything with our tag."""
    aws = Aws(region)
    machines, groups = teardown.machines(aws), teardown.groups(aws)
    if as_json:
        click.echo(
            json.dumps({"instances": [vars(each) for each in machines], "groups": [vars(each) for each in groups]})
        )
        return
    if not machines and not groups:
        click.echo(f"Nothing of dask-classify is in {aws.region}.")
        return
    table = Table("cluster", "machine", "instance", "type", "state", "up for", "ends itself by", "started by", box=None)
    for each in machines:
        table.add_row(*_row(each))
    for group in groups:
        table.add_row(group.name or group.cluster, "security group", group.id, "", "", "", "", _started_by(group))
    Console(soft_wrap=True).print(table)


def _row(machine: teardown.Machine) -> list[str]:
    kind = machine.type if machine.market == "on-demand" else f"{machine.type} ({machine.market})"
    age = format_seconds(max(0, time.time() - machine.launched))
    until = time.strftime("%m-%d %H:%M", time.localtime(machine.deadline)) if machine.deadline else ""
    whose = _started_by(machine)
    return [machine.name or machine.cluster, machine.worker, machine.id, kind, machine.state, age, until, whose]


def _started_by(thing: teardown.Machine | teardown.Group) -> str:
    leaked = teardown.is_leaked(thing)
    if leaked:
        return "leaked"
    if thing.name:
        return f"up --name {thing.name}"
    pid, host = owners.process_and_host(thing.client)
    return f"process {pid} on {host}{'' if leaked is False else ', if it runs'}"


def reap(region: str | None, clusters, older_than: str | None, output: str | None, *, everything: bool, yes: bool):
    """End leaked clusters, or those chosen; with `output`, abort unfinished uploads instead."""
    if output:
        if region or clusters or older_than or everything:
            raise UsageError("--output is given together with options about clusters.", "Give --output by itself.")
        _reap_uploads(output, yes=yes)
        return
    aws = Aws(region)
    age = parse_seconds(older_than, "time for --older-than") if older_than else 0.0
    found: dict[str, list[teardown.Machine | teardown.Group]] = {}
    for each in [*teardown.machines(aws), *teardown.groups(aws)]:
        found.setdefault(each.cluster, []).append(each)
    picked = everything or clusters or age
    chosen = {
        cluster: things
        for cluster, things in found.items()
        if (picked or any(map(teardown.is_leaked, things)))
        and (not clusters or cluster in clusters)
        and (not age or _is_older(things, age))
    }
    for cluster, things in chosen.items():
        click.echo(f"{'Ending' if yes else 'Would end'} cluster {cluster}: {', '.join(each.id for each in things)}")
    if not chosen:
        click.echo(f"Nothing to end in {aws.region}: `dask-classify status` lists what is there.")
    if not picked:
        _tell_unknown(aws, {cluster: things for cluster, things in found.items() if cluster not in chosen})
    if chosen and not yes:
        click.echo("Nothing was ended: add --yes.")
    elif chosen:
        _end_all(aws, list(chosen))


def _is_older(things: list[teardown.Machine | teardown.Group], age: float) -> bool:
    """Whether a whole cluster is, as far as its ages are known; a group of unknown age alone is not old."""
    born = [each.launched for each in things if each.launched]
    return bool(born) and time.time() - max(born) >= age


def _tell_unknown(aws: Aws, found: dict[str, list[teardown.Machine | teardown.Group]]) -> None:
    """Name the clusters of which nobody here can say whether their command is dead."""
    for cluster, things in found.items():
        if all(each.name or teardown.is_leaked(each) is not None for each in things):
            continue
        pid, host = owners.process_and_host(things[0].client)
        ids = ", ".join(each.id for each in things)
        click.echo(f"Left alone: cluster {cluster}: {ids}. Its command may be running: process {pid} on {host}.")
        click.echo(f"If it is dead: dask-classify reap --region {aws.region} --cluster {cluster} --yes")


def _reap_uploads(output: str, *, yes: bool) -> None:
    """Abort what killed commands left of a run's large files, or of a file that `fetch` was writing."""
    found = RunFolder(output).uploads()
    for each in found:
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.began))
        click.echo(f"{'Aborting' if yes else 'Would abort'} the upload to {each.url}, begun {began}")
        if yes:
            storage.abort(each)
    if not found:
        click.echo(f"No unfinished uploads of a run in {output}.")
    elif not yes:
        click.echo("Nothing was aborted: add --yes, if no command is writing there.")


def _end_all(aws: Aws, clusters: list[str]) -> None:
    left: list[str] = []
    for cluster in clusters:
        ending = teardown.end(aws, cluster, say=_say)
        left += ending.left
        click.echo(
            f"Cluster {cluster}: {ending.terminated} instances terminated"
            + (f"; left: {', '.join(ending.left)}" if ending.left else ", nothing is left")
        )
    if left:
        raise InstancesLeft(f"Still there in {aws.region}: {', '.join(left)}.", "Try again, or use the AWS console.")


def doctor(workers: int | None, output: str | None, options: dict, *, policy: bool) -> None:
    """Print each finding. Raises DaskClassifyError when a run would fail."""
    if policy:
        click.echo(json.dumps(policies(output, options.get("instance_profile")), indent=2))
        return
    console = Console(soft_wrap=True, highlight=False)
    wrong = 0
    for finding in examine(spec_of(workers, options), output):
        sign, style = _SIGNS[finding.good]
        console.print(f"[{style}]{sign:<5}[/] {finding.what}: ", end="")
        console.print(finding.text, markup=False)
        if finding.hint:
            console.print(f"      {finding.hint}", markup=False)
        wrong += finding.good is False
    if wrong:
        raise DaskClassifyError(f"A run would fail: {wrong} {'thing is' if wrong == 1 else 'things are'} wrong.")
