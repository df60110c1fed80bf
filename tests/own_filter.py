"""A participant's own filter, as docs/guides/add-a-filter.md shows it."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from gristmill.filters.base import Filter


@dataclass(frozen=True, kw_only=True)
class ShortCaption(Filter):
    """Keeps captions of at most `longest` characters."""

    longest: int = 50

    @property
    def columns(self):
        return ("text",)

    @property
    def reasons(self):
        return ("caption_long",)

    def judge(self, batch):
        lengths = pc.fill_null(pc.utf8_length(batch["text"]), 0).to_numpy()
        return np.where(lengths > self.longest, 1, 0).astype(np.int8)
