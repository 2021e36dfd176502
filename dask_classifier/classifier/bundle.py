"""Finds a classifier's code on the caller's machine, packs it, and loads it in a classifier process.

What travels is a `Package`: the local Python files that the classifier needs (found by the standard library's
modulefinder), the files that the user adds, or the pickled callable. Installed modules do not travel: they
belong to the environment.
"""

import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from modulefinder import ModuleFinder
from pathlib import Path, PurePosixPath
from pkgutil import resolve_name

import cloudpickle

from ..errors import UsageError
from ..raised import Raised, is_ctrl_c, is_installed

BUILT_IN = {"blackbox": "dask_classifier.classifier.blackbox:BlackBox"}
_PICKLE = "classifier.pickle"


@dataclass(frozen=True)
class Package:
    """A classifier that can be sent: what was asked for, where to find it, and the files that make it."""

    reference: str  # as the user wrote it
    entry: str  # module:name, a name in BUILT_IN, or a pickle's name
    digest: str  # SHA-256 of all that travels, or of the installed module
    slowness: int | None = None  # of the built-in black box
    files: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)  # relative path to content
    home: str = ""  # the folder on the caller's machine where the files come from

    @property
    def modules(self) -> list[str]:
        """The names of the modules among the files."""
        paths = [PurePosixPath(name).with_suffix("") for name in self.files if name.endswith(".py")]
        return [".".join(path.parts[:-1] if path.name == "__init__" else path.parts) for path in paths]

    def unpack(self, folder: Path) -> None:
        """Lay the files down below `folder`, whole, those that are not there."""
        for name, content in self.files.items():
            path = folder / name
            if path.exists():
                continue  # others may be reading it
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f"{path.name}.{threading.get_ident()}.tmp")
            unfinished.write_bytes(content)
            unfinished.replace(path)


def pack(classifier: str | Callable, extra_files: tuple[str, ...] = (), slowness: int = 10) -> Package:
    """Find `blackbox`, `module:name`, `path/to/file.py:name` or a callable. Raises UsageError.

    The module is not run here, only looked at; `load` runs it, in a classifier process.
    """
    if not isinstance(classifier, str):
        return _pack_callable(classifier, extra_files)
    if classifier in BUILT_IN:
        source = Path(importlib.util.find_spec(BUILT_IN[classifier].partition(":")[0]).origin)
        return Package(classifier, classifier, _digest({source.name: source.read_bytes()}), slowness)
    where, colon, name = classifier.rpartition(":")
    if not colon or not name.isidentifier():
        raise UsageError(f"{classifier!r} is no classifier.", "Write blackbox, module:name, or path/to/file.py:name.")
    path = Path(where) if where.endswith(".py") else _local_module(where)
    if path is None:
        return _installed(classifier, where, extra_files)
    home = path.resolve().parent
    for _ in range(0 if where.endswith(".py") else where.count(".") + (path.name == "__init__.py")):
        home = home.parent
    module = path.stem if where.endswith(".py") else where
    files = _local_files(path, module, home) | _read_extra(extra_files, home)
    return Package(classifier, f"{module}:{name}", _digest(files), None, files, str(home))


def _pack_callable(function: Callable, extra_files: tuple[str, ...]) -> Package:
    """A callable travels by value, and with it what it uses of the user's own modules."""
    if not callable(function):
        raise UsageError(f"{function!r} is no classifier.", "Give a callable, or text such as 'file.py:name'.")
    try:
        with _local_modules_by_value():
            content = cloudpickle.dumps(function)
    except Exception as error:
        raise UsageError(
            f"{function!r} cannot be sent to workers: {error}.", "Open files and connections inside of it."
        ) from error
    files = {_PICKLE: content} | _read_extra(extra_files, Path.cwd())
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return Package(name, _PICKLE, _digest(files), None, files, str(Path.cwd()))


