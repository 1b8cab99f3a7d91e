"""Finds every use of a private name (one underscore) outside the module that it belongs to.

    python tools/check_private.py [FOLDER...]

Found are `from module import _name` of a module of ours, and `value._name` where the file that says so neither defines
nor assigns `_name` and `value` does not come from another project (torch, say). Where the check cannot see that it
does, the line says so: `# private: torch has no other name for it`. Ends with 1 if there is any.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "sr_cli"
MARK = "# private:"
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}
"""Public in spite of their underscore, which keeps them apart from a named tuple's fields."""


def is_private(name: str) -> bool:
    """Return whether a name is for its own module only."""
    return name.startswith("_") and not name.startswith("__") and name not in NAMED_TUPLE


def private_uses(code: str) -> Iterator[tuple[int, str]]:
    """Yield the line and name of each use of another module's private name in a file's text."""
    tree, lines = ast.parse(code), code.splitlines()
    own, others = set(_defined(tree)), {"self", "cls", "super", *_foreign(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and _is_ours(node):
            for alias in node.names:
                if is_private(alias.name):
                    yield node.lineno, f"{node.module}.{alias.name}"
        elif (
            isinstance(node, ast.Attribute)
            and is_private(node.attr)
            and node.attr not in own
            and _root(node) not in others
            and MARK not in lines[node.lineno - 1]
        ):
            yield node.lineno, ast.unparse(node)


def _is_ours(node: ast.ImportFrom) -> bool:
    """Tell whether an import is from this project."""
    return bool(node.level) or (node.module or "").split(".")[0] == PACKAGE


def _foreign(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a file has from other projects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not _is_ours(node):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            roots = ((alias.asname or alias.name).split(".")[0] for alias in node.names)
            yield from (root for root in roots if root != PACKAGE)


def _root(node: ast.expr) -> str | None:
    """Return the name that a chain of attributes and calls begins with."""
    while isinstance(node, ast.Attribute | ast.Call):
        node = node.value if isinstance(node, ast.Attribute) else node.func
    return node.id if isinstance(node, ast.Name) else None


def _defined(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a file defines: functions, classes, variables, attributes that it assigns, fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            owner = node.value
            if isinstance(owner, ast.Name) and owner.id == "self":
                yield node.attr


def main(folders: list[str]) -> int:
    """Print each use; 1 if there is any."""
    found = 0
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.py")):
            for line, name in private_uses(path.read_text("utf-8")):
                print(f"{path}:{line}: {name} is private to its module")
                found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [PACKAGE, "tools"]))
