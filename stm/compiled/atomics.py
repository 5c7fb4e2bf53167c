"""Machine atomics for numba: loads, stores, compare-and-swap, fences and memory, on raw addresses.

numba offers no CPU atomics. An intrinsic over llvmlite's builder does: each function here becomes one instruction or
two. Addresses are `int64` byte addresses of aligned 64-bit words. They carry no type and no reference count on purpose:
passing arrays between compiled functions would cost an atomic increment and decrement each time.

Orders, as in C11. `load_acquire` sees everything that was stored before the `store_release` whose value it returns.
`compare_and_swap` is both. `load` and `store` are for memory that one thread has to itself: the compiler may keep such
words in registers, or leave the access out. A word that threads share is never read by a plain `load`, which LLVM may
lift out of a loop.

The type checker sees functions of integers; numba replaces them.
"""

from __future__ import annotations

import os
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

I64 = ir.IntType(64)
_YIELDS = hasattr(os, "sched_yield")


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, ir.PointerType(I64))


@intrinsic
def load(typingctx: Any, address: Any) -> Any:
    """The word at `address`, which no other thread writes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0]))

    return types.int64(types.int64), codegen


@intrinsic
def store(typingctx: Any, address: Any, value: Any) -> Any:
    """Set the word at `address`, which no other thread reads."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], _pointer(builder, args[0]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def load_acquire(typingctx: Any, address: Any) -> Any:
    """The word at `address`; nothing that follows is done before it."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(builder, args[0]), "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def store_release(typingctx: Any, address: Any, value: Any) -> Any:
    """Set the word at `address`; everything that precedes is done before it."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _pointer(builder, args[0]), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def compare_and_swap(typingctx: Any, address: Any, old: Any, new: Any) -> Any:
    """Replace `old` by `new` at `address`; False, and nothing done, if something else stood there."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        result = builder.cmpxchg(_pointer(builder, args[0]), args[1], args[2], "acq_rel", "acquire")
        return builder.extract_value(result, 1)

    return types.boolean(types.int64, types.int64, types.int64), codegen


@intrinsic
def exchange(typingctx: Any, address: Any, value: Any) -> Any:
    """Set the word at `address`, and return what stood there. A full fence."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("xchg", _pointer(builder, args[0]), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def fetch_add(typingctx: Any, address: Any, value: Any) -> Any:
    """Add to the word at `address`, and return what stood there. A full fence."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, args[0]), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def pause(typingctx: Any) -> Any:
    """Tell the processor that this is a loop that waits."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        triple = builder.module.triple
        if triple.startswith(("x86", "i386", "i686")):
            function = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", (), function), [])
        elif triple.startswith(("aarch64", "arm64")):
            function = ir.FunctionType(ir.VoidType(), [ir.IntType(32)])
            hint = builder.module.declare_intrinsic("llvm.aarch64.hint", (), function)
            builder.call(hint, [ir.Constant(ir.IntType(32), 1)])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def offer_processor(typingctx: Any) -> Any:
    """Let the operating system run another thread, where it can be asked to."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if _YIELDS:
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.IntType(32), []), "sched_yield"
            )
            builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def allocate(typingctx: Any, size: Any) -> Any:
    """The address of `size` fresh bytes, 0 if there are none to be had."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ptrtoint(context.nrt.allocate_unchecked(builder, args[0]), I64)

    return types.int64(types.int64), codegen


@intrinsic
def free(typingctx: Any, address: Any) -> Any:
    """Give back what `allocate` gave."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        context.nrt.free(builder, builder.inttoptr(args[0], cgutils.voidptr_t))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def copy_words(typingctx: Any, target: Any, source: Any, words: Any) -> Any:
    """Copy so many words to memory that doesn't overlap."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target, source, words = args
        size = builder.shl(words, ir.Constant(I64, 3))
        cgutils.raw_memcpy(
            builder,
            builder.inttoptr(target, cgutils.voidptr_t),
            builder.inttoptr(source, cgutils.voidptr_t),
            size,
            1,
        )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def clear_words(typingctx: Any, target: Any, words: Any) -> Any:
    """Set so many words to zero."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        target, words = args
        size = builder.shl(words, ir.Constant(I64, 3))
        cgutils.memset(builder, builder.inttoptr(target, cgutils.voidptr_t), size, 0)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def as_bits(typingctx: Any, value: Any) -> Any:
    """The word that stands for a value: an integer itself, a float's bits, 0 or 1 for a truth value."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        (kind,) = sig.args
        if kind == types.float64:
            return builder.bitcast(args[0], I64)
        if kind == types.boolean:
            return builder.zext(args[0], I64)
        return args[0]

    return types.int64(value), codegen


@intrinsic
def from_bits(typingctx: Any, word: Any, like: Any) -> Any:
    """The value of the type `like` that a word stands for."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = sig.return_type
        if kind == types.float64:
            return builder.bitcast(args[0], ir.DoubleType())
        if kind == types.boolean:
            return builder.icmp_unsigned("!=", args[0], ir.Constant(I64, 0))
        return args[0]

    return like.instance_type(types.int64, like), codegen


@intrinsic
def write_byte(typingctx: Any, file: Any, source: Any) -> Any:
    """Write the byte at an address to a file descriptor, whatever comes of it."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        word = ir.IntType(64)
        kind = ir.FunctionType(word, [ir.IntType(32), word, word])
        function = cgutils.get_or_insert_function(builder.module, kind, "write")
        builder.call(function, [builder.trunc(args[0], ir.IntType(32)), args[1], ir.Constant(word, 1)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def cycles(typingctx: Any) -> Any:
    """A counter that goes up steadily, in units of the machine's choice; 0 where there is none."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        triple = builder.module.triple
        if triple.startswith(("x86", "i386", "i686")):
            name = "llvm.readcyclecounter"
        elif triple.startswith(("aarch64", "arm64")):
            name = "llvm.readsteadycounter"  # (the cycle counter of ARM is closed to ordinary programs)
        else:
            return ir.Constant(I64, 0)
        return builder.call(builder.module.declare_intrinsic(name, (), ir.FunctionType(I64, [])), [])

    return types.int64(), codegen
