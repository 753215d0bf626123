"""Inflate through the C interface of zlib-ng or zlib, including functions that Python's `zlib` module does not expose.

Checkpoints require stopping at the end of each deflate block (``Z_BLOCK``), reading the number of unused bits there,
and resuming from such a position (``inflatePrime``, ``inflateSetDictionary``); see zlib.h. Nothing is compiled: the
functions are called through ctypes in the shared object of the `zlib-ng` wheel or in the system's libz. Each call
releases the GIL until it returns.
"""

import ctypes
import functools
import importlib.util
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Final, Self

from soci_pipeline.errors import ToolMissing

NO_FLUSH: Final = 0
BLOCK: Final = 5
OK: Final = 0
STREAM_END: Final = 1
BUFFER_ERROR: Final = -5

RAW: Final = -15
GZIP: Final = 31
"""Window bits: a raw deflate stream (`RAW`), and one with gzip header and trailer (`GZIP`)."""

# None is the process itself: the interpreter may be linked with zlib statically.
_ZLIB_NAMES: Final = ("libz.so.1", "libz.so", None)

ENGINE_VARIABLE = "SOCI_PIPELINE_ZLIB"
"""Environment variable: ``zlib`` or ``zlib-ng`` selects the engine; by default the fastest available one is used."""


class _ZlibStream(ctypes.Structure):
    _fields_: ClassVar[Any] = [
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint),
        ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint),
        ("total_out", ctypes.c_ulong),
        ("msg", ctypes.c_char_p),
        ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p),
        ("zfree", ctypes.c_void_p),
        ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int),
        ("adler", ctypes.c_ulong),
        ("reserved", ctypes.c_ulong),
    ]


class _ZlibNgStream(ctypes.Structure):
    # zlib-ng's native interface: totals are size_t, and adler is 32 bits wide, so the structure ends differently.
    _fields_: ClassVar[Any] = [
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint32),
        ("total_in", ctypes.c_size_t),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint32),
        ("total_out", ctypes.c_size_t),
        ("msg", ctypes.c_char_p),
        ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p),
        ("zfree", ctypes.c_void_p),
        ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int32),
        ("adler", ctypes.c_uint32),
        ("reserved", ctypes.c_ulong),
    ]


@dataclass(frozen=True)
class Engine:
    """A loaded library: its display name with version, the structure of its stream, and its functions."""

    name: str
    stream_type: type[ctypes.Structure]
    init: Any
    inflate: Any
    reset: Any
    prime: Any
    set_dictionary: Any
    end: Any

    @property
    def is_fast(self) -> bool:
        """Whether this is zlib-ng, which the speed goals assume."""
        return self.name.startswith("zlib-ng")


@functools.cache
def engine() -> Engine:
    """Load the engine: zlib-ng if its wheel is installed, otherwise the system's zlib.

    ``SOCI_PIPELINE_ZLIB`` selects one of them. Raises `ToolMissing` if it, or both, cannot be loaded.
    """
    wanted = os.environ.get(ENGINE_VARIABLE, "")
    loaders = {"zlib-ng": _load_zlib_ng, "zlib": _load_zlib}
    for name, load in loaders.items():
        if wanted in ("", name) and (found := load()) is not None:
            return found
    raise ToolMissing(
        "no library for inflating was found",
        advice="Install the Python package zlib-ng, or the system's zlib (Debian: zlib1g).",
    )


def _load_zlib_ng() -> Engine | None:
    try:
        found = importlib.util.find_spec("zlib_ng.zlib_ng")
    except ModuleNotFoundError:
        return None
    if found is None or found.origin is None:
        return None
    try:
        library = ctypes.CDLL(found.origin)
        version = _function(library, "zlibng_version", ctypes.c_char_p)
        init = _function(library, "zng_inflateInit2", ctypes.c_int, ctypes.c_void_p, ctypes.c_int32)
        return _engine(library, f"zlib-ng {version().decode()}", "zng_", _ZlibNgStream, init)
    except (OSError, AttributeError):
        # The wheel is for a different interpreter or does not export its symbols; fall back to the system's zlib.
        return None


