"""Print the lowest versions that pyproject.toml allows, as constraints for pip."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
for dependency in project["dependencies"]:
    name, lowest = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", dependency).groups()
    print(f"{name}=={lowest}")
