"""Files of event cameras, each format into the same arrays.

| format | suffix | data sets | source |
|---|---|---|---|
| ATIS, 40 bits each | .bin, .bs2 | N-MNIST, N-Caltech101 | Orchard et al., Front. Neurosci. 2015 |
| AEDAT 2 | .aedat | CIFAR10-DVS | jAER's AEFileInputStream; addresses of a DVS128 |
| AEDAT 3.1 | .aedat | DVS128 Gesture | libcaer's `events/common.h`, `events/polarity.h` |
| AEDAT 4 | .aedat4 | HAR-DVS | the package `aedat` |
| arrays of NumPy | .npz | HAR-DVS, compact | SpikingJelly's `datasets` |

A file that is cut off or garbled raises `EventFileError`, which names it and the byte at fault.
"""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spikebench.errors import UserError
from spikebench.registry import unknown_name
from spikebench_tasks.datasets import DatasetError

_ATIS_OVERFLOW_ROW = 240
_ATIS_OVERFLOW_US = 1 << 13
_HEADER_AT_MOST = 1 << 16  # bytes in which the text at the head of an AEDAT file ends
_DVS128_SIDE = 128
_END_OF_HEADER = b"#!END-HEADER\r\n"
_PACKET = np.dtype(
    [
        ("kind", "<i2"),
        ("source", "<i2"),
        ("size", "<i4"),
        ("time_offset", "<i4"),
        ("overflow", "<i4"),
        ("capacity", "<i4"),
        ("number", "<i4"),
        ("valid", "<i4"),
    ]
)
_POLARITY = 1  # the kind of packets that hold changes of brightness
_POLARITY_BYTES = 8
_DECODE_S = 600
_DECODE = """
import io, sys
import aedat, numpy
packets = [each["events"] for each in aedat.Decoder(sys.argv[1]) if "events" in each]
fields = [[numpy.asarray(one[name], "i8") for one in packets] for name in ("t", "x", "y", "on")]
none = [numpy.zeros(0, "i8")]
buffer = io.BytesIO()
numpy.save(buffer, numpy.stack([numpy.concatenate(none + each) for each in fields]))
sys.stdout.buffer.write(buffer.getvalue())
"""


class EventFileError(DatasetError):
    """A recording is cut off or garbled.

    Args:
        path: the file.
        offset: the byte at fault.
        reason: what is wrong there.
    """

    def __init__(self, path: Path, offset: int, reason: str) -> None:
        super().__init__(f"{path} at byte {offset}: {reason}; get the file again, or leave it out")
        self.path = path
        self.offset = offset
        self.reason = reason


@dataclass(frozen=True)
class Events:
    """Changes of brightness, in the order of the file.

    Attributes:
        t: microseconds, int64 of shape `(N,)`.
        x: columns from the left, int32 of shape `(N,)`.
        y: rows from the top, int32 of shape `(N,)`.
        on: whether a pixel became brighter, bool of shape `(N,)`.
    """

    t: NDArray[np.int64]
    x: NDArray[np.int32]
    y: NDArray[np.int32]
    on: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, chosen: Any) -> Events:
        """The events that a slice, a mask or indices choose."""
        return Events(self.t[chosen], self.x[chosen], self.y[chosen], self.on[chosen])


