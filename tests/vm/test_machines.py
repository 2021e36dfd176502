"""What an instance does by itself, whatever happens to it: user data on virtual machines, without a client.

The machines of all tests are booted first, one after the other, so that they wait for their deadlines together. Times
are those of a machine with KVM; without it, they are `slow` times as long.
"""

import re
import time

import pytest
from rehearse import REGION, wait_for
from rehearse_virtual import REGISTRY

from dask_classifier.ec2 import boot, reasons

pytestmark = pytest.mark.virtual

UP = ["sh", "-c", "echo up and running at $(date +%s); sleep 10000"]
FULL = "fallocate -l $(($(stat -f -c '%f * %S' /) - 30000000)) /filler"
RUNNING = r"dask-classify\[\d+\]: up and running at (\d+)"


class Machine:
    """An instance whose user data is the product's, with a command of the test in the container.

    Parameters
    ----------
    seconds
        From the launch to the deadline.
    tag
        Of the image.
    boots
        What the console has once the machine can be left alone.
    command
        Of the container.
    clock
        Seconds by which its clock is fast.
    settings
        Of the region while the machine boots.
    """

    def __init__(self, ec2, *, seconds, tag="1", boots=RUNNING, command=UP, clock=0, **settings):
        self.ec2 = ec2
        self.launched = time.time()
        if clock:
            settings["clock"] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.launched + clock))
        ec2.settings(**settings)
        self.deadline = self.launched + seconds * ec2.slow
        user_data = boot.boot_script(
            title="dask-classify test", launched=self.launched, deadline=self.deadline, command=command,
            image=f"{REGISTRY}/dask-classify:{tag}", config={}, environment={}, region=REGION,
        )  # fmt: skip
        self.id = ec2.launch(user_data)
        wait_for(lambda: self.event("power off") or re.search(boots, self.console()), 1200)

    def console(self):
        return self.ec2.console(self.id)

    def starts(self):
        """How often Linux was started."""
        return self.console().count("Linux version")

    def event(self, what):
        """The time of an event, or None."""
        events = [event for event in self.ec2.all_events() if event["what"] == what and event.get("id") == self.id]
        return events[0]["at"] if events else None

    def off(self):
        """Wait until it has powered itself off; when that was."""
        return wait_for(lambda: self.event("power off"), 1200)

    def ends_at_its_deadline(self, seconds=30):
        """Not before, and at most some seconds after."""
        assert self.deadline - 2 <= self.off() <= self.deadline + seconds * self.ec2.slow
        assert "the deadline has passed" in self.console()

    def ends_soon(self, after, seconds=60):
        """Within a minute, although the deadline is later."""
        assert self.off() < after + seconds * self.ec2.slow < self.deadline
        assert "the deadline has passed" not in self.console()


def machine(**options):
    """The options of the machine that a test finds in `booted`."""
    return pytest.mark.machine(**options)


@pytest.fixture(scope="module")
def machines(request, region):
    mine = [item for item in request.session.items if item.module is request.module]
    yield {item.name: Machine(region, **item.get_closest_marker("machine").kwargs) for item in mine}
    region.wipe()


@pytest.fixture
def booted(request, machines):
    return machines[request.node.name]


# --- booted again ------------------------------------------------------------------------------------------


@machine(seconds=1200)
def test_off_after_a_reboot(booted):
    """Rebooted while the container runs: off within a minute, without a second container."""
    again = time.time()
    booted.ec2.pull("reboot", booted.id)
    booted.ends_soon(again)
    assert booted.starts() == 2 and len(re.findall(RUNNING, booted.console())) == 1


@machine(seconds=1200)
def test_off_after_a_crash_in_a_run(booted):
    """Reset while the container runs, and the metadata service no longer answers: off within a minute all the same."""
    booted.ec2.pull("silence", booted.id)
    again = time.time()
    booted.ec2.pull("crash", booted.id)
    booted.ends_soon(again)
    assert booted.starts() == 2


@machine(seconds=1200, crashes=[{"at": RUNNING}], boots="no such text")
def test_off_after_a_crash_right_after_the_user_data(booted):
    """Reset as soon as the container has printed something: off within a minute."""
    booted.ends_soon(booted.event("crash"))
    assert booted.starts() == 2


@machine(seconds=120, crashes=[{"at": "running 'init-local'"}])
def test_crash_before_the_user_data(booted):
    """Reset before cloud-init has fetched anything: the next boot is like a first one, and the deadline holds."""
    assert booted.event("crash") and booted.starts() == 2 and re.search(RUNNING, booted.console())
    booted.ends_at_its_deadline()


