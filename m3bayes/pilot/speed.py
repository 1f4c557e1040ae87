"""How fast this device trains a shape, measured: for the hours that a plan would take."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd

from m3bayes.pilot.model import SHAPES, Shape
from m3bayes.pilot.plan import plan_cost
from m3bayes.pilot.stream import SourceText, StageWindows, stream
from m3bayes.pilot.train import BATCH, CONTEXT, Job, train

STEPS = 64


def tokens_a_second(shape: Shape, vocabulary: int) -> float:
    """Training tokens a second of one run by itself, from a few steps on random tokens, compilation left out."""
    tokens = np.random.default_rng(0).integers(vocabulary, size=CONTEXT * BATCH + 1).astype(np.uint32)
    windows = STEPS * BATCH

    def run() -> float:
        order = stream([StageWindows(windows, windows)], len(tokens), [SourceText(0)], CONTEXT, 0)
        begun = time.perf_counter()
        train(shape, vocabulary, [Job(order, tokens, tokens, seed=0, rate=1e-3)])
        return time.perf_counter() - begun

    run()
    return windows * CONTEXT / min(run() for _ in range(2))


def hours(plan: pd.DataFrame, vocabulary: int, workers: int) -> float:
    """Hours for the runs of a plan, were they spread evenly over ``workers`` that do not slow each other."""
    if not len(plan):
        return 0.0
    cost = plan_cost(plan)["tokens"].to_numpy()
    seconds = 0.0
    for shape in SHAPES:
        tokens = float(cost[plan["params"].to_numpy() == shape.params].sum())
        seconds += tokens / tokens_a_second(shape, vocabulary) if tokens else 0.0
    return seconds / workers / 3600
