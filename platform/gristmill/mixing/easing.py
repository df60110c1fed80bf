"""A proposal is eased from the expected optimum towards the natural mixture.

The optimum of a fit is chosen for its prediction, so it lies where the fit errs in its favour,
mostly at the simplex's edges, where few proxies were (the "optimizer's curse", Smith & Winkler
2006, Management Science 52). RegMix takes the mean of its best draws instead (arXiv:2407.01492,
released code), of a number that knows nothing of the fit. Here the fit says how far to go: as far
as what is given up is a small share of the expected gain, and small against the fit's own interval.
"""

import numpy as np

from gristmill.mixing.objective import Objective
from gristmill.mixing.rails import Rails
from gristmill.regressors.base import Array

STEPS = 200
INTERVAL_SHARE = 0.5
"""Most that is given up, in half widths of the optimum's 90 % interval: a fit that is sure is
hardly eased."""


def eased(
    objective: Objective,
    best: Array,
    natural: Array,
    rails: Rails,
    *,
    share: float,
    simulated: Array,
) -> Array:
    """The mixture nearest to the natural one, between both, that gives up little.

    Args:
        objective: The fit, and what is to be low.
        best: The expected optimum [domains].
        natural: The natural mixture under the same caps [domains].
        rails: Guarded targets; none is broken further.
        share: Most of the expected gain that is given up.
        simulated: The mean of the best draws [domains], which stays the worse one.
    """
    steps = np.linspace(0.0, 1.0, STEPS + 1)[:, None]
    rows = (1 - steps) * best + steps * natural
    value = objective.mean(rows)
    half = float(objective.half(best[None])[0])
    drawn = float(objective.mean(simulated[None])[0] - value[0])
    room = max(min(share * float(value[-1] - value[0]), INTERVAL_SHARE * half, drawn), 0.0)
    fine = value <= value[0] + room
    over = rails.over(rows)
    fine &= over <= over[0] + 1e-9
    ends = np.flatnonzero(~fine)
    last = int(ends[0]) - 1 if len(ends) else STEPS
    return np.asarray(rows[max(last, 0)])
