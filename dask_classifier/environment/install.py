"""What an instance without an image of ours runs: fetch the environment, install it, become the command.

It runs in a container of Python alone, as `python -c TEXT URL SHA256 COMMAND...`: it imports nothing of this package.
"""

import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

PIP = "-m pip install --quiet --no-deps --no-compile --no-cache-dir --no-input --disable-pip-version-check"


def main(url, sha256, *command):
    """Install the environment of an archive, and become the command."""
    folder = Path(os.environ["HOME"], "environment")
    folder.mkdir()
    archive, packages = folder / "environment.zip", folder / "packages"
    fetch(url, sha256, archive)
    zipfile.ZipFile(archive).extractall(folder)
    archive.unlink()
    began = time.monotonic()
    words = [sys.executable, *PIP.split(), "--target", packages, "--requirement", "requirements.txt"]
    if subprocess.run(words, cwd=folder).returncode:
        sys.exit("ERROR: the packages could not be installed")
    say(f"installed the packages in {time.monotonic() - began:.0f} s")
    path = os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH")]))
    os.execvpe(command[0], command, {**os.environ, "PYTHONPATH": path})


def fetch(url, sha256, archive):
    """Download the archive. A network or a bucket may need some seconds to answer, and a connection may break."""
    for pause in 1, 2, 4, 8, 16, 0:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer, archive.open("wb") as file:
                shutil.copyfileobj(answer, file)
            if archive.stat().st_size != int(answer.headers.get("Content-Length", -1)):
                raise OSError("the connection broke")
            break
        except (OSError, http.client.HTTPException) as error:
            say(f"ERROR: the packages cannot be fetched: {error}")
            if not pause or (isinstance(error, urllib.error.HTTPError) and error.code < 500):
                sys.exit(1)
        time.sleep(pause)
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        sys.exit(f"ERROR: the packages in the bucket were altered: their SHA-256 is {found}")


def say(text):
    """Write a line to the console."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
