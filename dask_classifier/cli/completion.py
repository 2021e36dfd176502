"""Shell completion: files, runs, clusters, functions in a file, and options without a command."""

import ast
import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

from ..parts.formats import FORMATS

_CLUSTERS = ("local", "inline", "ec2")


class Completed(click.ParamType):
    """Text for which the shell proposes completions. The text itself is not changed."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text."""
        return str(value)


class FileName(Completed):
    """A file, local or not."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Leave it to the shell."""
        return [CompletionItem(incomplete, type="file")]


class FolderName(Completed):
    """A run or its output, local or not."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Leave it to the shell."""
        return [CompletionItem(incomplete, type="dir")]


class OneOf(Completed):
    """Text for which some words are proposed, although others are valid."""

    def __init__(self, *words: str):
        self.words = words

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Propose the words."""
        return [CompletionItem(word) for word in self.words if word.startswith(incomplete)]


class ClusterName(OneOf):
    """A kind of cluster, or the name of a cluster of `up`. Addresses are not proposed."""

    def __init__(self):
        super().__init__(*_CLUSTERS)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Propose both."""
        kinds = super().shell_complete(ctx, param, incomplete)
        return kinds + NamedClusterName().shell_complete(ctx, param, incomplete)


class NamedClusterName(Completed):
    """The name of a cluster of `up`."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Propose the clusters that were started on this computer."""
        from ..ec2 import named_clusters  # here, because it takes long to import

        return [CompletionItem(name) for name in named_clusters.names() if name.startswith(incomplete)]


class ClassifierName(Completed):
    """A function in a file, as path/to/file.py:name, or the black box."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Propose the functions of the Python files that match; leave folders to the shell."""
        folder, start = os.path.split(incomplete.partition(":")[0])
        files = sorted(Path(folder or ".").glob("*.py"))
        names = [f"{os.path.join(folder, file.name)}:{name}"  # noqa: PTH118  # not Path, which drops ./
                 for file in files if file.name.startswith(start) for name in _functions(file)]  # fmt: skip
        words = [name for name in ["blackbox", *names] if name.startswith(incomplete)]
        return [CompletionItem(word) for word in words] or [CompletionItem(incomplete, type="file")]


def _functions(file: Path) -> list[str]:
    """Return the names of a file's public functions and classes; none if it is not valid Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError):
        return []
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]


class OptionsOfDefault(click.Group):
    """A group that also proposes the options of its default command `run`."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Propose commands and the group's own options, then those of `run`."""
        items = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            run = self.commands["run"]
            with run.make_context("run", [], parent=ctx, resilient_parsing=True) as below:
                known = {item.value for item in items}
                items += [item for item in run.shell_complete(below, incomplete) if item.value not in known]
        return items


class _Bash(BashComplete):
    """Completion in bash, which splits words at colons: mine.py:cl is three words, and only the last is completed."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Join the words that bash has split."""
        args, incomplete = super().get_completion_args()
        words: list[str] = []
        for word in [*args, incomplete]:
            joins = words and (word == ":" or words[-1].endswith(":"))
            words[-1:] = [words[-1] + word] if joins else [*words[-1:], word]
        return words[:-1], words[-1]

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Remove from each completion the text up to the last colon, which bash keeps."""
        before = incomplete.rpartition(":")[0]
        items = super().get_completions(args, incomplete)
        for item in items:
            item.value = item.value.removeprefix(f"{before}:") if before else item.value
        return items


add_completion_class(_Bash)
FILE, FOLDER, CLASSIFIER = FileName(), FolderName(), ClassifierName()
CLUSTER, NAMED_CLUSTER = ClusterName(), NamedClusterName()
FORMAT = OneOf(*FORMATS)
