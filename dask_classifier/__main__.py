"""The command's way in and out, for `dask-classify` and `python -m dask_classifier`: both quick."""

import gc


def main() -> None:
    """Run the command."""
    gc.set_threshold(50_000)  # imports make many objects and no garbage: looking for it takes a sixth of their time
    from .cli import main as command

    try:
        command()
    finally:
        gc.freeze()  # Python would look through all that was imported once more, for 0.2 s


if __name__ == "__main__":
    main()
