"""Which title belongs to which drawing? Test split of the embedded drawings."""

from gristmill.evaluation.retrieval import Retrieval


class DemoRetrieval(Retrieval):
    """Drawings of Debian's openclipart and their titles (gristmill/demo/drawings/make.py)."""

    name = "Demo retrieval"
    key = "demo_retrieval"
    metric = "mean_recall@10"  # at 1 a model of this size finds a handful: too few to compare
    cut = 10