def _load_zlib() -> Engine | None:
    for name in _ZLIB_NAMES:
        try:
            library = ctypes.CDLL(name)
            version = _function(library, "zlibVersion", ctypes.c_char_p)()
            initialise = _function(
                library, "inflateInit2_", ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_int
            )
            return _engine(
                library,
                f"zlib {version.decode()}",
                "",
                _ZlibStream,
                lambda stream, bits, call=initialise, text=version: call(
                    stream, bits, text, ctypes.sizeof(_ZlibStream)
                ),
            )
        except (OSError, AttributeError):
            continue
    return None


def _engine(library: ctypes.CDLL, name: str, prefix: str, stream_type: type[ctypes.Structure], init: Any) -> Engine:
    def function(suffix: str, *arguments: Any) -> Any:
        return _function(library, f"{prefix}{suffix}", ctypes.c_int, ctypes.c_void_p, *arguments)

    return Engine(
        name=name,
        stream_type=stream_type,
        init=init,
        inflate=function("inflate", ctypes.c_int),
        reset=function("inflateReset2", ctypes.c_int),
        prime=function("inflatePrime", ctypes.c_int, ctypes.c_int),
        set_dictionary=function("inflateSetDictionary", ctypes.c_char_p, ctypes.c_uint),
        end=function("inflateEnd"),
    )


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.restype = result
    function.argtypes = arguments
    return function


class Buffer:
    """A bytearray at a fixed address that C code can read and write."""

    __slots__ = ("_pin", "address", "data", "view")

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        # The exported buffer prevents the bytearray from being resized while this object exists.
        self._pin = (ctypes.c_char * size).from_buffer(self.data)
        self.address = ctypes.addressof(self._pin)
        self.view = memoryview(self.data)

    def __len__(self) -> int:
        return len(self.data)


class Inflater:
    """One inflate stream; a context manager, which frees the state that the C library allocates.

    Set the input with `give` and the output buffer with `take`, then call `run`, which advances both.
    """

    __slots__ = ("_address", "_engine", "_stream")

    def __init__(self, window_bits: int, chosen: Engine | None = None) -> None:
        self._engine = engine() if chosen is None else chosen
        self._stream: Any = self._engine.stream_type()
        self._address = ctypes.addressof(self._stream)
        if self._engine.init(self._address, window_bits) != OK:
            raise MemoryError("inflateInit2 failed")

    def give(self, address: int, size: int) -> None:
        """Set the input: ``size`` bytes at ``address``."""
        self._stream.next_in, self._stream.avail_in = address, size

    def take(self, address: int, size: int) -> None:
        """Set the output buffer: ``size`` bytes at ``address``."""
        self._stream.next_out, self._stream.avail_out = address, size

    def run(self, flush: int) -> int:
        """Inflate until the input is consumed, the output buffer is full or ``flush`` applies; return zlib's status."""
        return int(self._engine.inflate(self._address, flush))

    @property
    def input_left(self) -> int:
        """Number of input bytes not yet consumed."""
        return int(self._stream.avail_in)

    @property
    def room_left(self) -> int:
        """Number of free bytes in the output buffer."""
        return int(self._stream.avail_out)

    @property
    def data_type(self) -> int:
        """Unused bits in the last byte (0 to 7), plus 64 in the last block, plus 128 at the end of a block."""
        return int(self._stream.data_type)

    @property
    def message(self) -> str:
        """The library's message for the last error."""
        text = self._stream.msg
        return text.decode("ascii", "replace") if text else "no message"

    def reset(self, window_bits: int) -> None:
        """Start a new stream at the next input byte."""
        self._engine.reset(self._address, window_bits)

    def resume(self, window: bytes, bits: int, value: int) -> None:
        """Restore the state of a checkpoint in a raw stream: the window, and ``bits`` bits of a shared byte."""
        if bits:
            self._engine.prime(self._address, bits, value)
        self._engine.set_dictionary(self._address, window, len(window))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.end(self._address)