@machine(seconds=1200, crashes=[{"at": r"Started \S*run-r"}], boots="no such text")
def test_off_after_a_crash_during_the_user_data(booted):
    """Reset when it has set the first timer of its deadline: off within a minute, without a container."""
    booted.ends_soon(booted.event("crash"))
    assert booted.starts() == 2 and not re.search(RUNNING, booted.console())


# --- machines and images that do not work --------------------------------------------------------------------


def the_reason(booted):
    """Off long before its deadline: what a command would say."""
    assert booted.off() < booted.deadline and booted.starts() == 1
    return reasons.last_errors(booted.console())


@machine(seconds=1200, tag="missing")
def test_a_missing_image(booted):
    """Off, with the reason on the console."""
    assert "manifest unknown" in the_reason(booted)


@machine(seconds=1200, tag="arm", command=["python", "--version"])
def test_an_image_for_another_architecture(booted):
    """Off, with the reason on the console."""
    assert re.search("[Ee]xec format error", the_reason(booted))


@machine(seconds=1200, disks={"t3.small": "base"}, machine=FULL)
def test_a_full_disk(booted):
    """The image does not fit: off, with the reason on the console."""
    assert "no space left" in the_reason(booted)


@machine(seconds=1200, machine='echo \'{"no": "such"}\' > /etc/docker/daemon.json')
def test_a_docker_daemon_that_does_not_start(booted):
    """Off, with the reason on the console."""
    assert "Cannot connect to the Docker daemon" in the_reason(booted)


@machine(seconds=1200, machine="rm -f /usr/bin/docker")
def test_no_docker(booted):
    """Neither installed, nor can it be installed: off, with the reason on the console."""
    assert "docker: not found" in the_reason(booted)


# --- the deadline ------------------------------------------------------------------------------------------


RELOAD = """
cat >/run/reload <<END
until docker ps --quiet | grep .; do sleep 1; done
systemctl daemon-reload && echo reloaded
END
systemd-run --no-block -p StandardOutput=journal+console sh /run/reload
"""


RELOADED = r"sh\[\d+\]: reloaded"


@machine(seconds=100, machine=RELOAD, boots=RELOADED)
def test_deadline_in_a_run(booted):
    """Off within 20 s of the deadline, not before, although systemd was reloaded in the run, as dnf does."""
    assert re.search(RUNNING, booted.console())
    booted.ends_at_its_deadline(20)
    assert re.search(RELOADED, booted.console())


@machine(
    seconds=60,
    tag="other",
    machine="iptables -A OUTPUT -p tcp --dport 5000 -j DROP",
    boots="docker.service.*Application Container Engine",
)
def test_deadline_in_a_pull(booted):
    """The registry does not answer: off within 30 s of the deadline, not before."""
    booted.ends_at_its_deadline()
    assert not re.search(RUNNING, booted.console())


@machine(seconds=90, tag="stubborn", boots="docker.service.*Application Container Engine")
def test_deadline_with_a_container_that_ignores_sigterm(booted):
    """Off within a minute of the deadline, not before."""
    booted.ends_at_its_deadline(60)


@machine(seconds=75, clock=-3600)
def test_deadline_with_a_clock_an_hour_slow(booted):
    """Off within 30 s of the deadline, not before."""
    there = int(re.search(RUNNING, booted.console())[1])
    assert there < booted.launched - 1800, "the clock was not wrong"
    booted.ends_at_its_deadline()


@machine(seconds=75, clock=3600)
def test_deadline_with_a_clock_an_hour_fast(booted):
    """Off within 30 s of the deadline, not before."""
    there = int(re.search(RUNNING, booted.console())[1])
    assert there > booted.launched + 1800, "the clock was not wrong"
    booted.ends_at_its_deadline()


# --- a pull that does not work at once -----------------------------------------------------------------------


NO_ROUTE = """
ip route add unreachable 172.31.0.2/32
cat >/run/route <<END
until systemctl is-active --quiet dask-classify; do sleep 1; done
sleep 45
ip route del unreachable 172.31.0.2/32
END
systemd-run --no-block sh /run/route
"""


@machine(seconds=1200, tag="other", machine=NO_ROUTE)
def test_no_way_to_the_registry_for_a_while(booted):
    """The machine has no route to the registry at first: it tries in vain, tries again, and works."""
    assert re.search(rf"(?s)dask-classify\[\d+\]: [^\n]*dial tcp.*{RUNNING}", booted.console())
