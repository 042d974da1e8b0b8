"""The arrows between folders, read from the code: what may import what, and which heavy library."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "plaudit"

ARROWS: dict[str, set[str]] = {
    "ops": set(),
    "records": set(),
    "mdp": {"records"},
    "nets": {"ops", "records"},
    "models": {"ops", "records"},
    "envs": {"records"},
    "feedback": {"records"},
    "rewards": {"ops", "nets", "models", "envs", "feedback", "records"},
    "agents": {"ops", "nets", "envs", "records"},
    "control": {"agents", "ops", "nets", "envs", "records"},
    "teams": {"agents", "ops", "nets", "envs", "records"},
    "imitation": {"agents", "mdp", "ops", "nets", "envs", "records"},
    "lm": {"ops", "models", "records"},
    "engine": {"ops", "models", "records"},
}
BELOW_PIPELINES = set(ARROWS)
ARROWS["pipelines"] = BELOW_PIPELINES
ARROWS["studio"] = {"pipelines", "feedback", "records"}
ARROWS["cli"] = {*BELOW_PIPELINES, "pipelines", "studio"}

AT_LOAD: dict[str, set[str]] = {"studio": {"feedback", "records"}, "cli": {"records"}}
"""Folders that import the others only inside functions, so that they start at once."""

HEAVY = {"torch", "transformers", "peft", "scipy", "numba", "gymnasium", "pettingzoo"}
HEAVY |= {"sqlalchemy", "ray", "fastapi", "uvicorn", "tyro", "rich", "matplotlib", "datasets"}

ALLOWED: dict[str, set[str]] = {
    "ops": {"torch"},
    "mdp": {"scipy", "numba"},
    "envs": {"gymnasium", "pettingzoo", "numba"},
    "nets": {"torch", "numba"},
    "models": {"torch", "transformers", "peft", "numba"},
    "feedback": {"sqlalchemy"},
    "rewards": {"torch"},
    "agents": {"torch", "numba"},
    "control": {"torch", "numba"},
    "teams": {"torch"},
    "imitation": {"torch"},
    "lm": {"torch"},
    "engine": {"torch", "ray"},
    "pipelines": {"torch", "matplotlib"},
    "studio": {"fastapi", "uvicorn"},
    "cli": {"tyro", "rich"},
}
"""Heavy libraries by folder, imported at the top of a file; a folder not named has none."""

NEVER: dict[str, set[str]] = {"feedback": {"torch", "transformers"}, "ops": HEAVY - {"torch"}}
"""Heavy libraries that may not be imported even inside a function."""

ALGORITHMS = {"rewards", "lm", "control", "teams", "imitation"}
"""Folders whose files that define a `...Config` are algorithms, which never import each other."""


@dataclass
class File:
    """A module: what it imports when loaded, later inside functions, and for types only."""

    name: str
    folder: str
    at_load: set[str] = field(default_factory=set)
    later: set[str] = field(default_factory=set)
    for_types: set[str] = field(default_factory=set)
    defines_config: bool = False

    @property
    def imports(self) -> set[str]:
        return self.at_load | self.later | self.for_types


def read_package(package: Path) -> dict[str, File]:
    """Every module below a package's folder by its dotted name."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = list(path.relative_to(package.parent).with_suffix("").parts)
        folder = parts[1] if len(parts) > 2 else ""
        if parts[-1] == "__init__":
            parts.pop()
        file = File(".".join(parts), folder)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        file.defines_config = any(
            isinstance(n, ast.ClassDef) and n.name.endswith("Config") for n in tree.body
        )
        _collect(tree.body, file.at_load, file)
        files[file.name] = file
    for file in files.values():
        for names in (file.at_load, file.later, file.for_types):
            resolved = {_module_of(name, files) for name in names}
            names.clear()
            names.update(resolved)
    return files


def _collect(nodes: list[ast.stmt], into: set[str], file: File) -> None:
    for node in nodes:
        if isinstance(node, ast.Import):
            into.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: write absolute imports"
            into.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            _collect(node.body, file.later, file)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            _collect(node.body, file.for_types, file)
            _collect(node.orelse, into, file)
        else:
            for inner in ("body", "orelse", "finalbody"):
                _collect(getattr(node, inner, []), into, file)
            for handler in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]:
                _collect(handler.body, into, file)


def _module_of(name: str, files: dict[str, File]) -> str:
    """The module that `import name` or `from ... import ...` loads."""
    return (
        name if name in files or name.rpartition(".")[0] not in files else name.rpartition(".")[0]
    )


def folder_of(name: str) -> str:
    parts = name.split(".")
    return parts[1] if parts[0] == "plaudit" and len(parts) > 1 else ""


