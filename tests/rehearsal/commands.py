"""The commands of an instance that are played: docker, shutdown, nproc, aws, and some that do nothing."""

import json
import os
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = Path(os.environ["HOME"])
WITH_A_VALUE = {"-e", "--env", "--name", "--network", "--shm-size", "--ulimit", "--log-driver", "--log-opt", "--user"}


def docker(arguments: list[str]) -> None:
    """`docker run [options] IMAGE COMMAND` becomes the command, in an environment of its own."""
    verb, *rest = arguments
    if verb == "login":
        assert sys.stdin.read().strip() == "a-password", "docker login needs the password on standard input"
        (HOME / "logins").open("a").write(rest[-1] + "\n")
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
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
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
    if told.get("missing") or (private and not (HOME / "logins").exists()):
        print(f"docker: Error response from daemon: pull access denied for {image}, repository does not exist")
        sys.exit(125)
    return told


def shutdown(arguments: list[str]) -> None:
    """`shutdown -h now` or `+MINUTES`: the instance is told."""
    when = next(word for word in arguments if word == "now" or word.startswith("+"))
    (HOME / "shutdown.new").write_text(when)
    (HOME / "shutdown.new").rename(HOME / "shutdown")
    if when == "now":
        time.sleep(60)


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


def nproc(arguments: list[str]) -> None:
    print(os.environ["REHEARSAL_VCPUS"])


if __name__ == "__main__":
    played = {"docker": docker, "shutdown": shutdown, "aws": aws, "nproc": nproc}
    played.get(sys.argv[1], lambda arguments: None)(sys.argv[2:])
