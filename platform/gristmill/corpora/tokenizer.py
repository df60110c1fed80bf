"""Tokenizers: a Hugging Face tokenizer.json, its end token, and the hash that pins it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core import io
from gristmill.core.errors import BadInputError, CorruptDataError, MissingExtraError

FILE = "tokenizer.json"
END_TOKENS = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>", "[SEP]")
"""What tokenizers call the token that ends a document, tried in this order."""
VOLATILE = ("truncation", "padding")
"""Settings of a tokenizer.json that we switch off, so they do not count in its hash."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What pins token ids: two corpora with equal hashes mean the same by the same numbers."""

    sha256: str
    """Of the tokenizer.json, less padding and truncation."""
    size: int
    """Ids are below it."""
    end_token: str
    """Ends every document."""
    end_id: int

    @property
    def dtype(self) -> "np.dtype[Any]":
        """The narrowest integer that holds an id."""
        return np.dtype("<u2" if self.size <= 1 << 16 else "<u4")


class DocumentTokenizer:
    """Turns texts to ids; every document ends with the end token."""

    def __init__(self, text: str, end_token: str = "", *, name: str = FILE) -> None:
        """Make it from the text of a tokenizer.json.

        Args:
            text: The JSON.
            end_token: The token that ends a document. Empty: the first known one it has.
            name: For messages.

        Raises:
            BadInputError: It is no tokenizer, or lacks the end token.
        """
        try:
            import tokenizers
        except ImportError as error:
            raise MissingExtraError("tokenizers", "lm") from error

        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise BadInputError(f"{io.redact(name)} is not a tokenizer.json: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # "<|endoftext|>" inside a document is text that mentions it, not an end.
        self._tokenizer.encode_special_tokens = True
        end = end_token or next((t for t in END_TOKENS if self._id(t) is not None), "")
        if not end or self._id(end) is None:
            said = f"no token {end_token!r}" if end_token else f"none of {', '.join(END_TOKENS)}"
            raise BadInputError(
                f"{io.redact(name)} has {said} to end a document with; name one with --end-token"
            )
        self.vocabulary = Vocabulary(
            sha256=content_hash(text), size=self._size(), end_token=end, end_id=int(self._id(end))
        )

    def _id(self, token: str) -> Any:
        return self._tokenizer.token_to_id(token)

    def _size(self) -> int:
        """Ids may have gaps: the greatest counts."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, texts: Sequence[str]) -> list[npt.NDArray[Any]]:
        """The ids of each text, the end token last."""
        dtype, end = self.vocabulary.dtype, self.vocabulary.end_id
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array([*encoding.ids, end], dtype) for encoding in found]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens too."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))


def read_tokenizer(uri: str) -> str:
    """The text of a tokenizer.json, given the file or a folder with it.

    Raises:
        BadInputError: There is none.
        CorruptDataError: It is not text.
    """
    where = uri if uri.endswith(".json") else io.join(uri, FILE)
    if not io.exists(where):
        raise BadInputError(
            f"no {FILE} at {io.redact(uri)}: give the file or its folder, or make one with "
            "gristmill corpus train-tokenizer"
        )
    try:
        return io.read_bytes(where).decode()
    except UnicodeDecodeError as error:
        raise CorruptDataError(f"{io.redact(where)} is not UTF-8: {error}") from error


def content_hash(text: str) -> str:
    """64 hex digits of what a tokenizer.json means, however it is spaced and ordered.

    Raises:
        BadInputError: It is not JSON.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BadInputError(f"the tokenizer is not JSON: {error}") from error
    kept = {key: value for key, value in data.items() if key not in VOLATILE}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
