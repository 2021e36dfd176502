"""Generate commands.md from the help texts: python docs/make_commands.py."""

from pathlib import Path

import click

from dask_classifier.cli.app import app

PAGE = Path(__file__).with_name("commands.md")
HEAD = """# Commands

This page is generated from `--help` by `make docs`.

Most options can also come from Dask's configuration: from the environment (`DASK_CLASSIFIER__WORKERS=4`), or from a
file (`dask-classifier: {workers: 4}` in `~/.config/dask/*.yaml`). The command line takes precedence over the
environment, and the environment over files. What belongs to a single run can only be given on the command line:
`--yes`, `--detach`, `--at`, `--from`, `--finish-by`, `--finish-in`, `--budget`, `--max-time`, `--partial` and
`--scale-up-to`.

Messages are printed to standard error, data to standard output.

`python -m dask_classifier` is the same command.

## Shell completion

Add this line to `~/.bashrc`:

```console
eval "$(_DASK_CLASSIFY_COMPLETE=bash_source dask-classify)"
```

For zsh, add it to `~/.zshrc` with `zsh_source` instead of `bash_source`. For fish, use
`_DASK_CLASSIFY_COMPLETE=fish_source dask-classify | source`.

The Tab key then completes commands, options (including those of `run`, if no command is given), files, runs, functions
in a file (`--classifier mine.py:classify`), output formats and names of clusters. bash must be version 4.4 or later.
"""


def text() -> str:
    """Return the whole page."""
    group = click.Context(app, info_name="dask-classify", terminal_width=80, **app.context_settings)
    commands = [
        click.Context(command, group, name, terminal_width=80) for name, command in sorted(app.commands.items())
    ]
    return "\n".join([HEAD, *map(section, [group, *commands])])


def section(context: click.Context) -> str:
    """Return a command's help, 80 columns wide."""
    return f"## {context.command_path}\n\n```text\n{context.get_help()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(text())
