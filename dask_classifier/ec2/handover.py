"""What a process on the scheduler's instance needs to take over the cluster from the command that started it."""

from dataclasses import dataclass

from .bill import Known
from .named_clusters import NamedCluster
from .placement import Placement


@dataclass(frozen=True)
class Handover:
    """A running cluster with all that was looked up for it, so that its instances need no permission to look it up."""

    cluster: NamedCluster
    placement: Placement
    scheduler: str  # id of its instance
    began: float  # when the launch began, in seconds since 1970
    prices: Known  # of the instances that were launched
