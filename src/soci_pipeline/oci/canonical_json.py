"""JSON exactly as Go's encoder writes it, because the digests of manifests depend on every byte.

Go's ``encoding/json`` writes compact JSON, keeps struct order, sorts the keys of maps, and escapes ``<``, ``>``, ``&``,
U+2028 and U+2029 (https://pkg.go.dev/encoding/json#Marshal). It replaces lone surrogates, which JSON can escape but
UTF-8 cannot encode, with U+FFFD.
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
    """Encode as compact JSON in the mapping's key order, without a final newline."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _HALF_PAIR.sub("\ufffd", text.translate(_TABLE)).encode()


def sorted_map(values: Mapping[str, str]) -> dict[str, str]:
    """Return a string map sorted as Go writes it: by the UTF-8 bytes of the keys."""
    return dict(sorted(values.items(), key=lambda item: item[0].encode(errors="surrogatepass")))
