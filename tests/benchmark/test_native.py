import shutil

import pytest

from spikebench import native

SOURCE = 'extern "C" int answer() { return 42; }\n'


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "answer.cpp"
    path.write_text(SOURCE)
    return path


def cached(source):
    return sorted((source.parent / "cache" / "spikebench").iterdir())


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_a_source_is_compiled_once(source, monkeypatch):
    assert native.load_kernels(source, "it is slow").answer() == 42
    (built,) = cached(source)
    before = built.stat().st_mtime_ns
    assert native.load_kernels(source, "it is slow").answer() == 42
    assert built.stat().st_mtime_ns == before
    source.write_text(SOURCE.replace("42", "43"))
    assert native.load_kernels(source, "it is slow").answer() == 43
    assert len(cached(source)) == 2


def test_no_compiler_is_a_warning(source, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.warns(UserWarning, match=r"it is slow: .*g\+\+"):
        assert native.load_kernels(source, "it is slow") is None


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_what_does_not_compile_is_a_warning(source):
    source.write_text("no C++")
    with pytest.warns(UserWarning, match="it is slow: .*error"):
        assert native.load_kernels(source, "it is slow") is None
    assert cached(source) == []
