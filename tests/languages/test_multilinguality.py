"""What more languages cost: against the law itself, the cheapest recipes, published numbers and a known truth."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from m3bayes.errors import LawError, M3BayesError, Note
from m3bayes.inference.fit import fit
from m3bayes.inference.simulate import simulate
from m3bayes.languages import equal_loss, published_equal_loss
from m3bayes.laws import chinchilla, multilingual
from tests.languages.designs import MULTILINGUAL, by_hand, multilingual_runs

RUNS = multilingual_runs()
POST = by_hand(multilingual(), MULTILINGUAL, RUNS)


def naive_loss(c, K, N, D):
    return c["E"] + c["A"] * K ** c["phi"] / N ** c["alpha"] + c["B"] * K ** c["psi"] / D ** c["beta"]


def test_the_loss_stays_what_it_was_in_every_draw():
    found = equal_loss(POST, 5)
    size, tokens = (5.0 ** found.exponents[name].draws for name in ("params", "tokens"))
    c = POST.coefficients
    before, after = naive_loss(c, 3, 2e8, 4e9), naive_loss(c, 15, 2e8 * size, 4e9 * tokens / 5)
    np.testing.assert_allclose(after, before, rtol=1e-12)
    assert found.exponents["compute"].draws == pytest.approx(np.log(size * tokens) / np.log(5))


def test_bands_are_quantiles_over_the_draws():
    found = equal_loss(POST, [2, 4], ci=0.8)
    c = POST.coefficients
    for row, rho in enumerate((2.0, 4.0)):
        factors = np.sort(rho ** (1 + c["psi"] / c["beta"] + c["phi"] / c["alpha"]))
        here = found.table.iloc[row]
        assert here["times"] == rho
        got = [here[f"compute{end}"] for end in ("_lower", "", "_upper")]
        assert got == pytest.approx([factors[39], factors[199], factors[359]])
    assert found.notes == ()


def test_the_cheapest_recipe_moves_by_the_same_factors():
    c = {name: float(values[0]) for name, values in POST.coefficients.items()}
    wanted = 2.6

    def tokens_for(K: float, log_N: float) -> float:
        rest = wanted - c["E"] - c["A"] * K ** c["phi"] / np.exp(log_N) ** c["alpha"]
        return (c["B"] * K ** c["psi"] / rest) ** (1 / c["beta"]) if rest > 0 else np.inf

    def cheapest(K: float) -> tuple[float, float]:
        best = minimize_scalar(
            lambda log_N: log_N + np.log(K * tokens_for(K, log_N)),
            bounds=(np.log(1e7), np.log(1e13)),
            method="bounded",
            options={"xatol": 1e-10},
        ).x
        return np.exp(best), K * tokens_for(K, best)

    grown = np.array(cheapest(8.0)) / np.array(cheapest(2.0))
    exponents = equal_loss(POST, 4).exponents
    expected = [4 ** exponents[name].draws[0] for name in ("params", "tokens")]
    assert grown == pytest.approx(expected, rel=1e-4)


def test_the_published_factors():
    table = published_equal_loss([2, 4])
    assert table["params"].to_numpy() == pytest.approx([1.18, 1.40], abs=0.006)
    assert table["tokens"].to_numpy() == pytest.approx([1.66, 2.74], abs=0.006)
    assert table["compute"].to_numpy() == pytest.approx(np.array([2.0, 4.0]) ** 0.97, rel=2e-3)


def test_a_known_truth_is_recovered():
    simulated = simulate(multilingual(), RUNS, jax.random.key(0))
    post = fit(
        simulated.runs, multilingual(), chains=2, draws=500, constants=simulated.constants, progress=False
    )
    truth = simulated.truth
    exponents = {
        "params": truth["phi"] / truth["alpha"],
        "tokens": 1 + truth["psi"] / truth["beta"],
    }
    exponents["compute"] = exponents["params"] + exponents["tokens"]
    found = equal_loss(post).exponents
    for name, value in exponents.items():
        draws = found[name].draws
        assert abs(draws.mean() - value) < 4 * draws.std()
        assert draws.std() < 0.1  # 0.3 and more in the prior


def test_dropped_exponents_are_zero():
    post = by_hand(multilingual(drop=("phi",)), MULTILINGUAL, RUNS)
    exponents = equal_loss(post, 3).exponents
    assert exponents["params"].draws == pytest.approx(0)
    c = post.coefficients
    assert exponents["compute"].draws == pytest.approx(1 + c["psi"] / c["beta"])


def test_notes_say_what_the_runs_do_not_tell():
    (note,) = equal_loss(POST, [2, 17]).notes
    assert note.code == "EXTRAPOLATION" and "1 to 16" in note.message and note.about == ("languages",)
    assert equal_loss(POST, 16).notes == equal_loss(POST, 1 / 16).notes == ()
    unseen = Note("UNIDENTIFIED", "phi: no run depends on it", ("phi",))
    other = Note("UNIDENTIFIED", "E", ("E",))
    noted = by_hand(multilingual(), MULTILINGUAL, RUNS, notes=(unseen, other))
    assert equal_loss(noted, 2).notes == (unseen,)


def test_what_is_refused():
    with pytest.raises(LawError, match=r"of law chinchilla; expected one of law multilingual"):
        equal_loss(by_hand(chinchilla(), MULTILINGUAL, RUNS))
    with pytest.raises(LawError, match="fitted without A"):
        equal_loss(by_hand(multilingual(drop=("A",)), MULTILINGUAL, RUNS))
    for times in (0, [2, -1], [], np.inf):
        with pytest.raises(M3BayesError, match="times is"):
            equal_loss(POST, times)
    with pytest.raises(
        M3BayesError, match=r"times is \[2, 1e\+300\]: the factor of .* is beyond all numbers"
    ):
        equal_loss(POST, [2, 1e300])
    with pytest.raises(M3BayesError, match="ci is 90"):
        equal_loss(POST, 2, ci=90)
