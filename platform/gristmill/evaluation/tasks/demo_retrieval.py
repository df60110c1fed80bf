"""Which title belongs to which drawing? Test split of the embedded drawings."""

from gristmill.evaluation.embedded import open_embedded
from gristmill.evaluation.evalset import EvalSource
from gristmill.evaluation.retrieval import Retrieval


class DemoRetrieval(Retrieval):
    """Drawings of Debian's openclipart and their titles (gristmill/demo/drawings/make.py)."""

    name = "Demo retrieval"
    key = "demo_retrieval"
    test_size = 632
    digest = "dacc83db12f601285b3bdb81a637950e3a1e40fbe19557dc0900ccfd38e3d2d3"
    metric = "mean_recall@10"  # at 1 a model of this size finds a handful: too few to compare
    cut = 10

    def check(self, data_root: str) -> None:
        """Without a data folder, the package has the drawings."""
        if data_root:
            super().check(data_root)

    def open(self, data_root: str) -> EvalSource:
        """The set of the data folder, or the package's."""
        return super().open(data_root) if data_root else open_embedded(self, classes=False)
