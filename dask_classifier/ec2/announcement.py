"""What a cluster prints before it launches anything: instances, price, deadline, and who can reach the dashboard."""

import time
from collections.abc import Iterator

from . import prices
from .launcher import Fleet


def announcement(fleet: Fleet) -> Iterator[str]:
    """Yield the lines. Raises ClusterError if there are no AWS credentials."""
    spec, region = fleet.spec, fleet.aws.region
    price = prices.hourly(fleet.aws, spec, fleet.placement, spec.workers)
    yield f"Starting {fleet.placement.words(spec, spec.workers)}, in {region}: {price}"
    event, latest = "with `down`" if spec.name else "after this run", clock(fleet.deadline)
    yield f"Cluster {fleet.cluster} is terminated {event}, and shuts itself down by {latest} at the latest."
    yield f"Its dashboard can be reached {_dashboard_access(fleet)}."
    if not spec.instance_profile:
        yield from _credentials_end(fleet)


def _credentials_end(fleet: Fleet) -> Iterator[str]:
    """Yield a line if the credentials that the instances get may expire before the deadline."""
    ends = fleet.aws.credentials_end()
    if ends is None:
        yield "The instances use your session's credentials, which may expire in a long run: see --instance-profile."
    elif ends < fleet.deadline:
        yield f"The instances use your credentials, which expire at {clock(ends)}: for more, --instance-profile."


def _dashboard_access(fleet: Fleet) -> str:
    if fleet.spec.security_group:
        return "from addresses that your security group admits to port 8787"
    return "from within the VPC" if fleet.spec.private_ip else "from your IP address only"


def clock(epoch: float) -> str:
    """Format a time as this computer's clock shows it, with the date if it is not soon."""
    return time.strftime("%H:%M" if epoch - time.time() < 43_200 else "%Y-%m-%d %H:%M", time.localtime(epoch))
