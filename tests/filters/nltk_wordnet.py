"""The measure of gristmill/filters/_wordnet.py: NLTK on Debian's WordNet 3.0.

    python tests/filters/nltk_wordnet.py x/usr/share/wordnet   # writes wordnet_expected.json anew

with nltk==3.8.1, the version that DataComp pins, and the folder as in make_wordnet_tables.py.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from make_wordnet_tables import listed_offsets

TABLE = Path(__file__).with_name("wordnet_expected.json")
DEBIAN = Path("usr/share/wordnet")
ENDINGS = (
    *("s", "es", "ies", "ses", "ves", "xes", "zes", "ches", "shes", "men", "ed", "ing", "er", "est"),
    *("ings", "ers", "ests", "eds", "ss", "sss", "'s", "s's", "-like", "ly", "y", ",", ".", "!", ")"),
    *("inging", "eded", "erer", "estest", "sing", "sed"),
)  # fmt: skip
ODD = (
    *("İstanbul", "ſ", "ß", "DOGſ", "\u212aing", "ŒUVRES", "Å", "K", "_", "__", "'s", "s", "es", "ing"),
    *("Dogs", "dogss", "feet", "oxens", "men", "firemen", "ice_cream", "ICE_CREAMS", "собака", "犬"),
)  # fmt: skip


FRAMES = (
    "this is what we would expect of them",
    "how they could become so very different",
    "il est avec nous pour toujours",
    "und wir sind auch noch dabei gewesen",
)
"""Sentences without a thing in them, for tests that build captions around words of the table."""


def debian_folder(target):
    """WordNet of Debian's wordnet-base: installed, or downloaded and unpacked; None if neither."""
    if (Path("/") / DEBIAN / "index.noun").exists():
        return Path("/") / DEBIAN
    if not shutil.which("apt-get"):
        return None
    got = subprocess.run(["apt-get", "download", "wordnet-base"], cwd=target, capture_output=True)
    if got.returncode:
        return None
    (package,) = Path(target).glob("wordnet-base*.deb")
    subprocess.run(["dpkg-deb", "-x", package.name, "x"], cwd=target, check=True)
    return Path(target) / "x" / DEBIAN


class Measure:
    """NLTK's answers, as DataComp asks for them."""

    def __init__(self, folder, work):
        import nltk.data
        from nltk.corpus.reader.wordnet import WordNetCorpusReader

        class Reader(WordNetCorpusReader):
            def map_wn(self, *args, **kwargs):
                """None: the map to other versions wants files that Debian has not."""

        copy = Path(work) / "wordnet"
        shutil.copytree(folder, copy)
        lexnames = [f"{number:02d}\tfile{number}\t1\n" for number in range(45)]
        (copy / "lexnames").write_text("".join(lexnames))
        nltk.data.path.append(str(copy))  # newer versions read nowhere else
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.reader = Reader(str(copy), None)
        self.listed = listed_offsets()
        self.lemmas = sorted(self.reader._lemma_pos_offset_map)
        self.irregular = sorted(set().union(*self.reader._exception_map.values()))
        self.repeats_rules = bool(self.reader._morphy("dogss", "n"))

    def is_entity(self, word):
        synsets = self.reader.synsets(word)
        return bool(synsets) and synsets[0].offset() in self.listed

    def wants_repeats(self, word):
        """Whether rules would have to be applied twice, which newer versions do not do."""
        form = word.lower()
        for part in "nvar":
            irregular = self.reader._exception_map[part]
            rules = self.reader.MORPHOLOGICAL_SUBSTITUTIONS[part]
            once = [form[: -len(a)] + b for a, b in rules if form.endswith(a)]
            known = self.reader._lemma_pos_offset_map
            if any(part in known.get(base, ()) for base in [form, *irregular.get(form, once)]):
                return False  # this part of speech answers at once
            if form not in irregular and once:
                return True
        return False

    def surface_forms(self, bases, seed):
        """Words as captions have them: inflected, capital, with punctuation, joined, made up."""
        rng = random.Random(seed)
        things = [lemma for lemma in self.lemmas if self.is_entity(lemma)]
        some = rng.sample(self.lemmas, bases) + rng.sample(things, bases)
        some += rng.sample(self.irregular, bases // 10)
        for base in some:
            for ending in rng.sample(ENDINGS, 4):
                yield base + ending
                yield base[:-1] + ending
            yield from (base.upper(), base.title(), "(" + base, base.replace("_", "-"), base[:-1])
            yield base + base[-1] + rng.choice(("ing", "ed", "er"))
            yield base + rng.choice(some)
            yield "".join(rng.choices("abcdeginrstmvxzhoy", k=rng.randint(1, 8)))
            yield "".join(rng.choices("sedingrt", k=rng.randint(1, 7)))


def main(folder):
    with tempfile.TemporaryDirectory() as work:
        measure = Measure(folder, work)
        assert measure.repeats_rules, "this NLTK is too new: pip install nltk==3.8.1"
        rng = random.Random(1)
        words = {*ODD, *rng.sample(measure.lemmas, 800), *rng.sample(measure.irregular, 300)}
        words.update(measure.surface_forms(80, seed=1))
        words.update(" ".join(FRAMES).split())
        answers = {word: measure.is_entity(word) for word in sorted(words - {""})}
    TABLE.write_text(json.dumps(answers, indent=0, ensure_ascii=False) + "\n", "utf-8")


def expected():
    """Word to NLTK 3.8.1's answer, of a few thousand words."""
    return json.loads(TABLE.read_text("utf-8"))


if __name__ == "__main__":
    main(*sys.argv[1:])
