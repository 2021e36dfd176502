"""A Dockerfile for an environment, so that instances need not install it."""

from pathlib import Path

_TEXT = """\
FROM {base}
COPY requirements.txt /environment/
COPY wheels /environment/wheels
RUN cd /environment \\
    && python -m pip install --no-cache-dir --no-deps --root-user-action ignore --requirement requirements.txt \\
    && cd / && rm -r /environment
RUN useradd --uid 1000 --user-group --create-home dask \\
    && install --directory --owner dask --group dask --mode 1777 /work \\
    && chmod 1777 /home/dask
ENV PYTHONUNBUFFERED=1 HOME=/home/dask
USER 1000:1000
WORKDIR /work
CMD ["dask-classify", "--help"]
"""


def write_dockerfile(folder: Path, base: str) -> None:
    """Write a Dockerfile beside requirements.txt and wheels, for an image that begins with `base`."""
    (folder / "Dockerfile").write_text(_TEXT.format(base=base))
