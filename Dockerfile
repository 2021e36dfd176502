# What the workers and the scheduler of a Dask cluster run from, and, where Python is not wanted on a machine, the command:
#
#     docker build --build-arg PYTHON_VERSION=3.12 -t dask-classify .
#     docker run --rm --init --network host dask-classify python -m distributed.cli.dask_scheduler --host 127.0.0.1
#     docker run --rm --init --network host dask-classify python -m distributed.cli.dask_worker tcp://127.0.0.1:8786
#     docker run --rm --init -v "$PWD:/work" dask-classify dask-classify --rows 10k
#
# --init, since a killed classifier's own children become process 1's, which must collect them.

# Functions travel from client to worker as bytecode, which another minor version cannot read: it must be the client's.
ARG PYTHON_VERSION=3.11

FROM docker.io/library/python:${PYTHON_VERSION}-slim AS build
# Everything comes as wheels, so that there is no compiler here; a source distribution would stop the build and say so.
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /source

# Dependencies apart from the package: both are a layer of their own, so that a change of a line of code neither downloads nor
# pushes 300 MB again.
COPY pyproject.toml constraints.txt ./
RUN python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
        > dependencies.txt \
    && python -m pip install --no-compile --only-binary :all: --prefix /dependencies --constraint constraints.txt \
        --requirement dependencies.txt

# A machine waits for the unpacking of small files longer than for anything else, so what nobody runs stays out: tests, headers and
# stubs; Arrow Flight, a network protocol; scripts of Bokeh that are there in small too; zstandard for PyPy. All that a classifier
# might import or ask for stays, so all of botocore's services and Arrow's S3 file system do.
RUN cd /dependencies/lib/python*/site-packages \
    && find . -depth -type d -name tests -exec rm -r {} + \
    && find . \( -name '*.pyi' -o -name '*.pyx' -o -name '*.px[di]' -o -name examples-1.json \) -delete \
    && rm -r pyarrow/include pyarrow/includes pyarrow/src pyarrow/*flight* pyarrow/*_cpp_tests* \
    && for small in bokeh/server/static/js/*.min.js; do rm "${small%.min.js}.js"; done \
    && rm -r bokeh/server/static/js/compiler.js bokeh/server/static/js/lib bokeh/server/static/lib zstandard/_cffi*

# Compiled here, since the image's user cannot write bytecode and every start would compile pandas anew; but only what a start
# imports, which is less than half: `python -v` says what it compiles. The source's hash is checked: not every builder keeps a
# file's time to the second.
RUN cd /dependencies/lib/python*/site-packages \
    && export PYTHONPATH=$PWD PYTHONDONTWRITEBYTECODE=1 \
    && python -v -c "import dask_cloudprovider.aws, distributed.cli.dask_scheduler, distributed.cli.dask_worker, \
                     distributed.dashboard.scheduler, distributed.dashboard.worker, pandas, pyarrow.csv, pyarrow.parquet, \
                     rich.progress, s3fs" 2> /source/imports.txt \
    && grep '^# code object from' /source/imports.txt | grep -o "$PWD.*[.]py" \
        | python -m compileall -q -j 0 --invalidation-mode checked-hash -s /dependencies -p /usr/local -i -

COPY README.md LICENSE hatch_build.py ./
COPY dask_classifier dask_classifier
RUN python -m pip install --no-compile --no-deps --prefix /package . \
    && python -m compileall -q --invalidation-mode checked-hash -s /package -p /usr/local /package


FROM docker.io/library/python:${PYTHON_VERSION}-slim
ARG PYTHON_VERSION
LABEL org.opencontainers.image.title="dask-classify" \
      org.opencontainers.image.description="Classify the rows of a big CSV file with a slow pandas function" \
      org.opencontainers.image.licenses="BSD-3-Clause" \
      org.opencontainers.image.base.name="docker.io/library/python:${PYTHON_VERSION}-slim"

# Other people's classifiers run here. 1000 is the first user of most machines, so that what is written into a mounted folder
# is theirs. With `docker run --user` it is somebody without a name or a home, who must be able to write here all the same.
RUN useradd --uid 1000 --user-group --create-home dask \
    && install --directory --owner dask --group dask --mode 1777 /work \
    && chmod 1777 /home/dask

# Into the base's own Python, not an environment beside it, so that `FROM dask-classify` and `pip install` add to the same one.
COPY --from=build /dependencies /usr/local
COPY --from=build /package /usr/local

# A log that comes when something happens, not when a buffer is full or, after a kill, never.
ENV PYTHONUNBUFFERED=1 \
    HOME=/home/dask
USER 1000:1000
WORKDIR /work
# No ENTRYPOINT: a cluster manager starts `dask ...` or `python -m distributed...` as the command.
CMD ["dask-classify", "--help"]
