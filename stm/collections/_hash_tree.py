"""What a stripe of a `TMap` or `TSet` holds: an immutable hash tree whose leaves are small dictionaries.

Invariants:

1. Nothing here is changed once it has been returned. A changed tree is a new one that shares all but one path with the
   old, so whoever holds the old one may read it for ever, in any thread, without a lock.
2. A tree is `(number of keys, node)`; a node is a `dict`, or a tuple of `FAN` nodes. The bits of a key's *code* decide
   its place: the lowest `STRIPE_BITS` the stripe, each further `FAN_BITS` the child of one level.
3. A leaf has at most `LEAF` keys, unless the codes' bits are used up: then that many keys have the same hash.
4. Which keys are the same is for `dict` alone to say, so it is as in a dictionary: 1, 1.0 and True are one key.

The code is the hash of a tuple of the key, `hash((key,))`, because integers hash to themselves, and keys that differ by
multiples of 64 are common: `hash(key) % 64` would put them all into one stripe. CPython mixes the hashes of a tuple's
items (by xxHash), and this is the cheapest way to have it mix.

Why not a `pyrsistent.PMap` in each stripe: its code is Python's, bucket by bucket. Getting a key of a `TMap` took 0.6
to 1.0 µs with 1,000 keys and 1.8 to 2.6 with 1,000,000, setting one 2.5 to 5 and 5 to 9. With this tree, whose search
and whose copying are the interpreter's own, getting takes 0.3 and 0.8 to 1.6, setting 1 and 3 to 4. Also, two objects
for each key that the garbage collector must visit became one for each leaf.

`LEAF` and `FAN` by measurement: with 16 keys to a leaf, a map of 1,000 keys is slower by a fifth, with 64 one of
1,000,000 by a quarter (copying a leaf touches all its keys and values, which are seldom in the processor's cache then);
8 or 32 children instead of 16 make no difference that could be told from noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

Leaf = dict[Any, Any]
Node = Leaf | tuple[Any, ...]
Tree = tuple[int, Node]

STRIPE_BITS: Final = 6
STRIPES: Final = 1 << STRIPE_BITS
LAST: Final = STRIPES - 1
LEAF: Final = 32
FAN_BITS: Final = 4
FAN: Final = 1 << FAN_BITS
_LAST_CHILD: Final = FAN - 1
_CODE_BITS: Final = 61

_NO_KEYS: Leaf = {}
EMPTY: Tree = (0, _NO_KEYS)
MISSING: Final[Any] = object()


def leaf_for(tree: Tree, code: int) -> Leaf:
    """The leaf in which a key with this code is, if it is in the tree."""
    node: Any = tree[1]
    if node.__class__ is tuple:
        code >>= STRIPE_BITS
        while node.__class__ is tuple:
            node = node[code & _LAST_CHILD]
            code >>= FAN_BITS
    return node  # type: ignore[no-any-return]


def put(tree: Tree, code: int, key: object, value: object) -> Tree:
    """With `key`, whose code is given, set to `value`. The very same tree if that object is its value already."""
    leaf = leaf_for(tree, code)
    if leaf.get(key, MISSING) is value:
        return tree
    changed = leaf.copy()
    changed[key] = value
    size, node = tree
    size += len(changed) - len(leaf)
    if node is leaf and len(changed) <= LEAF:
        return size, changed
    return size, _with(node, code, changed, STRIPE_BITS)


def without(tree: Tree, code: int, key: object) -> Tree:
    """Without `key`. The very same tree if there is no such key in it."""
    leaf = leaf_for(tree, code)
    changed = leaf.copy()
    if changed.pop(key, MISSING) is MISSING:
        return tree
    size, node = tree
    if size == 1:
        return EMPTY
    if node is not leaf:
        changed = _with(node, code, changed, STRIPE_BITS)  # type: ignore[assignment]
        if size <= LEAF // 4:  # one leaf again, which may grow for a while before it is split
            changed = {key: value for part in leaves(changed) for key, value in part.items()}
    return size - 1, changed


def merge(tree: Tree, new: Leaf) -> Tree:
    """With all these keys, each of which belongs to this tree's stripe, set to these values."""
    node, added = _merged(tree[1], new, STRIPE_BITS)
    return tree[0] + added, node


def plant(items: Leaf) -> tuple[Tree, ...]:
    """The trees of all stripes for these keys and values."""
    trees = [EMPTY] * STRIPES
    for number, part in divide(items).items():
        trees[number] = len(part), _split(part, STRIPE_BITS)
    return tuple(trees)


def divide(items: Leaf, shift: int = 0, last: int = LAST) -> dict[int, Leaf]:
    """Keys and values by the stripe, or by the child of a branch, to which they belong."""
    parts: dict[int, Leaf] = {}
    for key, value in items.items():
        number = hash((key,)) >> shift & last
        part = parts.get(number)
        if part is None:
            parts[number] = {key: value}
        else:
            part[key] = value
    return parts


def leaves(*nodes: Node) -> Iterator[Leaf]:
    """All leaves that have keys."""
    stack: list[Any] = list(nodes)
    while stack:
        node = stack.pop()
        if node.__class__ is tuple:
            stack.extend(node)
        elif node:
            yield node


def _with(node: Node, code: int, leaf: Leaf, shift: int) -> Node:
    """The node with another leaf at the place of this code."""
    if isinstance(node, dict):
        return _split(leaf, shift)
    number = code >> shift & _LAST_CHILD
    children = list(node)
    children[number] = _with(children[number], code, leaf, shift + FAN_BITS)
    return tuple(children)


def _split(leaf: Leaf, shift: int) -> Node:
    if len(leaf) <= LEAF or shift >= _CODE_BITS:
        return leaf
    parts = divide(leaf, shift, _LAST_CHILD)
    return tuple([_split(parts.get(number, _NO_KEYS), shift + FAN_BITS) for number in range(FAN)])


def _merged(node: Node, new: Leaf, shift: int) -> tuple[Node, int]:
    if isinstance(node, dict):
        both = node | new
        return _split(both, shift), len(both) - len(node)
    children, added = list(node), 0
    for number, part in divide(new, shift, _LAST_CHILD).items():
        children[number], more = _merged(children[number], part, shift + FAN_BITS)
        added += more
    return tuple(children), added
