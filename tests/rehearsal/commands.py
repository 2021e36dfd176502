"""The commands of an instance that are played: docker, systemctl, systemd-run, nproc, aws; some that do nothing."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = Path(os.environ["HOME"])
WITH_A_VALUE = {"-e", "--env", "--name", "--network", "--shm-size", "--ulimit", "--log-driver", "--log-opt"}
WITH_A_VALUE |= {"--user", "--workdir"}


def docker(arguments: list[str]) -> None:
    """`docker run [options] IMAGE COMMAND` becomes the command, in an environment of its own."""
    verb, *rest = arguments
    if verb == "login":
        assert sys.stdin.read().strip() == "a-password", "docker login needs the password on standard input"
        (HOME / "logins").open("a").write(rest[-1] + "\n")
    if verb == "image":
        sys.exit(1)  # no image is there yet
    if verb == "pull":
        _pull(rest[-1])
    if verb != "run":
        return
    environment = {}
    while rest[0].startswith("-"):
        option = rest.pop(0)
        value = rest.pop(0) if option in WITH_A_VALUE else ""
        if option in ("-e", "--env"):
            name, given, text = value.partition("=")
            environment[name] = text if given else os.environ[name]
    image, *command = rest
    image = _pull(image)
    (HOME / "docker.json").write_text(json.dumps({"command": command, "environment": environment}))
    ours = {name: value for name, value in os.environ.items() if name.startswith("REHEARSAL_")}
    environment |= ours | {
        "PATH": f"{image.get('python', Path(sys.executable).parent)}:/usr/bin:/bin",
        "HOME": str(HOME),
        "TMPDIR": str(HOME),
        "PYTHONPATH": str(HERE / "network"),
        "PYTHONUNBUFFERED": "1",
        "AWS_ENDPOINT_URL": os.environ["REHEARSAL_API"],
        **image.get("environment", {}),
    }
    os.execvpe(command[0], command, environment)


def _pull(image: str) -> dict:
    """What the settings say of an image; by default it is there, and right."""
    told = json.loads((Path(os.environ["REHEARSAL_FOLDER"]) / "images.json").read_text()).get(image, {})
    private = ".dkr.ecr." in image
    if told.get("missing"):
        print(f"docker: Error response from daemon: pull access denied for {image}, repository does not exist")
        sys.exit(125)
    if private and not (HOME / "logins").exists():
        print(f"docker: Error response from daemon: Head https://{image}: no basic auth credentials")
        sys.exit(125)
    return told


def systemctl(arguments: list[str]) -> None:
    """`systemctl poweroff`: the instance is told. Everything else works at once."""
    if arguments[0] == "poweroff":
        (HOME / "poweroff.new").touch()
        (HOME / "poweroff.new").rename(HOME / "poweroff")
        time.sleep(60)


def systemd_run(arguments: list[str]) -> None:
    """A command in the background, now or in `--on-active` seconds; what it prints comes as systemd prints it."""
    seconds = 0.0
    while arguments[0].startswith("-"):
        option = arguments.pop(0)
        if option == "-p":
            arguments.pop(0)
        if option.startswith("--on-active="):
            told = option.partition("=")[2]
            (HOME / "timers").open("a").write(f"{told}\n")
            seconds = float(told) * float(os.environ["REHEARSAL_MINUTE"]) / 60
    script = 'sleep "$1"; shift; "$@" 2>&1 | sed -u "s/^/[    1.000000] dask-classify[1]: /"'
    subprocess.Popen(["/bin/sh", "-c", script, "sh", str(seconds), *arguments], start_new_session=True)


def aws(arguments: list[str]) -> None:
    """`aws ecr get-login-password`: works where the instance has a profile."""
    assert arguments[:2] == ["ecr", "get-login-password"], arguments
    sys.path.insert(0, str(HERE / "network"))
    import sitecustomize  # noqa: F401  the way to 169.254.169.254

    base = "http://169.254.169.254/latest/"
    put = urllib.request.Request(base + "api/token", method="PUT", data=b"")
    token = urllib.request.urlopen(put).read().decode()
    ask = urllib.request.Request(
        base + "meta-data/iam/security-credentials/", headers={"X-aws-ec2-metadata-token": token}
    )
    try:
        urllib.request.urlopen(ask)
    except OSError:
        sys.exit("Unable to locate credentials")
    print("a-password")


def cut(arguments: list[str]) -> None:
    """Of /proc/uptime: the machine has just booted, although this computer has not."""
    assert arguments[-1] == "/proc/uptime", arguments
    print(0)


def nproc(arguments: list[str]) -> None:
    print(os.environ["REHEARSAL_VCPUS"])


if __name__ == "__main__":
    played = {
        "docker": docker,
        "systemctl": systemctl,
        "systemd-run": systemd_run,
        "aws": aws,
        "cut": cut,
        "nproc": nproc,
    }
    played.get(sys.argv[1], lambda arguments: None)(sys.argv[2:])
