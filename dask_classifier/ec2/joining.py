"""How a client and workers find a scheduler that may still be booting."""

import asyncio
import contextlib
import time

from distributed import Nanny
from distributed.comm import connect

# Of a look, in which Dask repeats the attempt, ever more rarely. The first attempt has a fifth of it: with less, a busy
# scheduler would log that a TLS handshake failed.
_LOOK_SECONDS = 15


async def answers(scheduler: str, **connection_args: object) -> bool:
    """Return whether the scheduler answers within some seconds, in which Dask repeats the attempt."""
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        comm = await connect(scheduler, timeout=_LOOK_SECONDS, **connection_args)
        await comm.close()
        return True
    return False


async def dask_setup(nanny: Nanny) -> None:
    """Wait for the scheduler, up to the worker's --death-timeout; called by `dask worker --preload-nanny`.

    Dask's nanny itself gives up after 30 seconds; then its container ends, and with it the instance.
    """
    give_up = time.monotonic() + nanny.death_timeout
    while not await answers(nanny.scheduler_addr, **nanny.connection_args) and time.monotonic() < give_up:
        await asyncio.sleep(1)
