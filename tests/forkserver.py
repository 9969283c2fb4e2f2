"""Starts Python processes whose heavy imports are already done.

Importing torch, Lightning and MMDetection takes about ten seconds. One server process does it for
all pytest workers, and forks a child for each command. `Popen` and `run` stand in for those of
`subprocess`, for commands of this interpreter: `python -c`, `python -m`, `python script.py`, and
programs such as `spikebench`.

A child is a process of its own: group, signals, environment, working folder, arguments, `sys.path`
and streams. Nothing of this suite is imported before the fork, only what it builds on. What only a
fresh interpreter can show (which modules an import loads, hash seeds, `.pth` files) is for
`subprocess`; see README.md.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import site
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

PRELOADED = (
    *("torch", "torch.distributed.fsdp", "torch.utils.tensorboard", "torchvision", "timm"),
    *("lightning.pytorch", "lightning.pytorch.loggers", "torchmetrics.classification"),
    *("mmengine.runner", "mmengine.visualization", "yapf"),
    *("mmdet.apis", "mmdet.datasets", "mmdet.engine", "mmdet.evaluation", "mmdet.models"),
    *("mmseg.apis", "mmseg.datasets", "mmseg.engine", "mmseg.evaluation", "mmseg.models"),
    *("pydantic", "typer", "rich.table", "rich.progress", "sklearn.datasets", "faster_coco_eval"),
)
AT_START = (
    *("PYTHONHASHSEED", "PYTHONWARNINGS", "LD_PRELOAD", "LD_LIBRARY_PATH"),
    *("MPLBACKEND", "TRITON_INTERPRET"),
)
"""Variables that are read when a process starts, or a library is imported: a child has them not."""
IDLE_S = 60.0  # a server that nobody connects to ends
_LENGTH = struct.Struct("!Q")
_ANSWER = struct.Struct("!?i")  # whether the child ended; its status, else its number


class Popen(subprocess.Popen):
    """A child of the fork server, with the interface of `subprocess.Popen`.

    Args:
        args: [python, "-c", code, ...], [python, "-m", module, ...], [python, script, ...] or
            [program, ...].
        sites: folders whose `.pth` files count, as those of a virtual environment do.
        **options: of `subprocess.Popen`: cwd, env, streams, text, start_new_session.

    Raises:
        ValueError: the environment has what a child cannot take on; use `subprocess.Popen`.
    """

    def __init__(self, args: Sequence[Any], *, sites: Sequence[Path] = (), **options: Any) -> None:
        self._sites = [os.fspath(path) for path in sites]
        super().__init__(args, **options)

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest):
        pipes, start_new_session = rest[3:9], rest[14]
        env = dict(os.environ if env is None else env)
        odd = [name for name in AT_START if env.get(name) != os.environ.get(name)]
        if odd:
            raise ValueError(f"{odd} cannot be set in a forked process; use subprocess")
        request = {
            "args": [os.fspath(each) for each in args],
            "cwd": os.fspath(cwd or Path.cwd()),
            "env": env,
            "sites": self._sites,
            "session": bool(start_new_session),
        }
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            given = zip((pipes[0], pipes[3], pipes[5]), (nothing, 1, 2), strict=True)
            streams = [own if stream == -1 else stream for stream, own in given]
            _stay_connected()
            self._server = _dial()
            _send(self._server, request, streams)
            ended, self.pid = _answer(self._server)
            if ended:
                raise RuntimeError(f"{args} did not start: {_log()}")
            self._child_created = True
        finally:
            os.close(nothing)
            self._close_pipe_fds(*pipes)

    def _internal_poll(self, _deadstate=None, *_):
        if self.returncode is None and select.select([self._server], [], [], 0)[0]:
            self._end()
        return self.returncode

    def _wait(self, timeout):
        if self.returncode is None:
            if not select.select([self._server], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self._end()
        return self.returncode

    def _end(self):
        self.returncode = os.waitstatus_to_exitcode(_answer(self._server)[1])
        self._server.close()


def run(
    args: Sequence[Any],
    *,
    capture_output: bool = False,
    timeout: float | None = None,
    **options: Any,
) -> subprocess.CompletedProcess:
    """Run a command to its end, as `subprocess.run` does, in a child of the fork server."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(args, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def folder() -> Path:
    """Where the pytest workers of a session find their server."""
    given = os.environ.get("FORKSERVER")
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    return Path(given or f"{tempfile.gettempdir()}/forkserver-{os.getuid()}-{session[:16]}")


def _log() -> str:
    return (folder() / "log").read_text(errors="replace")[-3000:]


def _dial() -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(str(folder() / "socket"))
    return connection


