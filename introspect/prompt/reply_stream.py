"""The text of a reply while its ids are sampled: every id is decoded a bounded number of times.

What was given out never changes, and all of it together is the text of the reply's ids decoded at once. So a
piece is given out when no further id can change it. A character may be spelt by several ids, and a decoder
replaces bytes that spell none by U+FFFD in a way that depends on the bytes around them:

- A byte-level decoder joins the bytes of all ids. Behind a character that is whole it begins anew.
- A decoder that falls back on bytes reads a run of byte ids as a whole: one wrong byte, and each byte of the
  run is replaced. The run is certain when an id comes that is no byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
LONGEST_CHARACTER = 4
"""Bytes of a character in UTF-8, at most: what stands so many ids before the end is as it will stay."""
MOST_UNCERTAIN = 16
"""Ids without a whole character at their end that are decoded together before a cut is looked for in them.
Chosen, not calibrated: a larger number decodes more ids again, a smaller one looks for cuts in vain."""

Decode = Callable[[Sequence[int]], str]


class ReplyStream:
    """Ids of one reply in, its text out, and where it ends. `byte_ids` are ids that are decoded in runs.

    The methods are given all ids so far, each time with more at their end.
    """

    def __init__(self, decode: Decode, byte_ids: frozenset[int] = frozenset()) -> None:
        self._decode = decode
        self._byte_ids = byte_ids
        self._read = 0
        self._certain = 0
        self._returned = 0
        self._pieces: list[tuple[int, int]] = []
        """Of each piece that is certain and not given out: how many ids end with it, and its characters."""
        self._text = ""
        self._uncertain = ""

    def end_length(self, token_ids: Sequence[int]) -> int:
        """How many of the last ids open another message in text; 0 where the reply goes on."""
        return 0

    def take(self, token_ids: Sequence[int], finish_reason: str | None = None) -> str:
        """The text that has become certain since the last call; all that is left once the reply has ended."""
        if finish_reason is None:
            self.read(token_ids)
            return self._give_out(self._givable())
        ended = max(1, self.end_length(token_ids)) if finish_reason == "stop" else 0
        kept = len(token_ids) - ended
        text = self._decode(token_ids[self._returned : kept]) if kept > self._returned else ""
        self._returned = kept
        return text

    def read(self, token_ids: Sequence[int]) -> None:
        """Take in the ids that are new."""
        while self._read < len(token_ids):
            self._read += 1
            self._read_one(token_ids)

    def _givable(self) -> int:
        """How many of the pieces can be given out."""
        return len(self._pieces)

    def _give_out(self, count: int) -> str:
        given, self._pieces = self._pieces[:count], self._pieces[count:]
        if given:
            self._returned = given[-1][0]
        length = sum(characters for _, characters in given)
        text, self._text = self._text[:length], self._text[length:]
        return text

    def _read_one(self, token_ids: Sequence[int]) -> None:
        stop = self._read
        self._uncertain = ""
        if token_ids[stop - 1] in self._byte_ids:
            return
        decoded = self._decode(token_ids[self._certain : stop])
        if not decoded.endswith(REPLACEMENT):
            self._settle(stop, decoded)
        else:
            self._uncertain = self._cut(token_ids, decoded)

    def _settle(self, stop: int, text: str) -> None:
        """Note that the text of the ids before `stop` is certain."""
        self._certain = stop
        self._pieces.append((stop, len(text)))
        self._text += text

    def _cut(self, token_ids: Sequence[int], decoded: str) -> str:
        """Settle what is certain of many ids that end in a replaced byte; returns the text of the others."""
        start, stop = self._certain, self._read
        if stop - start < MOST_UNCERTAIN:
            return decoded
        for cut in range(stop - LONGEST_CHARACTER, start, -1):
            head, tail = self._decode(token_ids[start:cut]), self._decode(token_ids[cut:stop])
            # Where a cut falls into a character, or into bytes that are replaced together, the halves differ.
            if head + tail == decoded:
                self._settle(cut, head)
                return tail
        return decoded
