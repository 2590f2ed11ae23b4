"""Documents that are nearly right: what a fuzzer gives to parsers that strangers' files reach."""

import json

JUNK = [
    *(None, True, False, 0, -1, 1.5, 1e308, 10**40, float("nan"), float("inf")),
    *("", "a", "\x00", "é", "../../etc/passwd", "/dev/zero", "x" * 3000, "1", "nan", "line\nline"),
    *("\ud800", "fp32", "2:4", [], {}, [[]], {"a": 1}, [None] * 50, [0] * 5, {"": {}}),
    *([1, "a", None], {"a": {"b": {"c": []}}}),
]


def places(data, path=()):
    """Every place in plain data, as keys from the top."""
    yield path
    if isinstance(data, dict):
        for key in data:
            yield from places(data[key], (*path, key))
    elif isinstance(data, list):
        for index in range(min(len(data), 20)):
            yield from places(data[index], (*path, index))


def mutated(data, rng):
    """``data`` with one to three places changed, dropped, doubled, renamed or nested deeply."""
    for _ in range(rng.randint(1, 3)):
        found = list(places(data))
        data = _changed(data, found[rng.randrange(len(found))], rng)
    return data


def _changed(data, path, rng):
    if not path:
        return _replacement(data, rng)
    key, rest = path[0], path[1:]
    copy = dict(data) if isinstance(data, dict) else list(data)
    if rest:
        copy[key] = _changed(copy[key], rest, rng)
        return copy
    what = rng.randrange(5)
    if what == 0:
        del copy[key]
    elif what == 1 and isinstance(copy, dict):
        copy[rng.choice(["x", "", "schema", "__class__", str(key) + " "])] = copy.pop(key)
    elif what == 2 and isinstance(copy, list):
        copy += [copy[key]] * rng.choice([1, 300])
    else:
        copy[key] = _replacement(copy[key], rng)
    return copy


def _replacement(value, rng):
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.4:
        return rng.choice([-value, value * 1e6, value + 0.5, 0, -1, str(value), [value]])
    if rng.random() < 0.1:
        nested = value
        for _ in range(rng.choice([3, 60])):
            nested = [nested]
        return nested
    return rng.choice(JUNK)


def text_of(data, rng):
    """JSON of ``data``; now and then cut off, doubled, or nested deeper than parsers can count."""
    text = json.dumps(data)
    what = rng.randrange(12)
    if what == 0:
        return text[: rng.randrange(len(text) + 1)]
    if what == 1:
        return text + rng.choice([text, "\n" + text, "{", "\x00"])
    if what == 2:
        return "[" * 100_000
    return text


def bytes_of(data, rng):
    """``data`` with bytes changed, cut off, moved or repeated."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(found) + 1)
        what = rng.randrange(4)
        if what == 0 and found:
            found[at % len(found)] = rng.randrange(256)
        elif what == 1:
            del found[at:]
        elif what == 2:
            found[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 16)))
        elif found:
            del found[at : at + rng.randint(1, 16)]
    return bytes(found)
