"""Locate a classifier's code on the client, bundle it, and load it in a classifier process.

A `Bundle` is sent to the workers. It contains the local Python files that the classifier needs (located with the
standard library's modulefinder) or the pickled callable, and the files that the user adds. Installed modules are not
sent: they belong to the environment.
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
class Bundle:
    """A classifier that can be sent to workers: its name, where to load it from, and its files."""

    reference: str  # as the user wrote it
    entry: str  # module:name, a name in BUILT_IN, or a pickle's name
    digest: str  # SHA-256 of everything that is sent, or of the installed module
    slowness: int | None = None  # of the built-in black box
    files: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)  # relative path to content
    home: str = ""  # the folder on the client from which the files were read
    requirements: tuple[str, ...] = ()  # packages that it needs, as "name==version"
    contents: tuple[tuple[str, str], ...] = ()  # digests of those of them that no index has, by name

    @property
    def modules(self) -> list[str]:
        """The names of the modules in the bundle."""
        paths = [PurePosixPath(name).with_suffix("") for name in self.files if name.endswith(".py")]
        return [".".join(path.parts[:-1] if path.name == "__init__" else path.parts) for path in paths]

    def install(self, folder: Path) -> None:
        """Write the files that are missing below `folder`. Each appears there complete, under its final name."""
        for name, content in self.files.items():
            path = folder / name
            if path.exists():
                continue  # other processes may be reading it
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{path.name}.{threading.get_ident()}.tmp")
            temporary.write_bytes(content)
            temporary.replace(path)


def create(classifier: str | Callable, extra_files: tuple[str, ...] = (), slowness: int = 10) -> Bundle:
    """Bundle `blackbox`, `module:name`, `path/to/file.py:name` or a callable. Raise UsageError if there is no such one.

    The module is parsed but not run here; `load` runs it, in a classifier process. Of an installed `package.module`,
    the package is imported, as Python does to find the module.
    """
    if not isinstance(classifier, str):
        return _bundle_of_callable(classifier, extra_files)
    if classifier in BUILT_IN:
        source = Path(importlib.util.find_spec(BUILT_IN[classifier].partition(":")[0]).origin)
        return Bundle(classifier, classifier, _digest({source.name: source.read_bytes()}), slowness)
    where, colon, name = classifier.rpartition(":")
    if not colon or not name.isidentifier() or not where.strip("."):
        raise UsageError(
            f"{classifier!r} is not a classifier.", "Write blackbox, module:name, or path/to/file.py:name."
        )
    path = Path(where) if where.endswith(".py") else _local_module(where)
    if path is None:
        return _bundle_of_installed(classifier, where, extra_files)
    home = path.resolve().parent
    for _ in range(0 if where.endswith(".py") else where.count(".") + (path.name == "__init__.py")):
        home = home.parent
    module = path.stem if where.endswith(".py") else where
    code = _local_files(path, module, home)
    _refuse_hidden(code)
    files = _together(code, _read_extra(extra_files, home))
    return Bundle(classifier, f"{module}:{name}", _digest(files), None, files, str(home))


def _bundle_of_callable(function: Callable, extra_files: tuple[str, ...]) -> Bundle:
    """Pickle a callable by value, with everything that it uses from the user's own modules."""
    if not callable(function):
        raise UsageError(f"{function!r} is not a classifier.", "Give a callable, or text such as 'file.py:name'.")
    try:
        with _local_modules_by_value():
            content = cloudpickle.dumps(function)
    except Exception as error:
        raise UsageError(
            f"{function!r} cannot be sent to workers: {error}.", "Open files and connections inside the function."
        ) from error
    files = _together({_PICKLE: content}, _read_extra(extra_files, Path.cwd()))
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return Bundle(name, _PICKLE, _digest(files), None, files, str(Path.cwd()))