def read_events(path: Path) -> Events:
    """The events of a file, by its suffix.

    Raises:
        EventFileError: the file is cut off or garbled.
        UnknownNameError: no format has the suffix.
        OSError: the file is not there or may not be read.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise unknown_name("suffix of event files", suffix, _READERS)
    return _READERS[suffix](path)


def read_atis(path: Path) -> Events:
    """N-MNIST and N-Caltech101: records of 5 bytes, x, y, then polarity and 23 bits of time.

    A record in row 240 is no event: from it on, clocks are 8,192 microseconds further.

    Raises:
        EventFileError: the file does not end with a whole record.
    """
    data = path.read_bytes()
    if cut := len(data) % 5:
        raise EventFileError(path, len(data) - cut, f"{cut} of the 5 bytes of a record")
    records = np.frombuffer(data, np.uint8).reshape(-1, 5).astype(np.int32)
    x, y = records[:, 0], records[:, 1]
    time = (records[:, 2] & 0x7F) << 16 | records[:, 3] << 8 | records[:, 4]
    overflow = y == _ATIS_OVERFLOW_ROW
    t = time + np.cumsum(overflow) * _ATIS_OVERFLOW_US
    return Events(t.astype(np.int64), x, y, records[:, 2] >= 0x80)[~overflow]


def read_aedat(path: Path) -> Events:
    """AEDAT 2 or 3.1, as the first line of the file says.

    Raises:
        EventFileError: it says neither, or the file is cut off or garbled.
    """
    data = path.read_bytes()
    for version, read in ((b"#!AER-DAT2.0", _read_aedat2), (b"#!AER-DAT3.1", _read_aedat31)):
        if data.startswith(version):
            return read(path, data)
    raise EventFileError(
        path, 0, f"begins with {data[:12]!r}; expected #!AER-DAT2.0 or #!AER-DAT3.1"
    )


def _read_aedat2(path: Path, data: bytes) -> Events:
    """Records of an address and a time, big-endian.

    A DVS128 counts columns from the right and rows from the bottom, and has OFF as 1.
    """
    start = 0
    while data.startswith(b"#", start):
        end = data.find(b"\n", start, start + _HEADER_AT_MOST)
        if end < 0:
            raise EventFileError(path, start, "a line of the header without an end")
        start = end + 1
    if cut := (len(data) - start) % 8:
        raise EventFileError(path, len(data) - cut, f"{cut} of the 8 bytes of a record")
    address, clock = np.frombuffer(data, ">u4", offset=start).reshape(-1, 2).T.astype(np.int64)
    other = np.flatnonzero(address >> 15)
    if len(other):
        raise EventFileError(
            path,
            start + 8 * int(other[0]),
            f"address {int(address[other[0]]):#x}; expected one of a DVS128, of 15 bits",
        )
    x, y = ((_DVS128_SIDE - 1 - (address >> shift & 0x7F)).astype(np.int32) for shift in (1, 8))
    return Events(clock, x, y, address & 1 == 0)


def _read_aedat31(path: Path, data: bytes) -> Events:
    """Packets of events behind a header; those that are marked as no longer valid are left out."""
    start = data.find(_END_OF_HEADER, 0, _HEADER_AT_MOST)
    if start < 0:
        raise EventFileError(path, 0, "no #!END-HEADER")
    parts = list(_polarity_packets(path, data, start + len(_END_OF_HEADER)))
    if not parts:
        return Events(
            np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, bool)
        )
    word, clock = (np.concatenate(each) for each in zip(*parts, strict=True))
    valid = word & 1 == 1
    word, clock = word[valid], clock[valid]
    return Events(
        clock,
        (word >> 17).astype(np.int32),
        (word >> 2 & 0x7FFF).astype(np.int32),
        word >> 1 & 1 == 1,
    )


def _polarity_packets(
    path: Path, data: bytes, start: int
) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.int64]]]:
    """What the packets of brightness changes hold: words, and clocks in microseconds."""
    while start < len(data):
        if len(data) - start < _PACKET.itemsize:
            raise EventFileError(
                path, start, f"{len(data) - start} of the {_PACKET.itemsize} bytes of a packet head"
            )
        head = np.frombuffer(data, _PACKET, 1, start)[0]
        size, number, capacity = (int(head[name]) for name in ("size", "number", "capacity"))
        body, length = start + _PACKET.itemsize, size * capacity
        if size <= 0 or not 0 <= number <= capacity:
            raise EventFileError(
                path, start, f"a packet of {number} events of {size} bytes, in place of {capacity}"
            )
        if body + length > len(data):
            raise EventFileError(
                path, start, f"a packet of {length} bytes, {len(data) - body} of them there"
            )
        if head["kind"] == _POLARITY:
            if size != _POLARITY_BYTES:
                raise EventFileError(
                    path, start, f"polarity events of {size} bytes; expected {_POLARITY_BYTES}"
                )
            word, clock = np.frombuffer(data, "<u4", 2 * number, body).reshape(-1, 2).T
            yield word, clock.astype(np.int64) + (int(head["overflow"]) << 31)
        start = body + length


def read_aedat4(path: Path) -> Events:
    """AEDAT 4, through the package `aedat`; frames and movements of the camera are left out.

    The package ends its process where a file is garbled, so it is given one of its own.

    Raises:
        EventFileError: the file is cut off or garbled.
        UserError: the package is not installed.
    """
    if importlib.util.find_spec("aedat") is None:
        raise UserError(
            f"{path}: AEDAT 4 needs the package aedat; pip install 'spikebench[events]'"
        )
    with path.open("rb") as file:
        if file.read(12) != b"#!AER-DAT4.0":
            raise EventFileError(path, 0, "does not begin with #!AER-DAT4.0")
    try:
        done = subprocess.run(
            [sys.executable, "-c", _DECODE, str(path)], capture_output=True, timeout=_DECODE_S
        )
    except subprocess.TimeoutExpired as error:
        raise EventFileError(path, 0, f"not decoded within {_DECODE_S} seconds") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        panic = [line for line in said if "panicked" in line or "Error" in line]
        reason = (panic or said or [f"exit status {done.returncode}"])[-1]
        raise EventFileError(path, path.stat().st_size, f"cannot be decoded: {reason}")
    t, x, y, on = np.load(io.BytesIO(done.stdout), allow_pickle=False)
    return Events(t, x.astype(np.int32), y.astype(np.int32), on.astype(bool))


def read_npz(path: Path) -> Events:
    """Arrays t, x, y and p, as in the compact release of HAR-DVS and as SpikingJelly writes them.

    Raises:
        EventFileError: the file is cut off or garbled, or lacks one of them.
    """
    with path.open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                t, x, y, on = (_whole_numbers(name, arrays[name]) for name in "txyp")
        except MemoryError:
            raise
        except Exception as error:  # whatever zipfile and NumPy make of garbled bytes
            reason = " ".join(str(error).split())[:200]
            raise EventFileError(
                path, 0, f"no archive of the arrays t, x, y, p: {reason}"
            ) from error
    if not len(t) == len(x) == len(y) == len(on):
        raise EventFileError(path, 0, "the arrays t, x, y, p are not equally long")
    return Events(t, x.astype(np.int32), y.astype(np.int32), on > 0)  # OFF is 0, or -1


def _whole_numbers(name: str, array: NDArray) -> NDArray[np.int64]:
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise ValueError(f"{name} is of shape {array.shape} and type {array.dtype}")
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
    if (whole != array).any():
        raise ValueError(f"{name} holds other than whole numbers")
    if name in "xy" and (abs(whole) >= 2**31).any():
        raise ValueError(f"{name} holds what is no place of a pixel")
    return whole


_READERS: dict[str, Callable[[Path], Events]] = {
    ".aedat": read_aedat,
    ".aedat4": read_aedat4,
    ".bin": read_atis,
    ".bs2": read_atis,
    ".npz": read_npz,
}
SUFFIXES = tuple(_READERS)