@contextlib.contextmanager
def _local_modules_by_value() -> Iterator[None]:
    """Make cloudpickle take along what is defined in modules that workers may not have."""
    modules = {
        module.__name__: module
        for name, module in list(sys.modules.items())
        if name != "__main__" and _is_local(getattr(module, "__file__", None))
    }  # by name, since one module may stand in sys.modules under several
    modules = [module for name, module in modules.items() if sys.modules.get(name) is module]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _installed(classifier: str, module: str, extra_files: tuple[str, ...]) -> Package:
    """A module of the environment: its own source, or its package's version, stands for its code."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        spec = None
    if spec is None:
        raise UsageError(
            f"There is no module {module!r}, for the classifier {classifier!r}.", "Is it installed, or in this folder?"
        )
    origin = Path(spec.origin) if spec.origin and Path(spec.origin).is_file() else None
    code = {module: origin.read_bytes() if origin else b"", "version": _version_of(module).encode()}
    files = _read_extra(extra_files, Path.cwd())
    return Package(classifier, classifier, _digest(code | files), None, files, str(Path.cwd()))


def _version_of(module: str) -> str:
    try:
        return importlib.metadata.version(module.split(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _is_local(file: str | None) -> bool:
    """Whether a module's file is the user's own, not the environment's.

    The environment includes packages that pip has installed elsewhere, as with --target and PYTHONPATH.
    """
    if not file or is_installed(file) or is_installed(str(Path(file).resolve())):
        return False
    path = Path(file)
    roots = [Path(entry) for entry in sys.path if entry and path.is_relative_to(entry)]
    return not any(path.relative_to(root).parts[0] in _distributed_in(str(root)) for root in roots)


@functools.cache
def _distributed_in(folder: str) -> frozenset[str]:
    """The files and folders right below a folder of sys.path that belong to distributions installed in it."""
    found = importlib.metadata.distributions(path=[folder])
    installed = [each for each in found if each.read_text("RECORD") or each.read_text("installed-files.txt")]
    return frozenset(file.parts[0] for distribution in installed for file in distribution.files or ())


def _local_module(module: str) -> Path | None:
    """The file of a module below the current folder, as `python -m` would find it; None where it is an
    installed one.
    """
    path = Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file() and _is_local(str(candidate)):
            return candidate
    return None


def _local_files(path: Path, module: str, home: Path) -> dict[str, bytes]:
    """A Python file and the local modules that it imports, themselves importing others: name below `home` to
    content.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", "Check the path of --classifier.")
    finder = ModuleFinder(path=[str(home)])
    try:
        finder.import_hook(module)
    except ImportError as error:
        raise UsageError(
            f"{path} cannot be imported: {error}.", "A module's name has no dots: rename the file."
        ) from error
    except SyntaxError as error:
        raise UsageError(f"{path} is not Python: {error}.", "Mend the classifier's file.") from error
    found = {Path(module.__file__).resolve() for module in finder.modules.values() if module.__file__} | {
        path.resolve()
    }
    packages = {
        folder / "__init__.py"
        for file in found
        for folder in file.parents
        if folder != home and folder.is_relative_to(home)
    }
    return {
        file.relative_to(home).as_posix(): file.read_bytes()
        for file in sorted(found | packages)
        if file.is_file() and file.is_relative_to(home)
    }


def _read_extra(extra_files: tuple[str, ...], home: Path) -> dict[str, bytes]:
    """Files (a model, a table) that travel beside the code, at the same place relative to it."""
    result = {}
    for name in extra_files:
        path = Path(name).resolve()
        if not path.is_file():
            raise UsageError(f"There is no file {name} to send with the classifier.", "Check the path of --with-file.")
        relative = path.relative_to(home) if path.is_relative_to(home) else PurePosixPath(path.name)
        result[relative.as_posix()] = path.read_bytes()
    return result


def _digest(files: dict[str, bytes]) -> str:
    listing = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()


def load(entry: str, folder: str, slowness: int | None = None) -> Callable:
    """Make the classifier from what `pack` found; its files are in `folder`. Raises UsageError with the
    reason.
    """
    shown = entry if entry != _PICKLE else "that was given"
    try:
        if entry in BUILT_IN:
            return resolve_name(BUILT_IN[entry])(slowness)
        found = pickle.loads((Path(folder) / _PICKLE).read_bytes()) if entry == _PICKLE else _import(entry, folder)
        found = found() if isinstance(found, type) else found
    except UsageError:
        raise
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        raised = Raised.of(error, folder)
        raise UsageError(
            f"The classifier {shown} cannot be loaded: {raised.reason}.",
            "Try it in Python. Check that its packages are installed and that its files are sent with --with-file.",
        ).with_details(raised.traceback) from error
    if not callable(found):
        raise UsageError(
            f"The classifier {shown} is no function, but {type(found).__name__}.",
            "It must be callable with a DataFrame.",
        )
    return found


def _import(entry: str, folder: str) -> object:
    module, _, name = entry.rpartition(":")
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    found = importlib.import_module(module)
    if not hasattr(found, name):
        names = [each for each in vars(found) if not each.startswith("_") and callable(getattr(found, each))]
        raise UsageError(f"{module} has no {name!r}.", f"It has: {', '.join(names[:8]) or 'no functions'}.")
    return getattr(found, name)
