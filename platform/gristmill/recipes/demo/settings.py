"""The demo's settings in one place; docs/results/demo-notes.md says how they were found."""

import dataclasses

from gristmill.filters.base import Filter
from gristmill.filters.basic import Basic
from gristmill.filters.clip_score import ClipScore
from gristmill.filters.no_filter import NoFilter
from gristmill.training.scales import SCALES

ARCH = "gristmill-demo"
SCORER = dataclasses.replace(
    SCALES["demo"], train_num_samples=24_576, batch_size=128, learning_rate=2e-3
)
"""The scorer is the demo's model trained on clean pairs; not a participant, so free to differ."""
FILTERS: dict[str, Filter] = {
    "no_filter": NoFilter(),
    "basic": Basic(),
    "clip_score": ClipScore(arch="l14", fraction=0.3),
}
SHARD_SIZE = 100
"""Small, so that sampling shards with replacement mixes well."""
DEMO_RANKS = 1
