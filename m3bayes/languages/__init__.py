"""Many languages at once: what more of them cost, transfer between two or several, which sources to add, and whether to
start from a checkpoint."""

from m3bayes.languages.finetune import Crossover, crossover, published_crossover, with_starts
from m3bayes.languages.matrix import TransferMatrix, fit_targets, transfer_matrix
from m3bayes.languages.multilinguality import EqualLoss, equal_loss, published_equal_loss
from m3bayes.languages.sources import SourceRecommendation, recommend_sources
from m3bayes.languages.transfer import PairScores, TransferScore, fit_pairs, pair_scores, transfer_score

__all__ = [
    "Crossover",
    "EqualLoss",
    "PairScores",
    "SourceRecommendation",
    "TransferMatrix",
    "TransferScore",
    "crossover",
    "equal_loss",
    "fit_pairs",
    "fit_targets",
    "pair_scores",
    "published_crossover",
    "published_equal_loss",
    "recommend_sources",
    "transfer_matrix",
    "transfer_score",
    "with_starts",
]
