"""Filters for documents against datatrove's, one core each, in turns in one run."""

import statistics
import sys
import time
from pathlib import Path

DOCUMENTS = 1500
RUNS = 3
PAIRS = [
    ("gopher_quality", "GopherQualityFilter", "words"),
    ("gopher_repetition", "GopherRepetitionFilter", "words"),
    ("c4_quality", "C4QualityFilter", "sentences"),
    ("fineweb_quality", "FineWebQualityFilter", "words"),
]


def run(out, heading):
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from real_texts import documents

    texts = [t for t in documents(DOCUMENTS + 40)[40:]]
    size = sum(len(t.encode()) for t in texts)
    lines = [heading("Filters for documents", "make bench").rstrip(), ""]
    lines += [
        f"{len(texts):,} documents of {size / len(texts):,.0f} bytes on average (docstrings, licences, "
        "READMEs, and mutated ones with many repeats), one core each side, median of "
        f"{RUNS} runs in turns. datatrove's documents are made beforehand; its words are cut anew for "
        "each filter, as ours are. `same verdict` is the share of documents on which our plain words "
        "lead to the verdict (kept or dropped) of spaCy's; with `spacy` they are the same on all.",
        "",
        "| filter | datatrove, docs/s | ours, docs/s | ratio | ours with spacy | ratio | same verdict |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for pair in PAIRS:
        lines.append(_row(texts, *pair))
    lines += [
        "",
        "What bounds each: datatrove and our spacy side, spaCy's tokenizer. Ours with plain words: "
        "gopher_repetition sorts the hashes of nine sizes of n-grams; gopher_quality reads each "
        "character once from a table; the other two split lines in Python; language is fastText "
        "itself, which hashes every character n-gram of the whole text.",
        "",
        *_alone(texts, out),
    ]
    return "\n".join(lines) + "\n"


def _row(texts, name, theirs, field):
    from gristmill.core import plugins
    from gristmill.filters.base import Filter

    kind = plugins.find("gristmill.filters", name, Filter)
    plain, spacy = kind(), kind(**{field: "spacy"})
    seconds = {"theirs": [], "plain": [], "spacy": []}
    verdicts = {}
    for _ in range(RUNS):
        for side, action in [
            ("theirs", lambda: _datatrove(theirs, texts)),
            ("plain", lambda: _ours(plain, texts)),
            ("spacy", lambda: _ours(spacy, texts)),
        ]:
            time_taken, verdicts[side] = action()
            seconds[side].append(time_taken)
    rate = {side: len(texts) / statistics.median(found) for side, found in seconds.items()}
    pairs = zip(verdicts["theirs"], verdicts["plain"], strict=True)
    same = sum(a == b for a, b in pairs) / len(texts)
    assert verdicts["theirs"] == verdicts["spacy"]
    a, b, c = rate["theirs"], rate["plain"], rate["spacy"]
    return f"| {name} | {a:,.0f} | {b:,.0f} | {b / a:.1f} | {c:,.0f} | {c / a:.2f} | {100 * same:.1f} % |"


def _ours(chosen, texts):
    import pyarrow as pa

    chosen.setup()
    table = pa.table({"text": pa.array(texts, pa.string())})
    start = time.perf_counter()
    verdict = chosen.judge(table)
    return time.perf_counter() - start, (verdict == 0).tolist()


def _datatrove(name, texts):
    from datatrove.data import Document
    from datatrove.pipeline import filters
    from datatrove.utils.text import split_into_parts

    chosen = getattr(filters, name)()
    rows = [Document(text=text, id="0") for text in texts]
    chosen.filter(Document(text="A word to make the tokenizer ready.", id="0"))
    split_into_parts.cache_clear()
    start = time.perf_counter()
    kept = [chosen.filter(row) is True for row in rows]
    return time.perf_counter() - start, kept


def _alone(texts, out):
    """Those without a counterpart that works offline."""
    from gristmill.filters.language import Language
    from gristmill.filters.ngram_decontaminate import NgramDecontaminate

    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.txt").write_text(" ".join(texts[0].split()[:500]))
    lines = ["| filter | docs/s | MB/s |", "| --- | --- | --- |"]
    size = sum(len(t.encode()) for t in texts) / 1e6
    for name, chosen in [
        ("language", Language()),
        ("ngram_decontaminate", NgramDecontaminate(evaluation=str(out / "evaluation.txt"))),
    ]:
        taken = statistics.median(_ours(chosen, texts)[0] for _ in range(RUNS))
        lines.append(f"| {name} | {len(texts) / taken:,.0f} | {size / taken:.1f} |")
    return lines
