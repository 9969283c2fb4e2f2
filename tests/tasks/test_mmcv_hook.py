"""What every start of Python in the environment pays for, and must not notice."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import _spikebench_mmcv

MODULE = Path(_spikebench_mmcv.__file__)
LINE = MODULE.parent / "spikebench_tasks" / "openmmlab" / "spikebench-mmcv.pth"
EXTENSION = "import importlib.util as u; print(u.find_spec('mmcv._ext').origin)"


class Environment:
    """A Python that starts with nothing but the hook on its path, and a `mmcv` that is empty."""

    def __init__(self, site: Path) -> None:
        self.site = site
        site.mkdir()
        (site / LINE.name).write_text(LINE.read_text())
        (site / MODULE.name).write_text(MODULE.read_text())
        (site / "spikebench_tasks").mkdir()
        (site / "spikebench_tasks" / "__init__.py").touch()
        (site / "mmcv").mkdir()
        (site / "mmcv" / "__init__.py").touch()

    def python(self, code: str) -> list[str]:
        """Run code after the site folder was read; words printed. Nothing may be on stderr."""
        begin = f"import site; site.addsitedir({str(self.site)!r})"
        done = subprocess.run(
            [sys.executable, "-S", "-c", f"{begin}\n{code}"], capture_output=True, text=True
        )
        assert done.stderr == ""
        assert done.returncode == 0
        return done.stdout.split()


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "site")


def test_python_starts_with_the_stand_in(environment: Environment):
    assert environment.python(EXTENSION) == ["spikebench_tasks.openmmlab.ops"]


def test_it_imports_nothing_that_python_had_not(environment: Environment):
    names = "import sys; print(*sorted(sys.modules))"
    with_hook = set(environment.python(names))
    (environment.site / LINE.name).unlink()
    assert with_hook - set(environment.python(names)) == {"_spikebench_mmcv"}


def test_a_compiled_module_wins(environment: Environment):
    (environment.site / "mmcv" / "_ext.py").write_text("compiled = True")
    assert environment.python("import mmcv._ext; print(mmcv._ext.compiled)") == ["True"]


@pytest.mark.parametrize("content", [None, "raise RuntimeError", "import no_such", "def install(:"])
def test_a_broken_hook_is_silent(environment: Environment, content: str | None):
    module = environment.site / MODULE.name
    module.unlink() if content is None else module.write_text(content)
    assert environment.python("print(1)") == ["1"]


@pytest.mark.parametrize("gone", ["mmcv", "spikebench_tasks"])
def test_without_mmcv_or_the_tasks_python_says_what_it_always_did(
    environment: Environment, gone: str
):
    (environment.site / gone / "__init__.py").unlink()
    (environment.site / gone).rmdir()
    code = "try:\n import mmcv._ext\nexcept ModuleNotFoundError as error:\n print(error.name)"
    assert environment.python(code) == ["mmcv" if gone == "mmcv" else "mmcv._ext"]


def test_it_takes_under_two_milliseconds(environment: Environment):
    """Measured as Python reads the site folder, less what it takes to read one without the hook."""
    code = f"""
import os, sys, time
def read():
    start = time.perf_counter()
    site.addsitedir({str(environment.site)!r})
    return time.perf_counter() - start
hooked = []
for _ in range(20):
    sys.modules.pop("_spikebench_mmcv", None)
    sys.meta_path[:] = [one for one in sys.meta_path if type(one).__name__ != "OpsFinder"]
    hooked.append(read())
os.remove({str(environment.site / LINE.name)!r})
bare = [read() for _ in range(20)]
print((min(hooked) - min(bare)) * 1000)
"""
    (milliseconds,) = environment.python(code)
    assert float(milliseconds) < 2


def test_this_environment_starts_with_it():
    installed = Path(sysconfig.get_path("purelib")) / LINE.name
    assert installed.read_text() == LINE.read_text()
    code = "import sys; print('_spikebench_mmcv' in sys.modules, 'spikebench' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"]
    assert done.stderr == ""
