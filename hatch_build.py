"""Metadata that depends on where the project is published: the index's page is the README, whose links need an address.

DASK_CLASSIFY_REPOSITORY=https://host/owner/name python -m build

makes links and pictures absolute, and adds them as project URLs. Without it, the page has no pictures, and a link to a
file of the repository is its text: an index cannot resolve it.
"""

import os
import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")


def long_description(text: str, repository: str) -> str:
    """The README as an index shows it."""

    def link(found: re.Match) -> str:
        picture, words, path = found.groups()
        if repository:
            return f"{picture}[{words}]({repository}/{'raw' if picture else 'blob'}/HEAD/{path})"
        return "" if picture else words

    return re.sub(r"\n{3,}", "\n\n", LINK.sub(link, text))


def urls(repository: str) -> dict[str, str]:
    """Addresses of the project; none where the repository's is not known."""
    if not repository:
        return {}
    return {
        "Source": repository,
        "Documentation": f"{repository}/blob/HEAD/docs/index.md",
        "Changelog": f"{repository}/blob/HEAD/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }


class CustomMetadataHook(MetadataHookInterface):
    """What hatchling asks."""

    def update(self, metadata: dict) -> None:
        """Add the readme and the URLs."""
        repository = os.environ.get("DASK_CLASSIFY_REPOSITORY", "").rstrip("/")
        text = (Path(self.root) / "README.md").read_text()
        metadata["readme"] = {"content-type": "text/markdown", "text": long_description(text, repository)}
        metadata["urls"] = urls(repository)
