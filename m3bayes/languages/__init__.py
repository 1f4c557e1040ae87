"""Many languages at once: what more of them cost, transfer between two, and whether to start from a checkpoint."""

from m3bayes.languages.finetune import Crossover, crossover, published_crossover, with_starts
from m3bayes.languages.multilinguality import EqualLoss, equal_loss, published_equal_loss
from m3bayes.languages.transfer import PairScores, TransferScore, fit_pairs, pair_scores, transfer_score

__all__ = [
    "Crossover",
    "EqualLoss",
    "PairScores",
    "TransferScore",
    "crossover",
    "equal_loss",
    "fit_pairs",
    "pair_scores",
    "published_crossover",
    "published_equal_loss",
    "transfer_score",
    "with_starts",
]
