"""Completion in the shell: files, runs, clusters, functions in a file, and options without a command."""

import ast
import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

from ..parts.formats import FORMATS

_CLUSTERS = ("local", "inline", "ec2")


class Completed(click.ParamType):
    """Text, for which the shell proposes something. What is typed arrives as it is."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text."""
        return str(value)


class FileName(Completed):
    """A file, local or not."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Leave it to the shell, which knows files best."""
        return [CompletionItem(incomplete, type="file")]


class FolderName(Completed):
    """A run or its output, local or not."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Leave it to the shell."""
        return [CompletionItem(incomplete, type="dir")]


class OneOf(Completed):
    """One of some words, or something else."""

    def __init__(self, *words: str):
        self.words = words

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Propose the words."""
        return [CompletionItem(word) for word in self.words if word.startswith(incomplete)]


class ClusterName(OneOf):
    """A kind of cluster, or the name of one that `up` started; an address is nobody's to guess."""

    def __init__(self):
        super().__init__(*_CLUSTERS)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Propose what there is."""
        found = super().shell_complete(ctx, param, incomplete)
        return found + SavedName().shell_complete(ctx, param, incomplete)


class SavedName(Completed):
    """The name of a cluster that `up` started."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Propose those that are kept on this machine."""
        from ..ec2 import named_clusters  # imports what only clusters need

        return [CompletionItem(name) for name in named_clusters.names() if name.startswith(incomplete)]


class ClassifierName(Completed):
    """A function in a file, as path/to/file.py:name; or the built-in one."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Propose each function of the files that the text may mean; folders are left to the shell."""
        folder, start = os.path.split(incomplete.partition(":")[0])
        files = sorted(Path(folder or ".").glob("*.py"))
        names = [f"{os.path.join(folder, file.name)}:{name}"  # noqa: PTH118  # as it was typed: ./a.py stays ./a.py
                 for file in files if file.name.startswith(start) for name in _functions(file)]  # fmt: skip
        words = [name for name in ["blackbox", *names] if name.startswith(incomplete)]
        return [CompletionItem(word) for word in words] or [CompletionItem(incomplete, type="file")]


def _functions(file: Path) -> list[str]:
    """The names of a file's public functions and classes; none where it is no Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError):
        return []
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [each.name for each in tree.body if isinstance(each, kinds) and not each.name.startswith("_")]


class OptionsOfDefault(click.Group):
    """A group that proposes the options of its command `run` where no command was given."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Propose commands and the group's own options, then those of `run`."""
        found = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            run = self.commands["run"]
            with run.make_context("run", [], parent=ctx, resilient_parsing=True) as below:
                known = {item.value for item in found}
                found += [item for item in run.shell_complete(below, incomplete) if item.value not in known]
        return found


class _Bash(BashComplete):
    """bash takes a colon for a border of words: mine.py:cl are three. Of a completion, it wants the last."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Join what bash has split."""
        args, incomplete = super().get_completion_args()
        words: list[str] = []
        for word in [*args, incomplete]:
            joins = words and (word == ":" or words[-1].endswith(":"))
            words[-1:] = [words[-1] + word] if joins else [*words[-1:], word]
        return words[:-1], words[-1]

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Leave out of each completion what bash keeps before the last colon."""
        before = incomplete.rpartition(":")[0]
        found = super().get_completions(args, incomplete)
        for item in found:
            item.value = item.value.removeprefix(f"{before}:") if before else item.value
        return found


add_completion_class(_Bash)
FILE, FOLDER, CLUSTER, SAVED, CLASSIFIER = FileName(), FolderName(), ClusterName(), SavedName(), ClassifierName()
FORMAT = OneOf(*FORMATS)