def faults(files: dict[str, File]) -> Iterator[str]:
    """Every broken rule in words."""
    for file in files.values():
        if not file.folder:
            bad = {n for n in file.imports if n.startswith("plaudit.")}
            if bad:
                yield f"{file.name} imports {sorted(bad)}, but the package's top imports nothing"
            continue
        if file.folder not in ARROWS:
            yield f"{file.name}: the folder {file.folder} is not in the table"
            continue
        for name in sorted(file.imports):
            to = folder_of(name)
            if to and to != file.folder and to not in ARROWS[file.folder]:
                yield f"{file.name} imports {name}: no arrow from {file.folder} to {to}"
            early = AT_LOAD.get(file.folder)
            eager = to != file.folder and name in file.at_load - file.later
            if to and eager and early is not None and to not in early:
                yield f"{file.name} imports {name} when it is loaded, not inside a function"
            both = file.defines_config and name in files and files[name].defines_config
            if both and file.folder == to and to in ALGORITHMS and name != file.name:
                yield f"{file.name} imports {name}: algorithms never import each other"
        loaded = {name.partition(".")[0] for name in file.at_load} & HEAVY
        for library in sorted(loaded - ALLOWED.get(file.folder, set())):
            yield f"{file.name} imports {library} when it is loaded"
        ever = {name.partition(".")[0] for name in file.at_load | file.later}
        for library in sorted(ever & NEVER.get(file.folder, set())):
            yield f"{file.name} imports {library}, which {file.folder} never may"


def cycle(files: dict[str, File]) -> list[str]:
    """Modules that import each other in a ring; [] when there is no ring.

    Imports inside functions and for types count: what a file needs to run or to be read is below it.
    """
    state: dict[str, int] = {}

    def visit(name: str, path: list[str]) -> list[str]:
        if state.get(name) == 2 or name not in files:
            return []
        if state.get(name) == 1:
            return path[path.index(name) :]
        state[name] = 1
        for other in sorted(files[name].imports - {name}):
            found = visit(other, [*path, name])
            if found:
                return found
        state[name] = 2
        return []

    for name in files:
        found = visit(name, [])
        if found:
            return found
    return []


def test_every_import_follows_an_arrow():
    assert list(faults(read_package(PACKAGE))) == []


def test_no_files_import_each_other_in_a_ring():
    assert cycle(read_package(PACKAGE)) == []


def test_the_command_loads_without_heavy_libraries():
    code = (
        "import sys, plaudit.cli.main, plaudit.feedback, plaudit.records.runs;"
        f"print(sorted(set(sys.modules) & {HEAVY - {'sqlalchemy'}!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("path", "code", "fault"),
    [
        ("ops/a.py", "from plaudit.records import types", "no arrow from ops to records"),
        ("ops/a.py", "def f():\n    import rich", "imports rich, which ops never may"),
        ("lm/a.py", "def f():\n    import plaudit.rewards.b", "no arrow from lm to rewards"),
        ("lm/a.py", "if TYPE_CHECKING:\n    from plaudit.cli import x", "no arrow from lm to cli"),
        ("records/a.py", "try:\n    import torch.nn\nexcept E:\n    pass", "imports torch when"),
        ("records/a.py", "class A:\n    from torch import nn", "imports torch when"),
        ("feedback/a.py", "def f():\n    from torch import nn", "which feedback never may"),
        ("records/a.py", "def f():\n    from plaudit.cli import x", "no arrow from records to cli"),
        ("pipelines/a.py", "import plaudit.cli.run", "no arrow from pipelines to cli"),
        ("control/a.py", "from plaudit.models import text", "no arrow from control to models"),
        ("agents/a.py", "from plaudit.control import dqn", "no arrow from agents to control"),
        ("studio/a.py", "import plaudit.pipelines.jobs", "when it is loaded, not inside"),
        ("news/a.py", "x = 1", "the folder news is not in the table"),
        ("a.py", "import plaudit.ops", "the package's top imports nothing"),
        (
            "lm/a.py",
            "from plaudit.lm.b import x\nclass AConfig: ...",
            "algorithms never import each other",
        ),
    ],
)
def test_a_broken_rule_is_found(tmp_path, path, code, fault):
    (tmp_path / "plaudit" / path).parent.mkdir(parents=True)
    (tmp_path / "plaudit" / path).write_text(code)
    (tmp_path / "plaudit" / path).with_name("b.py").write_text("class BConfig: ...")
    found = list(faults(read_package(tmp_path / "plaudit")))
    assert any(fault in said for said in found), found


def test_what_is_allowed_passes(tmp_path):
    folder = tmp_path / "plaudit" / "records"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text(
        "if TYPE_CHECKING:\n    import torch\ndef f():\n    import torch\nfrom plaudit.records import b"
    )
    (folder / "b.py").write_text("def f():\n    import plaudit.records.c")
    (folder / "c.py").write_text("import json")
    files = read_package(tmp_path / "plaudit")
    assert list(faults(files)) == []
    assert cycle(files) == []


@pytest.mark.parametrize(
    "back",
    [
        "from plaudit.records.a import f",
        "import plaudit.records.a",
        "def f():\n    from plaudit.records import a",
        "class A:\n    def f(self):\n        if self:\n            import plaudit.records.a",
        "if TYPE_CHECKING:\n    from plaudit.records.a import f",
        "def f():\n    with x:\n        from plaudit.records import c",
    ],
)
def test_a_ring_is_found_wherever_its_imports_stand(tmp_path, back):
    folder = tmp_path / "plaudit" / "records"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text("def f():\n    from plaudit.records import b")
    (folder / "b.py").write_text(back)
    (folder / "c.py").write_text("import plaudit.records.a")
    ring = set(cycle(read_package(tmp_path / "plaudit")))
    assert ring - {"plaudit.records.c"} == {"plaudit.records.a", "plaudit.records.b"}
