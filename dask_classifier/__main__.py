"""The command's way in and out, for `dask-classify` and `python -m dask_classifier`: both quick."""

import gc
import sys
from typing import NoReturn

from . import check_platform
from .errors import UsageError


def main() -> None:
    """Run the command."""
    gc.set_threshold(50_000)  # imports make many objects and no garbage: looking for it takes a sixth of their time
    try:
        check_platform()
        from .cli.app import main as command
    except UsageError as error:
        _refuse(error)
    except (ValueError, TypeError) as error:  # of Dask, which reads its configuration when it is imported
        _refuse_configuration(error)
    try:
        command()
    finally:
        gc.freeze()  # Python would look through all that was imported once more, for 0.2 s


def _refuse_configuration(error: ValueError | TypeError) -> NoReturn:
    """Say what is wrong with a YAML file of Dask's configuration, and end; whatever else it is, raise it again."""
    if isinstance(error, TypeError) and not _is_from_config(error):
        raise error
    if isinstance(error, TypeError):
        error = ValueError(
            "a name in it is not text. YAML takes yes, no, on, off and numbers for values, unless quoted"
        )
    elif "config file" not in str(error):
        raise error
    _refuse(
        UsageError(
            f"Dask's configuration cannot be read: {' '.join(str(error).split())}",
            "Correct this YAML file, or set DASK_CONFIG to another folder.",
        )
    )


def _is_from_config(error: BaseException) -> bool:
    """Whether an exception was raised below Dask's module of its configuration."""
    step = error.__traceback__
    while step:
        if step.tb_frame.f_globals.get("__name__") == "dask.config":
            return True
        step = step.tb_next
    return False


def _refuse(wrong: UsageError) -> NoReturn:
    """What the command itself would print, before there is one."""
    sys.stderr.write(f"Error: {wrong.message}\nHint: {wrong.hint}\n")
    sys.exit(wrong.exit_code)


if __name__ == "__main__":
    main()
