"""What is in the drawing? Noun classes of the embedded drawings' test split."""

from gristmill.evaluation.zero_shot import ZeroShotClassification


class DemoDrawings(ZeroShotClassification):
    """Public-domain drawings of Debian's openclipart by noun (gristmill/demo/drawings/make.py)."""

    name = "Demo drawings"
    key = "demo_drawings"
    metric = "mean_per_class_recall"  # the nouns are far from equally common
