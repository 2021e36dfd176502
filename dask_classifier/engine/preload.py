"""What the forkserver imports once for all classifier processes: pandas, and their tasks."""

import gc

gc.disable()  # imports make many objects and no garbage
from .. import tasks  # noqa: E402, F401

gc.freeze()  # what is imported stays: children need not look through it, and so share its memory
gc.enable()
