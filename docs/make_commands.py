"""Makes commands.md of the help texts: python docs/make_commands.py."""

from pathlib import Path

import click

from dask_classifier.cli.app import app

PAGE = Path(__file__).with_name("commands.md")
HEAD = """# Commands

Made from `--help`, by `make docs`. Options can also come from Dask's configuration, option over environment over file:
`dask-classifier: {workers: 4}` in `~/.config/dask/*.yaml`, or `DASK_CLASSIFIER__WORKERS=4`. Talk goes to standard
error, data to standard output.

`python -m dask_classifier` is the same command.

## Completion in the shell

Once, in `~/.bashrc`:

```console
eval "$(_DASK_CLASSIFY_COMPLETE=bash_source dask-classify)"
```

In `~/.zshrc` with `zsh_source` instead of `bash_source`; in fish,
`_DASK_CLASSIFY_COMPLETE=fish_source dask-classify | source`.
Then the Tab key completes commands, options (also those of `run`, without a command), files, runs, functions in a file
(`--classifier mine.py:classify`), output formats and the names of clusters. bash must be 4.4 or later.
"""


def text() -> str:
    """The whole page."""
    top = click.Context(app, info_name="dask-classify", terminal_width=80, **app.context_settings)
    below = [click.Context(command, top, name, terminal_width=80) for name, command in sorted(app.commands.items())]
    return "\n".join([HEAD, *map(section, [top, *below])])


def section(context: click.Context) -> str:
    """A command's help, 80 columns wide."""
    return f"## {context.command_path}\n\n```text\n{context.get_help()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(text())
