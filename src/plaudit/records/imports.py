"""Users' Python code by name: `module` or `path/to/file.py`, loaded as Python itself would run it.

A file becomes the module `plaudit.records.imports./path/to/file`: its name says where it is, so
files of equal name never meet, and a worker process finds by that name whatever was pickled. Files
beside it can be imported while it is loaded and within `beside`, and by nobody else: neither
`sys.path` nor `sys.modules` keeps them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from urllib.parse import quote, unquote_to_bytes

from plaudit.records.errors import UserError, nearest

__path__: list[str] = []  # to Python a module with a path is a package: files are its submodules
_PREFIX = f"{__name__}."


def load_module(where: str, what: str) -> ModuleType:
    """The module of a dotted name or of a path that ends in .py, whose code is run anew.

    `what` is what the user named with it ("reward"). Raises `UserError`, of one sentence with file
    and line: nothing of that name, or code that cannot be run to its end.
    """
    return _load_file(where, what) if where.endswith(".py") else _load_by_name(where, what)


def loaded_file(where: str) -> ModuleType | None:
    """The module of a path that ends in .py, where it has been loaded in this process."""
    return sys.modules.get(module_name(Path(where))) if where.endswith(".py") else None


def module_name(path: Path) -> str:
    """Under which name a file is a module, here and in every process of its pickles."""
    whole = path.expanduser().resolve().with_suffix("")
    return _PREFIX + quote(os.fsencode(whole)).replace(".", "%2E")  # a dot would begin a submodule


_apart: dict[str, dict[str, ModuleType]] = {}
"""By loaded file: the modules beside it that it imported, which `sys.modules` does not keep."""


@contextmanager
def beside(module: object) -> Iterator[None]:
    """While entered, `import` looks first into the folder that `load_module` loaded a file from.

    So it is while Python runs a file; and a loaded file may import at any later moment too.
    """
    name = getattr(module, "__name__", "")
    folder = _path_of(name).parent
    if not name.startswith(_PREFIX) or _on_path(folder):  # its owner wants it on the path
        yield
        return
    known = set(sys.modules)
    others = _of_equal_name(folder)
    for other in others:
        del sys.modules[other]
    sys.modules.update(_apart.get(name, {}))
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # the code itself may have taken it away
            sys.path.remove(str(folder))
        if not _on_path(folder):  # else the code itself has put it there to stay
            _apart[name] = _taken(folder, (known - others.keys()) | {name})
        sys.modules.update(others)


def _on_path(folder: Path) -> bool:
    return str(folder) in {os.path.realpath(entry) for entry in sys.path}


def _of_equal_name(folder: Path) -> dict[str, ModuleType]:
    """Modules from elsewhere that would be taken for those in `folder`; Python's own stay."""
    names = {file.stem for file in folder.glob("*.py")}
    names |= {file.parent.name for file in folder.glob("*/__init__.py")}
    names -= {"__main__", *sys.stdlib_module_names}
    tops = {n for n in names & sys.modules.keys() if not _is_in(sys.modules[n], folder)}
    return {n: m for n, m in sys.modules.items() if n.partition(".")[0] in tops}


def _taken(folder: Path, known: set[str]) -> dict[str, ModuleType]:
    """The modules of `folder`, but for those `known` before, taken out of `sys.modules`."""
    tops = {n for n, m in sys.modules.copy().items() if n not in known and _is_in(m, folder)}
    names = [name for name in sys.modules if name.partition(".")[0] in tops]
    return {name: sys.modules.pop(name) for name in names}


def _is_in(module: object, folder: Path) -> bool:
    """Whether a module is a file of `folder`, or a package whose own folder is there."""
    spec = getattr(module, "__spec__", None)
    if spec is None or "." in spec.name:
        return False
    inside = spec.submodule_search_locations
    places = [spec.origin] if inside is None else list(inside)
    return any(place is not None and Path(place).parent == folder for place in places)


