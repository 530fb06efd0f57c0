"""Large plain JSON by msgspec, where that is installed (the extra ``fast``).

It takes a quarter of the standard library's time. What it would alter or refuse is left to the
standard library: msgspec writes floats that are not finite as null, takes no lone surrogates, and
reads neither NaN nor numbers beyond the largest float. So a peer that has it cannot be told from
one that has not.
"""
from __future__ import annotations

import json
from math import isfinite
from typing import Any, Callable, Collection, Iterable, List, NamedTuple, Optional, Set, Type

from .memo import Memo

# Values, and bytes of text, from which on it is worth its import, which takes 20 ms once.
MANY, LARGE = 512, 4000

# Values that a version of msgspec must not alter. Its documentation does not say which ones do.
_PROOF: List[Any] = [
    None, True, False, 0, -1, 2 ** 53 + 1, 2 ** 64, -2 ** 70, 10 ** 600, 1.0, -0.0, 0.1, 1e16,
    1e300, 5e-324, "", "a", "\x00\x1f\x7f\\\"/", "\u00e9\u2028\U0001f600", [], {},
    {"": [[{"a": {}}]], "\u00e9": 1}]
_SPACE = b" \t\n\r"


class Codec(NamedTuple):
    """The encoder and the decoder of msgspec.

    :ivar problem: the class of its errors.
    """

    encoder: Callable[[Any], bytes]
    decoder: Callable[[bytes], Any]
    problem: Type[Exception]

    def encode(self, value: Any) -> str:
        """The JSON text of a value that is plain, with finite floats.

        :raises ValueError: it holds lone surrogates, or a number of too many digits.
        """
        return self.encoder(value).decode("utf-8")

    def decode(self, text: bytes) -> Any:
        """The value of a JSON text.

        :raises ValueError: it has none, or only the standard library can read it.
        """
        if text[:1] in _SPACE or text[-1:] in _SPACE:
            raise ValueError("white space around the value")
        try:
            return self.decoder(text)
        except self.problem as reason:
            raise ValueError(str(reason)) from None

    def shared(self, keys: Collection[bytes]) -> Set[bytes]:
        """Those keys for which all objects of a text share one string. The standard library shares
        one for each key, msgspec only for short ones in ASCII, and not for all of these."""
        ordered = list(keys)
        text = b"[%b]" % b",".join([b'{"%b":0}' % key for key in ordered])
        try:
            first, second = self.decode(text), self.decode(text)
        except ValueError:  # they are no texts of JSON
            return set()
        return {key for key, one, other in zip(ordered, first, second)
                if next(iter(one)) is next(iter(other))}


def _find(_key: None) -> Optional[Codec]:
    try:
        import msgspec
    except ImportError:
        return None
    codec = Codec(msgspec.json.Encoder().encode, msgspec.json.Decoder().decode,
                  msgspec.MsgspecError)
    try:
        kept = [codec.decode(json.dumps(_PROOF).encode("ascii")), json.loads(codec.encode(_PROOF))]
    except ValueError:
        return None
    return codec if list(map(repr, kept)) == [repr(_PROOF)] * 2 else None


_found = Memo(_find, 1)


def codec() -> Optional[Codec]:
    """msgspec, loaded at the first call; None where it is not installed, or alters values."""
    found: Optional[Codec] = _found[None]
    return found


def all_finite(levels: Iterable[List[Any]]) -> bool:
    """Whether no float in these lists is infinite or not a number. May be False, too, if the floats
    are huge."""
    return all([isfinite(sum([value for value in level if type(value) is float]))
                for level in levels])
