"""Seeded mutations of JSON values and of bytes."""

from __future__ import annotations

import copy
import json
import random
import struct

VALUES = (
    *(None, True, False, 0, 1, -1, 2, 7, 10**6, 10**18, 2**31, 2**32, 2**63, 2**64, -(2**63), 0.5, -0.0, 1e-300, 1e308),
    *(float("nan"), float("inf"), "", "x", "1", "null", "\0", "..", "/", "~", "$x$", "\ud800", "é" * 300, "a" * 5000),
    *([], [[]], [None], [0], [1, 2, 3], ["a"], {}, {"": 0}, {"a": []}, {"1": 1}, [1] * 1000, [0.5, 0.5]),
)
NUMBERS = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\0\0\x80\x7f",
    b"\0\0\xc0\x7f",
    b"\x10\0",
)


def value(rng: random.Random, tree):
    """Return a JSON value of which one place is another: a wrong value, none, twice, of a neighbour, or renamed."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    if not places or rng.random() < 0.02:
        return rng.choice(VALUES)
    holder, key = rng.choice(places)
    kind = rng.randrange(7)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        holder[key] = [holder[key]]
    elif kind == 2:
        holder[key] = copy.deepcopy((other := rng.choice(places))[0][other[1]])
    elif kind == 3 and isinstance(holder, dict):
        holder[f"{key}{rng.choice('_sx')}" if rng.random() < 0.5 else key[:-1]] = holder.pop(key)
    elif kind == 4 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = rng.choice((-1, 0, 1.5, 2, 10, 1000, 1e-3)) * holder[key]
    elif kind == 5 and isinstance(holder[key], str) and holder[key]:
        place = rng.randrange(len(holder[key]))
        holder[key] = holder[key][:place] + rng.choice("\0a/ .~$*\u0301") + holder[key][place + rng.randrange(2) :]
    else:
        holder[key] = copy.deepcopy(rng.choice(VALUES))
    return tree


def text(rng: random.Random, tree) -> bytes:
    """Return a mutated JSON value as a file; a few are damaged as bytes too."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        tree = value(rng, tree)
    data = json.dumps(tree).encode("utf-8", "surrogatepass")
    return damaged(rng, data) if rng.random() < 0.1 else data


def damaged(rng: random.Random, data: bytes, *, head: int = 400) -> bytes:
    """Return bytes with one to three defects, half of them among the first ``head``, where headers are."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = _damaged_once(rng, data, head)
    return data


def _damaged_once(rng: random.Random, data: bytes, head: int) -> bytes:
    if not data:
        return data
    place = rng.randrange(min(head, len(data)) if rng.random() < 0.5 else len(data))
    length = rng.choice((1, 2, 4, 8, 64, 1000))
    kind = rng.randrange(8)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + data[place + length :]
    if kind == 2:
        return data[:place] + rng.randbytes(length) + data[place:]
    if kind == 3:
        return data[:place] + data[place : place + length] * 2 + data[place + length :]
    if kind == 4:
        number = rng.choice(NUMBERS)
        return data[:place] + number + data[place + len(number) :]
    if kind == 5:
        return data[:place] + struct.pack("<q", rng.randrange(-(2**63), 2**63)) + data[place + 8 :]
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]


def _places(tree):
    """Yield every place of a JSON value as its holder and key."""
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])
