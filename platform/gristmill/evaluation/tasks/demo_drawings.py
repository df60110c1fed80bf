"""What is in the drawing? Noun classes of the embedded drawings' test split."""

from gristmill.evaluation.embedded import open_embedded
from gristmill.evaluation.evalset import EvalSource
from gristmill.evaluation.zero_shot import ZeroShotClassification


class DemoDrawings(ZeroShotClassification):
    """Public-domain drawings of Debian's openclipart by noun (gristmill/demo/drawings/make.py)."""

    name = "Demo drawings"
    key = "demo_drawings"
    test_size = 224
    digest = "da9c741598de7ffcd96b0e3d2a850112af4412e9c4eae9f99fc06ecd76ea48a3"
    metric = "mean_per_class_recall"  # the nouns are far from equally common

    def check(self, data_root: str) -> None:
        """Without a data folder, the package has the drawings."""
        if data_root:
            super().check(data_root)

    def open(self, data_root: str) -> EvalSource:
        """The set of the data folder, or the package's."""
        return super().open(data_root) if data_root else open_embedded(self, classes=True)
