"""Where a model class comes from: its file, and the files that travel with it."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import msgspec

from cloche.core.errors import ClocheError, ConfigError, NotFoundError
from cloche.runtimes.code import FOLDER, import_class, split_entry
from cloche.runtimes.host import describe


class Source(msgspec.Struct, frozen=True):
    """A Source is a class and the folder that its files' names in the bundle count from."""

    model: type
    root: Path
    #: The file that defines the class.
    file: Path

    @property
    def entry(self) -> str:
        """`code/sentiment.py:Sentiment`."""
        return f"{FOLDER}/{self.file.relative_to(self.root).as_posix()}:{self.model.__name__}"


def find_source(model: object) -> Source:
    """The source of a class, or of `sentiment.py:Sentiment`, whose file is imported.

    Raises ConfigError for what is no class at the top level of a file, NotFoundError for a missing file.
    """
    if isinstance(model, type):
        file = _defining_file(model)
        return Source(model, _root(file), file)
    if isinstance(model, (str, Path)):
        return _import_source(str(model))
    name = type(model).__name__
    raise ConfigError(
        f"this is an object of the class {name}, and a class is packed",
        hint=f"cloche.pack({name}, ...): it is made and loaded anew where it is served",
    )


def _defining_file(model: type) -> Path:
    name = model.__name__
    if model.__qualname__ != name:
        raise ConfigError(
            f"{model.__qualname__} is defined inside something else",
            hint=f"put {name} at the top level of a file",
        )
    module = sys.modules.get(model.__module__)
    try:
        found = getattr(module, "__file__", None) or inspect.getfile(model)
    except (TypeError, OSError):
        found = ""
    file = Path(found).resolve()
    if file.suffix != ".py" or not file.is_file():
        raise ConfigError(
            f"{name} is defined in no file (in a notebook, or at a prompt)",
            hint=f"write the class into a file, say {name.lower()}.py (in a notebook: %%writefile), "
            f"and import it from there",
        )
    return file


def _import_source(text: str) -> Source:
    path, name = split_entry(text)
    file = Path(path).resolve()
    if not file.is_file():
        raise NotFoundError(f"there is no file {path}", code="CL-E303", hint="check the path")
    root = _root(file)
    entry = f"{file.relative_to(root).as_posix()}:{name}"
    try:
        return Source(import_class(root, entry), root, file)
    except ClocheError as error:
        there = list_classes(file)
        if name in there or not there:
            raise
        raise ConfigError(
            f"{path} holds no class {name!r}", code=error.code, hint=f"its classes are {', '.join(there)}"
        ) from error
    except Exception as error:  # the file's own code: it may raise anything
        raise ConfigError(
            f"{path} can't be imported: {describe(error)}", hint="mend it, or install what it imports"
        ) from error


def list_classes(file: Path) -> list[str]:
    """The classes at the top level of a file, which is read but not run; none where it does not parse."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def _root(file: Path) -> Path:
    """The folder that the file's outermost package lies in."""
    folder = file.parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        folder = folder.parent
    return folder


def read_files(source: Source, code: tuple[str, ...] | None) -> dict[str, bytes]:
    """Bundle path -> bytes of the class's file, the `__init__.py` of its packages, and the listed files.

    A listed file is looked for from the current folder, then beside the class. Raises NotFoundError, and
    ConfigError for a folder or for a file outside the class's own.
    """
    paths = [source.file]
    for folder in source.file.parents:
        if folder == source.root:
            break
        paths.append(folder / "__init__.py")
    paths += [_find(source, name) for name in code or ()]
    return {f"{FOLDER}/{path.relative_to(source.root).as_posix()}": path.read_bytes() for path in paths}


def _find(source: Source, name: str) -> Path:
    places = (Path(name), source.file.parent / name, source.root / name)
    path = next((place for place in places if place.exists()), None)
    if path is None:
        raise NotFoundError(f"code lists {name}, which is not there", code="CL-E303", hint="check the path")
    path = path.resolve()
    if not path.is_file():
        raise ConfigError(f"code lists {name}, which is no file", hint="list its files one by one")
    if not path.is_relative_to(source.root):
        raise ConfigError(
            f"code lists {name}, which is not below {source.root}",
            hint=f"move it beside {source.file.name}: the class finds it there when it is served",
        )
    return path
