"""Makes the tables beside gristmill/filters/_wordnet.py from WordNet 3.0 and ImageNet-21k's list.

    apt-get download wordnet-base && dpkg-deb -x wordnet-base*.deb x
    PYTHONPATH=platform python tests/filters/make_wordnet_tables.py x/usr/share/wordnet FOLDER

FOLDER is platform/gristmill/filters to replace the committed ones. The list is
timm/data/_info/imagenet21k_goog_synsets.txt of the installed timm: n and a WordNet 3.0 offset a line.
"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.filters import _wordnet as w

PARTS = ("noun", "verb", "adj", "adv")


def listed_offsets():
    import timm

    path = Path(timm.__file__).parent / "data" / "_info" / "imagenet21k_goog_synsets.txt"
    return {int(line[1:]) for line in path.read_text().split()}


def read_index(folder, part):
    """Lemma to the offset of its first sense, checked against the data file."""
    data = (Path(folder) / f"data.{part}").read_bytes()
    found = {}
    for line in (Path(folder) / f"index.{part}").read_text("utf-8").splitlines():
        if line.startswith(" "):  # the licence
            continue
        fields = line.split()
        pointers = int(fields[3])
        first = fields[6 + pointers]
        assert data[int(first) : int(first) + 9] == f"{first} ".encode(), line
        found[fields[0]] = int(first)
    return found


def read_exceptions(folder, part):
    """Irregular form to its bases; of two lines on one form the last counts, as in NLTK."""
    lines = (Path(folder) / f"{part}.exc").read_text("utf-8").splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines}


def states(lemmas, exceptions, listed):
    """What each word is in one part of speech."""
    found = {}
    for form, bases in exceptions.items():
        known = [base for base in bases if base in lemmas]
        if not known:
            found[form] = w.NOWHERE
        else:
            found[form] = w.IRREGULAR_LISTED if lemmas[known[0]] in listed else w.IRREGULAR
    for lemma, offset in lemmas.items():
        found[lemma] = w.LEMMA_LISTED if offset in listed else w.LEMMA
    return found


def codes(folder, listed):
    """Word to code, sorted."""
    merged = {}
    for i, part in enumerate(PARTS):
        of_part = states(read_index(folder, part), read_exceptions(folder, part), listed)
        for word, state in of_part.items():
            merged[word] = merged.get(word, 0) | state << w.BITS * i
    assert max(map(len, merged)) == w.LONGEST
    return dict(sorted(merged.items()))


def write(table, path):
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=22,
        use_dictionary=["code"],
        column_encoding={"word": "DELTA_BYTE_ARRAY"},
        write_statistics=False,
        store_schema=False,
        data_page_size=1 << 22,
    )


def main(source, target):
    found = codes(source, listed_offsets())
    for name, phrases in zip(w.TABLES, (False, True), strict=True):
        some = {word: code for word, code in found.items() if ("_" in word) == phrases}
        columns = {"word": list(some), "code": pa.array(some.values(), pa.uint16())}
        write(pa.table(columns), Path(target) / name)


if __name__ == "__main__":
    main(*sys.argv[1:])
