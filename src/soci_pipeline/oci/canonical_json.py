"""JSON exactly as Go's encoder writes it, since the digests of manifests depend on every byte.

Go's ``encoding/json`` writes compactly, keeps struct order, sorts the keys of maps, and escapes ``<``, ``>``, ``&``,
U+2028 and U+2029 (https://pkg.go.dev/encoding/json#Marshal). Half a surrogate pair, which JSON can spell and no text
can hold, is U+FFFD to it.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}
_TABLE = str.maketrans(_ESCAPES)
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def encode(value: Mapping[str, Any]) -> bytes:
    """Compact JSON without a final newline; key order is the mapping's own."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _HALF_PAIR.sub("\ufffd", text.translate(_TABLE)).encode()


def sorted_map(values: Mapping[str, str]) -> dict[str, str]:
    """A string map in the order in which Go writes it: by the keys' UTF-8 bytes."""
    return dict(sorted(values.items(), key=lambda item: item[0].encode(errors="surrogatepass")))