@cache
def _stay_connected() -> socket.socket:
    """Start the server if there is none; it ends when the last of these connections does."""
    home = folder()
    home.mkdir(mode=0o700, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            connection = _dial()
        except (FileNotFoundError, ConnectionRefusedError):
            _start(home)
            connection = _dial()
    _send(connection, None, [])
    return connection


def _start(home: Path) -> None:
    """Start a server; whoever connects is answered once it has imported everything."""
    (home / "socket").unlink(missing_ok=True)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
        (home / "log").open("wb") as log,
    ):
        listener.bind(str(home / "socket"))
        listener.listen(64)
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        # threads do not outlive a fork, nor does CUDA, which NVML has not start
        env |= {"OMP_NUM_THREADS": "1", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
        subprocess.Popen(
            [sys.executable, __file__, "serve", str(listener.fileno()), str(home)],
            pass_fds=[listener.fileno()],
            cwd="/",
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _send(connection: socket.socket, request: Any, streams: Sequence[int]) -> None:
    content = json.dumps(request).encode()
    socket.send_fds(connection, [_LENGTH.pack(len(content))], streams)
    connection.sendall(content)


def _receive(connection: socket.socket) -> tuple[Any, list[int]]:
    start, streams, *_ = socket.recv_fds(connection, _LENGTH.size, 3)
    content = b""
    while len(content) < _LENGTH.unpack(start)[0]:
        content += connection.recv(2**16)
    return json.loads(content), streams


def _answer(connection: socket.socket) -> tuple[bool, int]:
    content = connection.recv(_ANSWER.size)
    if not content:
        raise RuntimeError(f"the fork server ended: {_log()}")
    return _ANSWER.unpack(content)


class Server:
    """Forks a child for each request; ends with the last of its clients."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.clients: dict[socket.socket, int | None] = {}
        """With the child that each asked for."""
        self.wakeup, self.woken = os.pipe()
        os.set_blocking(self.wakeup, False)
        os.set_blocking(self.woken, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.woken)

    def serve(self) -> tuple[Any, list[int], socket.socket] | None:
        """A request with its streams and client, in a child; None in the server, at its end."""
        timeout: float | None = IDLE_S
        while True:
            sources = [self.wakeup, self.listener, *self.clients]
            for one in select.select(sources, [], [], timeout)[0]:
                if one is self.wakeup:
                    self.reap()
                elif one is self.listener:
                    child = self.accept()
                    if child is not None:
                        return child
                elif one in self.clients:
                    self.leave(one)
            timeout = None
            if not self.clients and not select.select([self.listener], [], [], 0)[0]:
                return None

    def accept(self) -> tuple[Any, list[int], socket.socket] | None:
        client, _ = self.listener.accept()
        request, streams = _receive(client)
        self.clients[client] = None
        if request is None:
            return None
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for descriptor in (self.wakeup, self.woken):
                os.close(descriptor)
            for other in {self.listener, *self.clients} - {client}:
                other.close()
            return request, streams, client
        self.clients[client] = pid
        for descriptor in streams:
            os.close(descriptor)
        return None

    def reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.wakeup, 2**12)
        for client, child in list(self.clients.items()):
            pid, status = os.waitpid(child, os.WNOHANG) if child is not None else (0, 0)
            if pid:
                del self.clients[client]
                with contextlib.suppress(OSError):  # it may have stopped waiting
                    client.sendall(_ANSWER.pack(True, status))
                client.close()

    def leave(self, client: socket.socket) -> None:
        """Kill the child of a client that is gone."""
        child = self.clients.pop(client)
        client.close()
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)


def preload() -> None:
    """Import what takes long.

    Raises:
        RuntimeError: an import started a thread, which a fork would lose.
    """
    for name in PRELOADED:
        importlib.import_module(name)
    # it lays out the text of a configuration for logs and with each checkpoint, which takes seconds
    sys.modules["mmengine.config.config"].FormatCode = lambda text, **_: (text, True)
    tasks = os.listdir("/proc/self/task") if sys.platform == "linux" else [""]
    if threading.active_count() > 1 or len(tasks) > 1:
        raise RuntimeError(f"{threading.enumerate()}, {len(tasks)} tasks after the imports")
    if sys.modules["torch"].cuda.is_initialized():
        raise RuntimeError("CUDA was started by an import")
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()  # memory that is never written to stays shared


def become(request: dict[str, Any], streams: Sequence[int], path: Sequence[str]) -> None:
    """Make this process what a new one would be; `path` is `sys.path` without the script's."""
    if request["session"]:
        os.setsid()
    else:
        os.setpgid(0, 0)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is not None:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for target, descriptor in enumerate(streams):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [*(os.path.abspath(each) for each in added if each), *path]
    for each in request["sites"]:
        site.addsitedir(each)
    importlib.invalidate_caches()
    torch, numpy = sys.modules["torch"], sys.modules["numpy"]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    numpy.random.seed()


def execute(args: Sequence[str]) -> None:
    """Run a command as the interpreter would."""
    program, *rest = args
    if Path(program).name.startswith("python"):
        program, *rest = rest
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = __builtins__
    if program == "-c":
        code, *rest = rest
        sys.argv = ["-c", *rest]
        sys.path.insert(0, "")
        exec(compile(code, "<string>", "exec"), module.__dict__)
    elif program == "-m":
        name, *rest = rest
        sys.argv = ["-m", *rest]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    elif program.startswith("-"):
        raise ValueError(f"python {program} is not known here; use subprocess")
    else:
        sys.argv = [program, *rest]
        sys.path.insert(0, os.path.dirname(os.path.realpath(program)))
        runpy.run_path(program, run_name="__main__")


def status_of(work: Any, *arguments: Any) -> int:
    """Do something as the main program of this process, and end as the interpreter does."""
    status = 0
    try:
        work(*arguments)
    except SystemExit as end:
        if isinstance(end.code, int | None):
            status = (end.code or 0) & 0xFF
        else:
            print(end.code, file=sys.stderr)
            status = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = 1
        if isinstance(error, KeyboardInterrupt):
            status = -signal.SIGINT
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return status


def main(verb: str, *arguments: str) -> None:
    if verb == "call":  # a program elsewhere: `forkserver.py call SITE spikebench ...`
        where, *command = arguments
        sys.exit(Popen(command, sites=[Path(where)], stdin=0).wait())
    number, home = arguments
    path = sys.path[1:]
    preload()
    child = Server(socket.socket(fileno=int(number))).serve()
    if child is None:
        shutil.rmtree(home, ignore_errors=True)
        return
    request, streams, client = child
    become(request, streams, path)
    client.sendall(_ANSWER.pack(False, os.getpid()))
    client.close()
    status = status_of(execute, request["args"])
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


if __name__ == "__main__":
    main(*sys.argv[1:])
