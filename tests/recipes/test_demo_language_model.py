"""The demo's language model on a tiny corpus; `make demo` runs it on the embedded one."""

import pytest
from lm_world import write_corpus

from gristmill.core.errors import BadInputError
from gristmill.core.io import read_json
from gristmill.core.run import Run
from gristmill.corpora.mixture import Mixture
from gristmill.recipes.demo import language_model, page
from gristmill.recipes.demo.track import DemoJob


@pytest.mark.ray
@pytest.mark.long
def test_it_trains_on_the_mixture_found_and_prints_texts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(language_model, "STEPS", 4)
    (tmp_path / "text" / "tokens").mkdir(parents=True)
    write_corpus(tmp_path / "text" / "tokens")
    found = {"bread": 0.75, "mills": 0.25}
    Mixture(weights=found).save(str(tmp_path / "text" / "search" / "mixture.json"))
    run = Run(str(tmp_path))
    said = language_model.train(run, seed=0, address="", searched=True)
    assert read_json(str(tmp_path / "lm" / "train" / "config.json"))
    ledger = read_json(str(tmp_path / "lm" / "train" / "ledger.json"))
    drawn = {n: entry["sequences"] for n, entry in ledger["realised"]["domains"].items()}
    assert drawn == {"bread": 12, "mills": 4}
    assert list(said["texts"]) == list(language_model.PROMPTS)
    printed = capsys.readouterr().out
    assert all(text and text in printed for text in said["texts"].values())
    assert "4,096 tokens" in language_model.line(said)
    shown = page.start(("lm",))
    language_model.write(shown, said)
    assert "lm/train/report.html" in shown.html() and "#include" in shown.html()
    language_model.train(run, seed=0, address="", searched=True)  # finds it done


def test_tracks_are_named_once():
    with pytest.raises(BadInputError, match="some of clip, mix and lm"):
        DemoJob(tracks=("lm", "lm"))
    assert "language model" in DemoJob(tracks=("lm",)).plan().text()
