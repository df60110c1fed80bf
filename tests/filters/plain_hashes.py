"""The hashing of filters/_hash128.py and filters/_minhash.py, one number at a time."""

import hashlib
import re
import unicodedata

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
BASE = 0xC2B2AE3D27D4EB4F


def mix(word):
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ word >> 27) * 0x94D049BB133111EB & MASK
    return word ^ word >> 31


def stream(count, seed):
    state, found = mix(seed % (1 << 64) + GOLDEN & MASK), []
    for _ in range(count):
        state = state + GOLDEN & MASK
        found.append(mix(state))
    return found


def key(words):
    high = low = 0
    for word in words:
        high = mix(high + word + GOLDEN & MASK)
        low = mix((low ^ word) * 0xD1342543DE82EF95 + GOLDEN & MASK)
    return high, low


def words_of(text):
    text = unicodedata.normalize("NFKC", text).lower()
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return re.findall(r"[^ ]+", kept)


def shingles(text, ngram):
    words = words_of(text)
    hashes = []
    for word in words:
        digest = hashlib.blake2b(word.encode(), digest_size=16, person=b"gristmill.word").digest()
        hashes.append(int.from_bytes(digest[:8], "little"))
    size = min(ngram, len(words))
    found = set()
    for start in range(len(words) - size + 1 if words else 0):
        value = size
        for h in hashes[start : start + size]:
            value = value * BASE + h & MASK
        found.add(mix(value + GOLDEN & MASK))
    return found


def band_keys(text, *, ngram, bands, rows_per_band, seed):
    """Keys of a text; none when it has no word."""
    found = shingles(text, ngram)
    if not found:
        return []
    drawn = stream(2 * bands * rows_per_band, seed)
    factors, terms = drawn[: bands * rows_per_band], drawn[bands * rows_per_band :]
    minima = [
        min((f | 1) * x + t & MASK for x in found) for f, t in zip(factors, terms, strict=True)
    ]
    return [
        key([band, *minima[band * rows_per_band : (band + 1) * rows_per_band]])
        for band in range(bands)
    ]
