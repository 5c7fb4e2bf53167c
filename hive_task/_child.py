"""What runs in a child process: it takes works from one pipe, and answers each on another, until told to end.

Frames, both ways: one byte for the kind, eight for the length of the body, the body. The first is `PREPARE`; each
`WORK` gets exactly one answer; `END`, or the end of the pipe, ends the process.

A child never outlives its parent, not even in the middle of a work: one thread does nothing but wait for the pipe to
lose its last writer, and then ends the process at once. (A signal at the parent's death, as Linux offers it, comes when
the *thread* that started the child ends.) A work that never lets go of the GIL delays this until it does.

Ctrl-C goes to every process of the terminal; what it means is the parent's to decide, so a child takes no notice. It
does so by a handler: an ignored signal would stay ignored in programs that the work starts.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

HEADER = struct.Struct("<BQ")

END, PREPARE, WORK = range(3)
RESULT, RAISED, NOT_SENT, NOT_LOADED, NOT_STARTED = range(5)

#: What a thread blocks while it starts a child, which is then born with it blocked, and unblocks it when it is ready.
BLOCKED_AT_START = (signal.SIGINT,)

#: Of a failed start, only so many last characters are told: they must fit into a pipe that nobody may be reading yet.
LONGEST_EXCUSE = 16_000

importing_main = False


def main(requests: int, responses: int) -> None:
    for fd in (requests, responses):
        os.set_inheritable(fd, False)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*BLOCKED_AT_START, signal.SIGTERM))
    threading.Thread(target=_end_with_the_parent, args=(requests,), name="parent-watch", daemon=True).start()
    incoming = open(requests, "rb", buffering=1 << 16, closefd=False)  # noqa: SIM115
    outgoing = open(responses, "wb", buffering=1 << 16, closefd=False)  # noqa: SIM115
    try:
        kind, body = _receive(incoming)
        if kind == END:
            return
        _prepare(**pickle.loads(body))
    except BaseException as error:
        _respond(outgoing, NOT_STARTED, _text_of(error)[-LONGEST_EXCUSE:].encode(errors="replace"))
        _flush()
        os._exit(1)  # the main module, half imported, may have left threads that never end
    while _serve_one(incoming, outgoing):
        pass


def _end_with_the_parent(requests: int) -> None:
    waiting = select.poll()
    waiting.register(requests, 0)
    waiting.poll()
    os._exit(1)


def _serve_one(incoming: BinaryIO, outgoing: BinaryIO) -> bool:
    """Nothing of a work is kept while waiting for the next: that is why this is a function, and not a loop."""
    kind, body = _receive(incoming)
    if kind == END:
        return False
    me = os.getpid()
    kind, answer = _perform(body)
    if os.getpid() != me:
        os._exit(0)  # a copy made by os.fork, which has come out of the work: the answer is not its to give
    _flush()
    _respond(outgoing, kind, answer)
    return True


def _receive(incoming: BinaryIO) -> tuple[int, bytes]:
    header = incoming.read(HEADER.size)
    if len(header) < HEADER.size:
        return END, b""
    kind, size = HEADER.unpack(header)
    return kind, incoming.read(size) if size else b""


def _respond(outgoing: BinaryIO, kind: int, body: bytes) -> None:
    try:
        outgoing.write(HEADER.pack(kind, len(body)))
        outgoing.write(body)
        outgoing.flush()
    except BaseException:
        os._exit(1)  # half an answer, or nobody there to read it


def _flush() -> None:
    """So that what a work printed stands before whatever its result leads to, and is not lost by a later kill."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            pass


# ------------------------------------------------------------------------------------------------ a work


def _perform(body: bytes) -> tuple[int, bytes]:
    try:
        fn, args, kwargs = pickle.loads(body)
    except BaseException as error:
        return NOT_LOADED, _text_of(error).encode(errors="replace")
    del body
    try:
        result = fn(*args, **kwargs)
    except BaseException as error:
        return RAISED, _packed_error(error)
    try:
        return RESULT, pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
    except BaseException as error:
        return NOT_SENT, _because(fn, f"returned an object of type {_name(type(result))}", error).encode()


def _packed_error(error: BaseException) -> bytes:
    """The traceback apart from the exception: it must arrive even if the exception can't be loaded over there."""
    text = _text_of(error)
    try:
        packed = pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
    except BaseException as reason:
        packed, why = b"", f"{_name(type(reason))}: {reason}"
    else:
        why = ""
    return pickle.dumps((_name(type(error)), text, packed, why))


def _because(fn: Callable[..., Any], did: str, error: BaseException) -> str:
    name = getattr(fn, "__qualname__", None) or _name(type(fn))
    return f"{name} {did}, which can't be pickled: {_name(type(error))}: {error}"


def _text_of(error: BaseException) -> str:
    import traceback  # not before it is needed: it would make each start a few milliseconds longer

    here = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, here and here.tb_next))


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


# ------------------------------------------------------------------------------------------------ preparation


def _prepare(name: str, argv: list[str], main: tuple[str, str] | None) -> None:
    global importing_main
    threading.current_thread().name = name
    sys.argv[:] = argv
    if main is not None:
        importing_main = True
        _import_main(*main)
        importing_main = False


def _import_main(how: str, where: str) -> None:
    """The parent's main module under the name `__mp_main__`, as `multiprocessing` has it; and as `__main__` too, since
    that is where pickle has been told to find its functions."""
    import importlib.machinery
    import importlib.util
    import types

    module = types.ModuleType("__mp_main__")
    if how == "module":
        spec = importlib.util.find_spec(where)
        assert spec is not None
        loader: Any = spec.loader
        code = loader.get_code(where)
        module.__spec__, module.__loader__, module.__package__ = spec, loader, spec.parent
        module.__file__ = spec.origin
    elif where.endswith(".pyc"):
        code = importlib.machinery.SourcelessFileLoader("__mp_main__", where).get_code("__mp_main__")
        module.__file__ = where
    else:
        source = importlib.machinery.SourceFileLoader("__mp_main__", where)
        code = source.source_to_code(source.get_data(where), where)
        module.__file__ = where
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    exec(code, module.__dict__)
