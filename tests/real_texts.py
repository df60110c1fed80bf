"""Real documents from what is installed (docstrings, topics, licences, READMEs), and mutated ones."""

import ast
import functools
import random
import sysconfig
from pathlib import Path

OTHER = {
    "de": "Der Hund läuft durch den Park. Das alte Fahrrad lehnt an der Mauer, und es regnet. ",
    "fr": "Le chien court dans le parc. Le vieux port est beau au coucher du soleil ! ",
    "ru": "Коричневая собака бежит по парку. Старый велосипед стоит у кирпичной стены. ",
    "ja": "公園を走る茶色の犬の写真です。レンガの壁に立てかけた赤い自転車。",
    "hi": "कुत्ता पार्क में दौड़ रहा है। पुरानी साइकिल दीवार के पास खड़ी है। ",
    "ar": "الكلب يجري في الحديقة. هل الدراجة القديمة بجانب الجدار؟ ",
}
ODD = [
    "",
    " ",
    "\n",
    "\n\n\n",
    "x",
    "#",
    "...",
    "a b",
    "\x00\x07",
    "IS_ALPHA here",
    "word " * 400,
    "• item\n" * 40,
    "- the item of a list and more\n" * 60,
    "The end...\n" * 30,
    "A line with {a bracket} in it.\n" * 8,
    "Lorem ipsum dolor sit amet.\n" * 8,
    "See our privacy policy now.\n" * 8,
    "Please enable JavaScript to go on.\n" * 8,
    "One [1] two [edit] three [citation needed]. Four five six.[2]\n" * 4,
    "x" * 1500 + " is one long word here.\n",
    "don't won't it's 3.5 1,000 well-known e.g. U.S. http://a.invalid/b?c=d me@x.invalid\n" * 9,
    "１ １ 1 ½ ² ① ß İ ﬁ ǅ \u0301 \u200b \u2028 next \x85 last \x1c fs",
]


def _docstrings(limit):
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.glob("*.py")):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, SyntaxError):
            continue
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        for node in ast.walk(tree):
            if isinstance(node, kinds) and (text := ast.get_docstring(node)) and len(text) > limit:
                yield text


def _packages():
    root = Path(sysconfig.get_paths()["purelib"])
    for pattern in ("*.dist-info/METADATA", "*.dist-info/**/LICENSE*", "*.dist-info/**/COPYING*"):
        for path in sorted(root.glob(pattern)):
            text = path.read_text(encoding="utf-8", errors="replace")
            yield text[:40_000]


def _mutated(text, rng):
    lines = text.split("\n")
    words = text.split()
    kind = rng.randrange(10)
    if kind == 0:
        return "\n".join(line for line in lines for _ in range(rng.randrange(1, 4)))
    if kind == 1:
        return "\n".join(rng.choice("•-*") + " " + line for line in lines)
    if kind == 2:
        return " ".join(w + rng.choice(["", "", " #", " ...", "…", " |"]) for w in words)
    if kind == 3:
        part = " ".join(words[: rng.randrange(3, 30)])
        return text + "\n\n" + "\n\n".join([part] * rng.randrange(1, 9))
    if kind == 4:
        return rng.choice(list(OTHER.values())) * rng.randrange(1, 30)
    if kind == 5:
        return ". ".join(" ".join(words[i : i + 12]).capitalize() for i in range(0, len(words), 12))
    if kind == 6:
        return "\n".join(line.rstrip(".") + rng.choice(["...", ".", "!", ""]) for line in lines)
    if kind == 7:
        return "".join(rng.choice([c, c, c, c.upper(), str(rng.randrange(10))]) for c in text)
    if kind == 8:
        n = rng.randrange(2, 40)
        return " ".join(words[i % n] if rng.random() < 0.4 else w for i, w in enumerate(words))
    start = rng.randrange(len(text))
    return text[start : start + rng.randrange(20, 2000)]


@functools.lru_cache(maxsize=4)
def documents(count, seed=0):
    """`count` documents, the odd ones first, of at most 40,000 characters."""
    import pydoc_data.topics

    rng = random.Random(seed)
    plain = [*_docstrings(150), *pydoc_data.topics.topics.values(), *_packages()]
    rng.shuffle(plain)
    found = [*ODD, *(text * k for text in OTHER.values() for k in (1, 7))]
    while len(found) < count:
        text = plain[len(found) % len(plain)]
        found.append(text if rng.random() < 0.45 else _mutated(text, rng))
    return found[:count]