@contextlib.contextmanager
def _local_modules_by_value() -> Iterator[None]:
    """Let cloudpickle include what is defined in modules that workers may not have."""
    modules = {
        module.__name__: module
        for name, module in list(sys.modules.items())
        if name != "__main__" and _is_local(getattr(module, "__file__", None))
    }  # by name, because a module may be in sys.modules under several names
    modules = [module for name, module in modules.items() if sys.modules.get(name) is module]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _bundle_of_installed(classifier: str, module: str, extra_files: tuple[str, ...]) -> Bundle:
    """Return a bundle for an installed module, whose digest is that of its source and its package's version."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        spec = None
    except Exception as error:  # of the package that contains the module, which is imported for that
        package = module.rpartition(".")[0]
        raise UsageError(
            f"Cannot import the package {package!r} of the classifier {classifier!r}: {type(error).__name__}: {error}.",
            "Try it in Python: import it.",
        ) from error
    if spec is None:
        raise UsageError(
            f"Cannot find the module {module!r} of the classifier {classifier!r}.",
            "Install it, or change to the folder that contains it.",
        )
    origin = Path(spec.origin) if spec.origin and Path(spec.origin).is_file() else None
    code = {module: origin.read_bytes() if origin else b"", "version": _version_of(module).encode()}
    files = _read_extra(extra_files, Path.cwd())
    return Bundle(classifier, classifier, _digest(code | files), None, files, str(Path.cwd()))


def _version_of(module: str) -> str:
    try:
        return importlib.metadata.version(module.split(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _is_local(file: str | None) -> bool:
    """Return whether a module's file is the user's own, and not part of the environment.

    The environment includes packages that pip has installed elsewhere, as with --target and PYTHONPATH.
    """
    if not file or is_installed(file) or is_installed(str(Path(file).resolve())):
        return False
    path = Path(file)
    roots = [Path(entry) for entry in sys.path if entry and path.is_relative_to(entry)]
    return not any(path.relative_to(root).parts[0] in _distributed_in(str(root)) for root in roots)


@functools.cache
def _distributed_in(folder: str) -> frozenset[str]:
    """Return the top-level entries of a folder of sys.path that belong to distributions installed in it."""
    installed = [
        distribution
        for distribution in importlib.metadata.distributions(path=[folder])
        if distribution.read_text("RECORD") or distribution.read_text("installed-files.txt")
    ]
    return frozenset(file.parts[0] for distribution in installed for file in distribution.files or ())


def _local_module(module: str) -> Path | None:
    """Return the file of a module below the current folder, as `python -m` would find it; None if there is none."""
    path = Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file() and _is_local(str(candidate)):
            return candidate
    return None


def _local_files(path: Path, module: str, home: Path) -> dict[str, bytes]:
    """Return a Python file and all local modules that it imports, directly or not, by name relative to `home`."""
    if not path.is_file():
        raise UsageError(f"Cannot find the classifier's file {path}.", "Check the path in --classifier.")
    finder = ModuleFinder(path=[str(home)])
    try:
        finder.import_hook(module)
    except ImportError as error:
        raise UsageError(
            f"{path} cannot be imported: {error}.", "Rename the file: a module's name cannot contain dots."
        ) from error
    except SyntaxError as error:
        raise UsageError(f"{path} is not valid Python: {error}.", "Fix the classifier's file.") from error
    except AttributeError as error:  # ModuleFinder knows no packages without that file
        raise UsageError(
            f"{path} imports from a folder that has no __init__.py.", "Add an empty __init__.py to the folder."
        ) from error
    except OSError as error:
        raise _unreadable(error) from error
    modules = {Path(module.__file__).resolve() for module in finder.modules.values() if module.__file__}
    modules.add(path.resolve())
    packages = {
        folder / "__init__.py"
        for file in modules
        for folder in file.parents
        if folder != home and folder.is_relative_to(home)
    }
    return {
        file.relative_to(home).as_posix(): file.read_bytes()
        for file in sorted(modules | packages)
        if file.is_file() and file.is_relative_to(home)
    }


def _read_extra(extra_files: tuple[str, ...], home: Path) -> dict[str, bytes]:
    """Return the files (a model, a table) that are sent with the code and keep their places relative to it."""
    result = {}
    for name in extra_files:
        path = Path(name).resolve()
        if not path.is_file():
            raise UsageError(f"Cannot find the file {name} to send with the classifier.", "Check --with-file.")
        relative = path.relative_to(home) if path.is_relative_to(home) else PurePosixPath(path.name)
        try:
            result = _together(result, {relative.as_posix(): path.read_bytes()})
        except OSError as error:
            raise _unreadable(error) from error
    return result


def _unreadable(error: OSError) -> UsageError:
    return UsageError(f"Cannot read {error.filename}: {error.strerror}.", "Check its permissions.")


def _together(files: dict[str, bytes], others: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files of both. Raise UsageError if two different ones would get the same name."""
    for name in files.keys() & others.keys():
        if files[name] != others[name]:
            raise UsageError(f"Two files that are sent with the classifier are named {name}.", "Rename one of them.")
    return files | others


def _refuse_hidden(code: dict[str, bytes]) -> None:
    """Raise UsageError for a file or package named like a standard module: classifier processes would use that one."""
    for name in code:
        if name.partition("/")[0].removesuffix(".py") in sys.stdlib_module_names:
            raise UsageError(f"{name} has the name of a module of Python itself.", "Rename it.")


def _digest(files: dict[str, bytes]) -> str:
    listing = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return hashlib.sha256(json.dumps(listing, sort_keys=True).encode()).hexdigest()


def load(entry: str, folder: str, slowness: int | None = None) -> Callable:
    """Return the classifier of a bundle that is installed in `folder`. Raise UsageError with the reason on failure."""
    shown = entry if entry != _PICKLE else "that was given"
    try:
        if entry in BUILT_IN:
            return resolve_name(BUILT_IN[entry])(slowness)
        loaded = pickle.loads((Path(folder) / _PICKLE).read_bytes()) if entry == _PICKLE else _import(entry, folder)
        classifier = loaded() if isinstance(loaded, type) else loaded
    except UsageError:
        raise
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        raised = Raised.of(error, folder)
        raise UsageError(
            f"The classifier {shown} cannot be loaded: {raised.reason}.",
            "Import it in Python. Check that its packages are installed and that its files are sent with --with-file.",
        ).with_details(raised.traceback) from error
    if not callable(classifier):
        raise UsageError(
            f"The classifier {shown} is not callable: its type is {type(classifier).__name__}.",
            "Name a function, or a class whose instances can be called with a DataFrame.",
        )
    return classifier


def _import(entry: str, folder: str) -> object:
    module, _, name = entry.rpartition(":")
    if folder and folder not in sys.path:
        sys.path.insert(0, folder)
    imported = importlib.import_module(module)
    if not hasattr(imported, name):
        names = [other for other in vars(imported) if not other.startswith("_") and callable(getattr(imported, other))]
        hint = f"Choose one of these: {', '.join(names[:8])}." if names else "Define it there, or name another module."
        raise UsageError(f"The module {module} has no attribute {name!r}.", hint)
    return getattr(imported, name)