class _Loader(SourceFileLoader):
    """Runs a file as it is now, with the files beside it in reach."""

    def get_code(self, fullname: str) -> CodeType | None:
        # The cache of compiled code knows a file by its size and second, and may be of before.
        return self.source_to_code(self.get_data(self.path), self.path)

    def exec_module(self, module: ModuleType) -> None:
        with beside(module):
            super().exec_module(module)


class _Finder(MetaPathFinder):
    """Finds files by their names as modules, in whichever process."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_PREFIX):
            return None
        file = str(_path_of(fullname))
        loader = _Loader(fullname, file)
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


sys.meta_path.append(_Finder())


def _path_of(name: str) -> Path:
    return Path(os.fsdecode(unquote_to_bytes(name.removeprefix(_PREFIX))) + ".py")


def _load_file(where: str, what: str) -> ModuleType:
    path = Path(where).expanduser()
    if not path.is_file():
        siblings = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise UserError(f"{what} file {where} does not exist{nearest(path.name, siblings)}")
    name = module_name(path)
    before, files_before = sys.modules.pop(name, None), _apart.pop(name, {})
    importlib.invalidate_caches()  # a file beside it may be a moment old
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if before is not None:
            sys.modules[name], _apart[name] = before, files_before
        raise UserError(_unreadable(error, f"{what} file {where}", _path_of(name))) from error


def _load_by_name(where: str, what: str) -> ModuleType:
    here, top = Path.cwd(), where.partition(".")[0]
    is_here = (here / f"{top}.py").is_file() or (here / top).is_dir()
    which = f"{what} module {where!r}"
    try:
        if is_here and importlib.util.find_spec(top) is None:
            sys.path.append(str(here))  # as `python -m` does, and the installed command does not
        return importlib.import_module(where)
    except (ImportError, ValueError) as error:
        raise UserError(f"{which} could not be imported: {error}") from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{which} could not be read: {said(error)}{place_of(error)}") from error


def _unreadable(error: BaseException, which: str, path: Path) -> str:
    place = place_of(error, path.parent).replace(f"({path}, line", "(line")
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing is None:
        return f"{which} could not be read: {said(error)}{place}"
    hint = nearest(missing, [file.stem for file in path.parent.glob("*.py") if file != path])
    return f"{which} imports {missing!r}, which is neither installed nor beside it{hint}{place}"


def said(error: BaseException) -> str:
    """An exception in one line: its class and the first line of its message."""
    error = _first(error)
    if isinstance(error, SystemExit):
        return f"SystemExit: it called sys.exit({'' if error.code is None else repr(error.code)})"
    # A syntax error's text ends in its place, which `place_of` says in our words.
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    first = text.strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def place_of(error: BaseException, folder: Path | None = None) -> str:
    """(file, line 3): the last line that was running in files of `folder`, or else in any."""
    error = _first(error)
    if isinstance(error, SyntaxError) and os.path.isfile(error.filename or ""):
        return f" ({error.filename}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<") and not _is_ours(Path(frame.filename))
    ]
    if folder is not None:
        frames = [frame for frame in frames if _is_below(Path(frame.filename), folder)] or frames
    if not frames:
        return ""
    last = frames[-1]
    function = "" if last.name == "<module>" else f", in {last.name}"
    return f" ({last.filename}, line {last.lineno}{function})"


def _is_ours(file: Path) -> bool:
    """Whether a file is Plaudit's, or the part of Python that imports."""
    return file.is_relative_to(Path(__file__).parent.parent) or file == Path(importlib.__file__)


def _is_below(file: Path, folder: Path) -> bool:
    """Whether a file is in `folder`, and not in an environment that is kept there."""
    inside = file.relative_to(folder).parts if file.is_relative_to(folder) else ()
    return bool(inside) and not {"site-packages", "dist-packages"} & set(inside)


def _first(error: BaseException) -> BaseException:
    """An exception, or the first of a group's, which several tasks at once may raise."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
