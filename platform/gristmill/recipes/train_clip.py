"""One recipe a scale: everything fixed but the data."""

import tyro

from gristmill.training.job import TrainClipJob
from gristmill.training.scales import SCALES


def demo() -> TrainClipJob:
    """A small model on 64-pixel pictures: minutes on a laptop's CPU; not one of DataComp's."""
    return TrainClipJob(scale=SCALES["demo"], data=tyro.MISSING, out=tyro.MISSING, loader_workers=1)


def debug() -> TrainClipJob:
    """ViT-B-32, 128 k samples seen: does everything work?"""
    return TrainClipJob(scale=SCALES["debug"], data=tyro.MISSING, out=tyro.MISSING)


def small() -> TrainClipJob:
    """ViT-B-32, 12.8 M samples seen."""
    return TrainClipJob(scale=SCALES["small"], data=tyro.MISSING, out=tyro.MISSING)


def medium() -> TrainClipJob:
    """ViT-B-32, 128 M samples seen."""
    return TrainClipJob(scale=SCALES["medium"], data=tyro.MISSING, out=tyro.MISSING)


def large() -> TrainClipJob:
    """ViT-B-16, 1.28 G samples seen."""
    return TrainClipJob(scale=SCALES["large"], data=tyro.MISSING, out=tyro.MISSING)


def xlarge() -> TrainClipJob:
    """ViT-L-14, 12.8 G samples seen."""
    return TrainClipJob(scale=SCALES["xlarge"], data=tyro.MISSING, out=tyro.MISSING)
