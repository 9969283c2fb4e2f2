"""`import spikebench` is light and offers what users need; the core knows no framework by string.

import-linter (pyproject.toml) holds the imports that are statements.
"""

from __future__ import annotations

import ast
import fnmatch
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import spikebench

CORE = Path(spikebench.__file__).parent
SOURCES = sorted(CORE.rglob("*.py"))
FRAMEWORKS = re.compile(r"\b(spikebench_tasks|mmengine|mmcv|mmdet|mmseg\w*|lightning)\b", re.I)
IMPORTS_BY_STRING = ("import_module", "__import__", "find_spec", "version", "distribution")
ALLOWED_MODULES = {
    "torch": "doctor says what is wrong with it",
    "torchvision": "doctor says what is wrong with it",
    "triton": "an optional compiler of neurons",
    "zeus": "an optional energy meter",
    "spikingjelly": "an optional peer of the speed comparison",
}


def test_importing_it_loads_nothing_heavy():
    heavy = ("torch", "numpy", "pydantic", "yaml", "timm", "rich", "typer")
    code = f"import sys, spikebench; print(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_every_public_name_is_there():
    for name in spikebench.__all__:
        assert getattr(spikebench, name) is not None
    assert set(spikebench.__all__) <= set(dir(spikebench))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = spikebench.no_such_name


def test_type_checkers_see_the_same_names_from_the_same_homes():
    tree = ast.parse(Path(spikebench.__file__).read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        node.module: tuple(alias.name for alias in node.names)
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
    }
    assert seen == spikebench._HOMES
    assert sorted(spikebench._HOME_OF) == sorted(spikebench.__all__)


def test_names_of_backbones_are_filtered():
    names = spikebench.list_backbones("meta_spikeformer_?5m")
    assert names == fnmatch.filter(spikebench.list_backbones(), "meta_spikeformer_?5m")
    assert len(names) == 2


def docstrings(tree: ast.AST) -> set[ast.Constant]:
    """Strings that stand as statements: documentation of a module, class, function or variable."""
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Lines and values of the strings of a file that are no documentation."""
    tree = ast.parse(path.read_text())
    documentation = docstrings(tree)
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and node not in documentation:
            yield node.lineno, text


def imported_by_string(path: Path) -> Iterator[tuple[int, str]]:
    """Lines and names of what a file imports, or asks the version of, by a string."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        given = node.args[0]
        if called in IMPORTS_BY_STRING and isinstance(given, ast.Constant):
            yield node.lineno, str(given.value)


def test_no_string_of_the_core_names_a_task_or_a_training_framework():
    found = [
        f"{path.relative_to(CORE)}:{line}: {text!r}"
        for path in SOURCES
        for line, text in strings(path)
        if FRAMEWORKS.search(text)
    ]
    assert found == []


def test_what_the_core_imports_by_string_is_known():
    found = [
        f"{path.relative_to(CORE)}:{line}: {name}"
        for path in SOURCES
        for line, name in imported_by_string(path)
        if name.partition(".")[0] not in ALLOWED_MODULES
    ]
    assert found == []


def test_the_scan_sees_what_it_is_for(tmp_path: Path):
    path = tmp_path / "core.py"
    path.write_text(
        '"""About lightning."""\nimport importlib\nimportlib.import_module("mmdet.models")\n'
        'NAME = f"spikebench_tasks.{1}"\n"""About mmengine."""\n'
    )
    assert [name for _, name in imported_by_string(path)] == ["mmdet.models"]
    assert [text for _, text in strings(path) if FRAMEWORKS.search(text)] == [
        "mmdet.models",
        "spikebench_tasks.",
    ]
