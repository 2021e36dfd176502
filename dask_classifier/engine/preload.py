"""Modules that the forkserver imports once for all classifier processes: the tasks, and with them pandas."""

import gc

gc.disable()  # imports create many objects and hardly any garbage
from .. import tasks  # noqa: E402, F401

gc.freeze()  # the collector in a child then skips these objects, so that their memory stays shared
gc.enable()
