"""How well a posterior predicts runs it was not fitted to: numbers only.

What a new run of recipe x measures is a mixture over the posterior's draws d,

    log L_new = log L_d(x) + s_d(x) t_d,   t_d ~ StudentT(nu_d) or Normal(0, 1)

| symbol | meaning |
|---|---|
| L_d(x) | loss of the mean surface in draw d, in the unit of the table |
| s_d(x) | scatter of log loss in draw d: sigma_d, with known standard errors sqrt(sigma_d^2 + (se / L_d)^2) |
| t_d | one value a draw, stratified: see :mod:`m3bayes.inference.new_run` |

Densities and probabilities are exact mixtures; intervals and CRPS are those of one stratified value a draw,
as in :func:`m3bayes.predict`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import special

from m3bayes.inference import new_run
from m3bayes.inference.posterior import Posterior
from m3bayes.inference.predict import loss_draws
from m3bayes.recipe import recipe_columns
from m3bayes.runs import Runs

LEVELS = (0.5, 0.9, 0.95)
BINOMIAL = 0.95  # probability of the range that a count of covered runs is compared with

OfRuns = Float[np.ndarray, " run"]


@dataclass(frozen=True, eq=False)
class Predictive:
    """The mixture of each run, as above: ``log_loss`` log L_d, ``scale`` s_d, ``t`` and ``nu`` (None = normal)."""

    log_loss: Float[np.ndarray, "draw run"]
    scale: Float[np.ndarray, "draw run"]
    t: Float[np.ndarray, " draw"]
    nu: Float[np.ndarray, " draw"] | None

    @property
    def loss_mean(self) -> OfRuns:
        """Mean of the surface over the draws, the point prediction."""
        return np.exp(self.log_loss).mean(axis=0)

    @property
    def draws(self) -> Float[np.ndarray, "draw run"]:
        """Log losses of new runs, one a draw."""
        return self.log_loss + self.scale * self.t[:, None]

    def interval(self, level: float | int) -> tuple[OfRuns, OfRuns]:
        """Ends of the equal-tailed interval of the loss of a new run."""
        lower, upper = np.quantile(self.draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return np.exp(lower), np.exp(upper)

    def log_density(self, loss: OfRuns) -> OfRuns:
        """Log density of a new run's loss, a loss: it shifts by -log a where losses are multiplied by a."""
        from scipy import stats  # takes half a second, which fits have no use for

        z = self._standardised(loss)
        each = stats.norm.logpdf(z) if self.nu is None else stats.t.logpdf(z, self.nu[:, None])
        of_log_loss = special.logsumexp(each - np.log(self.scale), axis=0) - np.log(len(self.t))
        return of_log_loss - np.log(loss)

    def probability_below(self, loss: OfRuns) -> OfRuns:
        """Probability that a new run's loss is lower: uniform over runs where the posterior is right."""
        z = self._standardised(loss)
        each = special.ndtr(z) if self.nu is None else special.stdtr(self.nu[:, None], z)
        return each.mean(axis=0)

    def _standardised(self, loss: OfRuns) -> Float[np.ndarray, "draw run"]:
        return (np.log(loss) - self.log_loss) / self.scale


@dataclass(frozen=True)
class Scores:
    """Scores of the predictions of some runs; tables call them by these names.

    ``R2``            of log loss: 1 - sum of squared errors / sum of squares about the mean of these runs;
                      NaN where their losses are all the same
    ``RMSE_log``, ``RMSE``  root mean square error of log loss and of loss (table's unit)
    ``MAPE``          mean of |predicted / measured - 1|
    ``coverage_50``, ``_90``, ``_95``  share of the runs inside their interval of that level
    ``coverage_90_low``, ``_high``  where that share lies with 95 % probability if 90 % is right
    ``width_90``      mean width of the 90 % interval, in log loss
    ``crps``          continuous ranked probability score of log loss, mean over runs
    ``elpd``          sum of the log predictive densities of the losses (table's unit); higher is better
    """

    R2: float
    RMSE_log: float
    RMSE: float
    MAPE: float
    coverage_50: float
    coverage_90: float
    coverage_95: float
    coverage_90_low: float
    coverage_90_high: float
    width_90: float
    crps: float
    elpd: float


def predictive(post: Posterior, runs: Runs) -> Predictive:
    """The predictive distribution of new runs of the recipes of ``runs``, in the units that were fitted.

    Raises RecipeError where a column is missing that the law reads, LawError for losses that are no losses.
    """
    columns = recipe_columns(runs, post.law.columns)
    noise = new_run.scatter(post, columns, runs.frame())
    log_loss = np.log(loss_draws(post, runs))
    scale = np.sqrt(noise.sigma[noise.group].T ** 2 + (noise.se * np.exp(-log_loss)) ** 2)
    nu = post.draws["nu"].reshape(-1) if post.noise.kind == "student-t" else None
    return Predictive(log_loss, scale, noise.t, nu)


def score(found: Predictive, loss: OfRuns) -> Scores:
    """Compare predictions with measured losses."""
    predicted, log_loss = found.loss_mean, np.log(loss)
    error = log_loss - np.log(predicted)
    about_mean = np.sum((log_loss - log_loss.mean()) ** 2)
    ends = {level: found.interval(level) for level in LEVELS}
    covered = {
        level: float(np.mean((lower <= loss) & (loss <= upper))) for level, (lower, upper) in ends.items()
    }
    low, high = binomial_range(len(loss), 0.9)
    return Scores(
        R2=float(1 - np.sum(error**2) / about_mean) if np.ptp(loss) > 0 else np.nan,
        RMSE_log=float(np.sqrt(np.mean(error**2))),
        RMSE=float(np.sqrt(np.mean((loss - predicted) ** 2))),
        MAPE=float(np.mean(np.abs(predicted / loss - 1))),
        coverage_50=covered[0.5],
        coverage_90=covered[0.9],
        coverage_95=covered[0.95],
        coverage_90_low=low,
        coverage_90_high=high,
        width_90=float(np.mean(np.log(ends[0.9][1] / ends[0.9][0]))),
        crps=float(np.mean(crps(found.draws, log_loss))),
        elpd=float(np.sum(found.log_density(loss))),
    )


def crps(draws: Float[np.ndarray, "draw run"], measured: OfRuns) -> OfRuns:
    """Continuous ranked probability score of the distribution of the draws, each run its own (lower is better).

    E|X - y| - E|X - X'| / 2 with X, X' independent draws; the second term from the sorted draws (Gneiting and
    Raftery 2007, equation 21, for an empirical distribution).
    """
    n = len(draws)
    weights = (2 * np.arange(1, n + 1) - n - 1) / n**2
    return np.mean(np.abs(draws - measured), axis=0) - weights @ np.sort(draws, axis=0)


def binomial_range(n: int, level: float | int) -> tuple[float, float]:
    """Central region, as shares of n, that holds Binomial(n, level) / n with 95 % probability or more."""
    from scipy import stats  # slow to import

    low, high = stats.binom.interval(BINOMIAL, n, level)
    return float(low) / n, float(high) / n
