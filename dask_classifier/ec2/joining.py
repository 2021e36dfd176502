"""How a client and workers wait for a scheduler that may still be booting."""

import asyncio
import contextlib

from distributed import Nanny
from distributed.comm import parse_address
from distributed.comm.registry import get_backend

_ATTEMPT_SECONDS = 20  # packets to an instance that is not up yet are lost, and repeated ever more rarely
_PAUSE_SECONDS = 1


async def scheduler_answers(address: str, **connection_args: object) -> None:
    """Return once the scheduler accepts connections.

    `distributed.comm.connect` would try ever more rarely, and give its first attempt a fifth of the time: a busy
    scheduler then logs that the TLS handshake failed.
    """
    scheme, location = parse_address(address)
    connector = get_backend(scheme).get_connector()
    while True:
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            comm = await asyncio.wait_for(connector.connect(location, **connection_args), _ATTEMPT_SECONDS)
            await comm.close()
            return
        await asyncio.sleep(_PAUSE_SECONDS)


async def dask_setup(nanny: Nanny) -> None:
    """Wait for the scheduler, up to the worker's --death-timeout; called by `dask worker --preload-nanny`.

    Dask's nanny itself gives up after 30 seconds; then its container ends, and with it the instance.
    """
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(scheduler_answers(nanny.scheduler_addr, **nanny.connection_args), nanny.death_timeout)
