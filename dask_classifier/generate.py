"""Generate synthetic rows. Row i is the same on every machine, no matter how the rows are cut into blocks.

A row depends only on the seed and its number, from which three SplitMix64 values (Steele, Lea and Flood, 'Fast
splittable pseudorandom number generators', OOPSLA 2014) are computed for SKU, FLUX and DESCRIPTION.

| column            | value                                              |
|-------------------|----------------------------------------------------|
| ID                | 0 ... rows - 1                                     |
| SKU               | integer, 1 to 100,000                              |
| FLUX              | float, 0 <= FLUX < 1                               |
| MANUFACTURER_NAME | MD5 of the ID, in hex                              |
| DESCRIPTION       | MD5 of an integer from 1 to 20,000, in hex, twice  |
"""

import functools
import hashlib
from collections.abc import Iterator

import numpy as np

COLUMNS = ("ID", "SKU", "FLUX", "MANUFACTURER_NAME", "DESCRIPTION")
_DESCRIPTIONS = 20_000
_MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_GAMMA = 0x9E3779B97F4A7C15
_STREAM_ROWS = 50_000


try:  # on a few bytes, CPython's own MD5 is twice as fast as OpenSSL's, which hashlib prefers
    from _md5 import md5
except ImportError:
    md5 = functools.partial(hashlib.md5, usedforsecurity=False)


@functools.cache
def _descriptions() -> list[str]:
    return [md5(b"%d" % number).hexdigest() * 2 for number in range(_DESCRIPTIONS + 1)]


def _splitmix64(seed: int, stream: int, numbers: np.ndarray) -> np.ndarray:
    """Return the output of SplitMix64 for the states seed + 3 * number + stream, as uint64."""
    state = np.uint64(seed % 2**64) + (numbers * np.uint64(3) + np.uint64(stream + 1)) * np.uint64(_GAMMA)
    state = (state ^ (state >> np.uint64(30))) * _MULTIPLIERS[0]
    state = (state ^ (state >> np.uint64(27))) * _MULTIPLIERS[1]
    return state ^ (state >> np.uint64(31))


def csv_header() -> bytes:
    """Return the header line of generated rows."""
    return ",".join(COLUMNS).encode() + b"\n"


def csv_rows(seed: int, first: int, rows: int) -> bytes:
    """Return the rows with the IDs `first` to `first + rows - 1` as ASCII CSV without a header, one line per row."""
    numbers = np.arange(first, first + rows, dtype=np.uint64)
    with np.errstate(over="ignore"):  # SplitMix64 is defined modulo 2**64
        sku = (_splitmix64(seed, 0, numbers) % np.uint64(100_000) + np.uint64(1)).tolist()
        flux = ((_splitmix64(seed, 1, numbers) >> np.uint64(11)) * 2.0**-53).tolist()
        description = (_splitmix64(seed, 2, numbers) % np.uint64(_DESCRIPTIONS) + np.uint64(1)).tolist()
    manufacturer = [md5(b"%d" % number).hexdigest() for number in range(first, first + rows)]
    texts = _descriptions()
    return "".join(
        f"{i},{s},{f!r},{m},{texts[d]}\n"
        for i, s, f, m, d in zip(range(first, first + rows), sku, flux, manufacturer, description, strict=True)
    ).encode()


def csv_stream(seed: int, rows: int) -> Iterator[bytes]:
    """Yield the whole file, beginning with the header, in pieces that fit in memory."""
    yield csv_header()
    for first in range(0, rows, _STREAM_ROWS):
        yield csv_rows(seed, first, min(_STREAM_ROWS, rows - first))
