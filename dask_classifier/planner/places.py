"""Where a run could be: this computer, and clusters on EC2 of several sizes with their prices."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from ..ec2 import prices
from ..ec2.aws import Aws
from ..ec2.placement import find_placement
from ..ec2.prices import Hourly
from ..ec2.spec import ClusterSpec
from ..units import count_of
from .estimate import EC2, LOCAL

SIZES = (1, 2, 4, 8, 16, 32, 64)  # instances, unless a number is given
# guesses until there are runs on EC2: boot 1 to 2 minutes, the pull of an image of 200 MB or more, joining
EC2_START_SECONDS, EC2_END_SECONDS = 240.0, 60.0


@dataclass(frozen=True)
class Place:
    """A place of some size; `price` is None where nothing is paid."""

    where: str
    instances: int
    processes: int
    cores: int  # vCPUs on EC2
    label: str
    instance_type: str = ""  # on EC2
    price: Hourly | None = None
    deadline: float | None = None  # seconds after which its instances shut themselves down


def here(processes: int, cores: int) -> Place:
    """This computer."""
    shared = "" if processes <= cores else f", {processes} processes"
    return Place(LOCAL, 0, processes, cores, f"here, {count_of(min(processes, cores), 'core')}{shared}")


@dataclass(frozen=True)
class Fleet:
    """Clusters on EC2 of any number of instances."""

    processes: int  # of one instance
    instance_type: str
    vcpus: int  # of one instance
    price_of: Callable[[int], Hourly]
    note: str
    deadline: float  # seconds after which the instances shut themselves down
    fewest: int = 1  # workers

    def place(self, instances: int) -> Place:
        """Return the cluster of this number of workers."""
        label = f"{instances} x {self.processes}"
        processes, cores = instances * self.processes, instances * self.vcpus
        price = self.price_of(instances)
        return Place(EC2, instances, processes, cores, label, self.instance_type, price, self.deadline)


def asked(spec: ClusterSpec) -> Fleet:
    """Return what EC2 offers for a cluster. AWS is asked; nothing is launched. Raises ClusterError or UsageError."""
    aws = Aws(spec.region)
    aws.credentials()
    placement = find_placement(aws, spec)
    price_of = functools.cache(lambda workers: prices.hourly(aws, spec, placement, workers))
    offer = placement.offers["worker"][0]
    note = f"instances: {offer.market} {offer.type} in {aws.region}, {price_of(1).source}"
    vcpus = placement.vcpus[offer.type]
    return Fleet(placement.processes(spec), offer.type, vcpus, price_of, note, spec.deadline, spec.min_workers)


def unasked(spec: ClusterSpec) -> Fleet:
    """Return the same without asking AWS: on-demand prices of the package's table."""
    kind = spec.instance_type[0]
    price_of = functools.cache(lambda workers: prices.from_table(spec, workers))
    note = f"instances: {kind}, {price_of(1).source}; AWS was not asked: --cluster ec2 does that"
    vcpus = prices.vcpus(kind)
    processes = spec.processes_per_worker or vcpus
    return Fleet(processes, kind, vcpus, price_of, note, spec.deadline, spec.min_workers)
