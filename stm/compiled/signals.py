"""Two ways for a compiled body to end that are no exceptions of its own: *restart* and *retry*.

A compiled function returns a status code beside its result, and whoever calls it passes on a status that is not "fine".
Two codes of ours travel that way, so that any function between the body and the `read` that found a conflict, the
user's own included, is left at once, at no cost while nothing happens. Where such a code reaches Python, it becomes
whatever `arriving` makes of it there.
"""

from __future__ import annotations

from typing import Any, ClassVar

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.callconv import FIRST_USEREXC
from numba.extending import intrinsic

#: numba raises what is registered with any code from `FIRST_USEREXC` up; it uses that one code only.
RESTART = FIRST_USEREXC + 7000
RETRY = FIRST_USEREXC + 7001
PENDING = FIRST_USEREXC + 7002
EVENT_CODE = FIRST_USEREXC + 7003


class Arriving(BaseException):
    """What numba raises for our codes when they reach Python. Making one makes, or raises, the right thing instead."""

    code: ClassVar[int]

    def __new__(cls, arrived: BaseException | None = None) -> Any:
        from stm.compiled.joining import arriving

        # (CPython 3.11 makes it twice if it is traced, the second time of the first.)
        return arriving(cls.code) if arrived is None else arrived


class ArrivingRestart(Arriving):
    code = RESTART


class ArrivingRetry(Arriving):
    code = RETRY


class ArrivingPending(Arriving):
    code = PENDING


class ArrivingEvent(Arriving):
    code = EVENT_CODE


_CLASSES = {RESTART: ArrivingRestart, RETRY: ArrivingRetry, PENDING: ArrivingPending, EVENT_CODE: ArrivingEvent}


def _leave(code: int) -> Any:
    """An intrinsic that leaves the function it is called in with a status code of ours."""

    @intrinsic
    def leave(typingctx: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            convention = context.call_conv
            convention.set_static_user_exc(builder, _CLASSES[code], ())
            convention._return_errcode_raw(builder, ir.Constant(ir.IntType(32), code))
            # What numba puts after this can't be reached, but must stand somewhere.
            builder.position_at_end(builder.append_basic_block("after"))
            return context.get_dummy_value()

        return types.void(), codegen

    return leave


leave_with_restart = _leave(RESTART)
leave_with_retry = _leave(RETRY)
leave_with_pending = _leave(PENDING)
leave_with_event = _leave(EVENT_CODE)


@intrinsic
def signals_are_quiet(typingctx: Any) -> Any:
    """Run Python's signal handlers if signals have come. False if one of them raised."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        api = context.get_python_api(builder)
        state = api.gil_ensure()
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.IntType(32), []), "PyErr_CheckSignals"
        )
        answer = builder.call(function, [])
        api.gil_release(state)
        return builder.icmp_signed("==", answer, ir.Constant(ir.IntType(32), 0))

    return types.boolean(), codegen


@intrinsic
def leave_with_python_error(typingctx: Any) -> Any:
    """Leave the function it is called in with the exception that Python has set already."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        context.call_conv.return_exc(builder)
        builder.position_at_end(builder.append_basic_block("after"))
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def attempt(typingctx: Any, body: Any, args: Any, failure: Any) -> Any:
    """Call the dispatcher `body` with the tuple `args`: `(status code, result)`.

    The code is positive if the call failed; the result is then empty, and what numba knows of the exception is noted
    at the address `failure` for `fail`.
    """
    signature = body.get_call_type(typingctx, args.types, {})
    template = body.dispatcher
    result = signature.return_type

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        compiled = template.get_compile_result(signature)
        context.active_code_library.add_linking_library(compiled.library)
        given = cgutils.unpack_tuple(builder, values[1])
        callee = context.declare_function(builder.module, compiled.fndesc)
        status, value = context.call_conv.call_function(
            builder, callee, signature.return_type, signature.args, given, attrs=("alwaysinline",)
        )
        with cgutils.if_unlikely(builder, status.is_error):
            place = builder.inttoptr(values[2], ir.PointerType(ir.IntType(64)))
            builder.store(builder.ptrtoint(status.excinfoptr, ir.IntType(64)), place)
        code = builder.select(status.is_error, status.code, ir.Constant(ir.IntType(32), 0))
        return context.make_tuple(builder, sig.return_type, [code, value])

    return types.Tuple([types.int32, result])(body, args, failure), codegen


@intrinsic
def fail(typingctx: Any, code: Any, failure: Any) -> Any:
    """Leave the function it is called in as `attempt` found the body left: with this code and what is noted there."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        convention = context.call_conv
        place = convention._get_excinfo_argument(builder.function)
        noted = builder.load(builder.inttoptr(args[1], ir.PointerType(ir.IntType(64))))
        builder.store(builder.inttoptr(noted, place.type.pointee), place)
        convention._return_errcode_raw(builder, args[0])
        builder.position_at_end(builder.append_basic_block("after"))
        return context.get_dummy_value()

    return types.void(types.int32, types.int64), codegen


@intrinsic
def apart(typingctx: Any, function: Any, args: Any) -> Any:
    """Call a function with the tuple `args`, and keep it out of line: it is the rare case of a quick one."""
    signature = function.get_call_type(typingctx, args.types, {})
    template = function.dispatcher

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        compiled = template.get_compile_result(signature)
        context.active_code_library.add_linking_library(compiled.library)
        given = cgutils.unpack_tuple(builder, values[1])
        callee = context.declare_function(builder.module, compiled.fndesc)
        status, result = context.call_conv.call_function(
            builder, callee, signature.return_type, signature.args, given, attrs=("noinline",)
        )
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return result

    return signature.return_type(function, args), codegen


@intrinsic
def breathe(typingctx: Any) -> Any:
    """Let other threads have the GIL for a moment, if this one has it."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = ir.IntType(64)
        module = builder.module

        def function(name: str, result: Any, given: list[Any]) -> Any:
            return cgutils.get_or_insert_function(module, ir.FunctionType(result, given), name)

        held = builder.call(function("PyGILState_Check", ir.IntType(32), []), [])
        with builder.if_then(builder.icmp_signed("!=", held, ir.Constant(ir.IntType(32), 0))):
            state = builder.call(function("PyEval_SaveThread", word, []), [])
            builder.call(function("PyEval_RestoreThread", ir.VoidType(), [word]), [state])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def let_go_of_gil(typingctx: Any, really: Any) -> Any:
    """Release the GIL if asked to: what `take_gil` needs to get it back, 0 if it was kept."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = ir.IntType(64)
        place = cgutils.alloca_once_value(builder, ir.Constant(word, 0))
        builder.store(ir.Constant(word, 0), place)
        with builder.if_then(args[0], likely=False):
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(word, []), "PyEval_SaveThread")
            builder.store(builder.call(function, []), place)
        return builder.load(place)

    return types.int64(types.boolean), codegen


@intrinsic
def take_gil(typingctx: Any, state: Any) -> Any:
    """Get the GIL back after `let_go_of_gil`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = ir.IntType(64)
        with builder.if_then(builder.icmp_signed("!=", args[0], ir.Constant(word, 0)), likely=False):
            kind = ir.FunctionType(ir.VoidType(), [word])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "PyEval_RestoreThread"), [args[0]])
        return context.get_dummy_value()

    return types.void(types.int64), codegen
