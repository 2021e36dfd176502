"""A package index for tests: a folder with wheels, served on loopback as a simple repository (PEP 503)."""

import contextlib
import hashlib
import re
import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@contextlib.contextmanager
def served(folder, host="127.0.0.1"):
    """The address of a folder."""
    server = ThreadingHTTPServer((host, 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever).start()
    try:
        yield f"http://{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def write_index(folder: Path, wheels):
    """The pages of an index below `simple` in a folder."""
    for file in wheels:
        name = re.sub(r"[-_.]+", "-", file.name.split("-")[0]).lower()
        page = folder / "simple" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, page.parent)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        with page.open("a") as text:
            text.write(f'<a href="{file.name}#sha256={digest}">{file.name}</a><br>\n')


if __name__ == "__main__":  # an index, in a folder, of what is installed here and of the wheels in other folders
    from dask_classifier.environment.archive import packed

    with packed((), python="{}.{}".format(*sys.version_info), architecture="x86_64", wheels=True) as (_, made):
        folders = [made / "wheels", *map(Path, sys.argv[2:])]
        wheels = {file.name: file for folder in folders for file in folder.iterdir()}
        write_index(Path(sys.argv[1]), wheels.values())
