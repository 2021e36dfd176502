"""A Dockerfile for an environment, so that instances need not install it; the wheels are not part of the image."""

from pathlib import Path

_TEXT = """\
FROM {base} AS build
COPY requirements.txt /environment/
COPY wheels /environment/wheels
RUN cd /environment \\
    && python -m pip install --no-cache-dir --no-deps --root-user-action ignore --prefix /installed \\
        --requirement requirements.txt

FROM {base}
COPY --from=build /installed /usr/local
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
