"""Pooled fits: against numpyro on a plain centred model, known truths, shrinkage, faults and files."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
import scipy.stats
from numpyro.distributions import biject_to
from numpyro.infer import MCMC, NUTS

import m3bayes as m3
from m3bayes.inference.data import unscale
from m3bayes.inference.diagnostics import mean_ess
from m3bayes.inference.model import log_surface
from m3bayes.inference.pooled import in_table_units
from m3bayes.inference.pooled_mode import expand
from m3bayes.inference.pooled_model import PooledModel, Pooling, join_hyper, pooled_coordinates, spread_scales
from m3bayes.inference.pooled_simulate import simulate_pooled
from m3bayes.inference.pooling import groups_of, padded_to, pooled_constants, pooling_of, tables_of

PARTIAL: dict[str, Pooling] = {"E": "partial", "A": "partial", "B": "partial"}
SIZES = {"aa": 40, "bb": 30, "cc": 24, "dd": 3}


def design(sizes=SIZES, seed=0) -> m3.Runs:
    random = np.random.default_rng(seed)
    parts = [
        pd.DataFrame(
            {
                "params": np.exp(random.uniform(np.log(1e7), np.log(1e9), n)),
                "target_tokens": np.exp(random.uniform(np.log(1e8), np.log(3e10), n)),
                "epochs": 1.0,
                "loss": 3.0,
                "language": name,
            }
        )
        for name, n in sizes.items()
    ]
    return m3.runs_from_frame(pd.concat(parts, ignore_index=True))


@pytest.fixture(scope="module")
def truth():
    return simulate_pooled(
        m3.laws.chinchilla(),
        design(),
        "language",
        jax.random.key(3),
        pooling=PARTIAL,
        noise=m3.noise.normal(),
    )


@pytest.fixture(scope="module")
def pooled(truth):
    return m3.fit(
        truth.runs,
        truth.law,
        pool="language",
        pooling=PARTIAL,
        noise=truth.noise,
        constants=truth.constants,
        progress=False,
    )


def test_the_gate_is_passed_and_every_group_has_its_runs(pooled, truth):
    assert pooled.verdict == "passed"
    assert pooled.groups == ("aa", "bb", "cc", "dd")
    assert pooled.pooling == dict.fromkeys(truth.law.names, "partial")
    for group, n in SIZES.items():
        post = pooled.of(group)
        assert len(post.runs) == n and post.log_likelihood.shape == (*pooled.draws["sigma"].shape, n)
        assert set(post.runs["language"]) == {group}
    assert [note.code for note in pooled.notes if note.code == "FEW_RUNS"] == ["FEW_RUNS"]


def test_log_likelihoods_are_those_of_each_group_by_itself(pooled):
    post = pooled.of("bb")
    c = {name: values[0, 7] for name, values in post.draws.items()}
    with jax.enable_x64(True):
        rows = post.runs.frame()[list(post.law.columns)].to_dict("records")
        surface = [float(post.law.loss(c, row)) for row in rows]
    by_hand = scipy.stats.norm.logpdf(np.log(post.runs["loss"]), np.log(surface), c["sigma"])
    np.testing.assert_allclose(post.log_likelihood[0, 7], by_hand, rtol=1e-8)


@pytest.mark.parametrize("higher", [0.0, 1.1])
def test_the_density_is_that_of_the_model_written_out(truth, higher):
    """Differences of the potential between points, against priors and likelihood by hand; at levels so high that
    floors would not be below 1, too."""
    law, model, arrays = problem(truth)
    arrays = raised(arrays, higher)
    space = pooled_coordinates(model)
    random = np.random.default_rng(1)
    with jax.enable_x64(True):
        qs = [0.3 * random.standard_normal(space.dim) for _ in range(3)]
        assert (max(space.to_sites(jnp.asarray(q), arrays)["E"].max() for q in qs) > 0.98) == (higher > 0)
        ours, theirs = [], []
        for q in qs:
            value, log_jacobian = by_hand(law, model, arrays, q)
            ours.append(float(space.potential(jnp.asarray(q), arrays)))
            theirs.append(-(value + log_jacobian))
    np.testing.assert_allclose(np.diff(ours), np.diff(theirs), rtol=1e-8)


def raised(arrays, by):
    """With the levels that coordinates are about so much higher."""
    u = arrays["expansion"].u.copy()
    u[:, 0] += by
    return arrays | {"expansion": arrays["expansion"]._replace(u=u)}


def problem(truth):
    law = truth.law
    groups, rows = groups_of(truth.runs, "language")
    model = PooledModel(law, tuple(pooling_of(law, PARTIAL).values()), truth.noise, len(groups), False)
    with jax.enable_x64(True):
        tables = tables_of(truth.runs, law, truth.noise, rows, truth.constants)
        padded = [padded_to(table.arrays, 48) for table in tables]
        stacked = jax.tree.map(lambda *parts: np.stack([np.asarray(part) for part in parts]), *padded)
        own = {name: values[0, 0] for name, values in truth.draws.items()}
        ones: dict[str, np.ndarray] = {name: np.ones(4) for name in ("E", "A", "B")}
        one = in_table_units(law, {**own, **ones}, truth.constants)
        point = own | {name: own[name] / one[name] for name in ("E", "A", "B")}
        arrays = {"table": stacked, "expansion": expand(model, point, stacked)}
    return law, model, arrays


def by_hand(law, model, arrays, q):
    """Log density of (m, log s, log sigma, theta), and the log determinant of d of these / d q by brute force."""
    space = pooled_coordinates(model)

    def plain(q):
        sites = space.to_sites(q, arrays)
        theta = jnp.stack([biject_to(law[n].prior.support).inv(sites[n]) for n in law.names])
        return jnp.concatenate([q[:10], jnp.log(sites["sigma"])[None], theta.ravel()])

    values = plain(jnp.asarray(q))
    m, log_s, log_sigma, theta = values[:5], values[5:10], values[10], values[11:].reshape(5, -1)
    scales = spread_scales(model)
    total = dist.LogNormal(np.log(0.008), 1.0).log_prob(jnp.exp(log_sigma)) + log_sigma
    for i, name in enumerate(law.names):
        bijection = biject_to(law[name].prior.support)
        total += law[name].prior.log_prob(bijection(m[i])) + bijection.log_abs_det_jacobian(
            m[i], bijection(m[i])
        )
        total += dist.HalfNormal(scales[name]).log_prob(jnp.exp(log_s[i])) + log_s[i]
        total += dist.Normal(m[i], jnp.exp(log_s[i])).log_prob(theta[i]).sum()
    for g in range(model.groups):
        table = jax.tree.map(lambda part, g=g: jnp.asarray(part)[g], arrays["table"])
        scaled = {n: biject_to(law[n].prior.support)(theta[i, g]) for i, n in enumerate(law.names)}
        c = unscale(law, scaled, table["reference"])
        counted = np.asarray(table["weight"]) > 0
        for run in np.flatnonzero(counted):
            x = {name: column[run] for name, column in table["x"].items()}
            total += dist.Normal(jnp.log(law.loss(c, x)), jnp.exp(log_sigma)).log_prob(table["y"][run])
    _, log_jacobian = np.linalg.slogdet(np.asarray(jax.jacfwd(plain)(jnp.asarray(q))))
    return float(total), log_jacobian


def test_it_agrees_with_numpyro_on_the_centred_model(truth, pooled):
    """Means and spreads, and the coefficients of a well-measured group, within 5 Monte Carlo standard errors."""
    law, model, arrays = problem(truth)
    scales = spread_scales(model)

    def centred():
        sigma = numpyro.sample("sigma", dist.LogNormal(np.log(0.008), 1.0))
        sites = {}
        for name in law.names:
            bijection = biject_to(law[name].prior.support)
            m = bijection.inv(numpyro.sample(f"m_{name}", law[name].prior))
            numpyro.deterministic(f"mean_{name}", m)
            s = numpyro.sample(f"s_{name}", dist.HalfNormal(scales[name]))
            theta = numpyro.sample(f"theta_{name}", dist.Normal(m, s).expand((model.groups,)))
            sites[name] = bijection(theta)
        surface = jax.vmap(lambda s, t: log_surface(law, s, t))(sites, arrays["table"])
        with numpyro.handlers.mask(mask=jnp.asarray(arrays["table"]["weight"]) > 0):
            numpyro.sample("y", dist.Normal(surface, sigma), obs=jnp.asarray(arrays["table"]["y"]))

    with jax.enable_x64(True):
        sampler = MCMC(
            NUTS(centred, target_accept_prob=0.95, dense_mass=True), num_warmup=1000, num_samples=3000,
            num_chains=2, chain_method="sequential", progress_bar=False,
        )  # fmt: skip
        sampler.run(jax.random.key(0))
        theirs = jax.tree.map(np.asarray, sampler.get_samples(group_by_chain=True))
    pairs = {name: (pooled.means[name], theirs[f"mean_{name}"]) for name in law.names}
    pairs |= {f"spread {n}": (np.log(pooled.spreads[n]), np.log(theirs[f"s_{n}"])) for n in law.names}
    pairs["sigma"] = (pooled.draws["sigma"], theirs["sigma"])
    for name in ("alpha", "beta"):  # their reference-scaled form is their own
        at = biject_to(law[name].prior.support)(theirs[f"theta_{name}"][..., 0])
        pairs[f"{name}[aa]"] = (pooled.draws[name][..., 0], np.asarray(at))
    for name, (a, b) in pairs.items():
        error = np.hypot(*(x.std() / np.sqrt(mean_ess(x[None])[0]) for x in (a, b)))
        assert abs(a.mean() - b.mean()) < 5 * error, (name, a.mean(), b.mean(), error)


def test_the_truth_is_among_the_draws(truth, pooled):
    """Every coefficient of every group, its mean and its spread within 4 posterior standard deviations."""
    for name in truth.law.names:
        for ours, true in (
            (np.log(pooled.draws[name]), np.log(truth.draws[name][0, 0])),
            (pooled.means[name][..., None], truth.means[name][0]),
            (np.log(pooled.spreads[name])[..., None], np.log(truth.spreads[name][0])),
        ):
            flat = ours.reshape(-1, ours.shape[-1])
            assert (np.abs(flat.mean(0) - true) < 4 * flat.std(0)).all(), name


def test_a_group_with_three_runs_leans_on_the_others(truth, pooled):
    """Its held-out losses are foreseen better than by a group of which nothing is known."""
    more = design({"dd": 40}, seed=9)
    true = m3.loss_draws(truth.of("dd"), more)[0]
    errors = [
        np.abs(np.log(m3.predict(post, more, new_run=False).loss_mean / true)).mean()
        for post in (pooled.of("dd"), pooled.new_group())
    ]
    assert errors[0] < errors[1]


def test_a_new_group_is_as_uncertain_as_the_spread_says(pooled):
    post = pooled.new_group(seed=1)
    known = pooled.of("aa")
    (note,) = (note for note in post.notes if note.code == "NO_RUNS")
    assert note.message.endswith("E, A, B, alpha, beta drawn from the spread between 4 others")
    for name in ("alpha", "beta"):
        theta = np.asarray(biject_to(post.law[name].prior.support).inv(post.draws[name]))
        expected = np.hypot(pooled.means[name].std(), np.sqrt((pooled.spreads[name] ** 2).mean()))
        assert abs(theta.std() / expected - 1) < 0.1  # 4000 draws of a mixture with heavy tails
        assert post.draws[name].std() > known.draws[name].std()
    best = m3.recommend(post, compute=1e19, target_tokens=1e9)
    assert np.isfinite(best.loss.mean)
    with pytest.raises(m3.FitError, match="a group without runs, and there is nothing to check it against"):
        m3.check(post)
    for seed in (-1, 1.5, True):
        with pytest.raises(m3.FitError, match="seed is"):
            inspect.unwrap(type(pooled).new_group)(pooled, seed)


def test_a_pooled_fit_itself_predicts_nothing_and_says_what_does(pooled):
    with pytest.raises(
        m3.FitError, match=r"pooled fit of \d groups; take the posterior of one, as .of\('aa'\)"
    ):
        _ = pooled.coefficients


def test_shared_and_free_coefficients(truth):
    law = m3.laws.chinchilla()
    pooled = m3.fit(
        truth.runs, law, pool="language", pooling={"alpha": "shared", "A": "partial", "B": "partial"},
        noise=m3.noise.normal(),
        draws=50, warmup=100, allow="flagged", progress=False,
    )  # fmt: skip
    assert np.ptp(pooled.draws["alpha"], axis=2).max() == 0
    assert np.ptp(pooled.draws["E"], axis=2).max() > 0
    assert set(pooled.spreads) == {"A", "B", "beta"} and set(pooled.shared) == {"alpha"}
    table = pooled.between()
    assert list(table["pooling"]) == [pooled.pooling[name] for name in table.index]
    assert table.loc["alpha", "spread"] == 0 and np.isnan(table.loc["E", "spread"])
    post = pooled.new_group()
    assert post.draws["E"].shape == pooled.draws["beta"].shape[:2]
    (note,) = (note for note in post.notes if note.code == "NO_RUNS")
    for said in (
        "A, B, beta drawn from",
        "alpha shared with them",
        "; E, free in the fit, as wide as the prior",
    ):
        assert said in note.message


def test_a_sigma_a_group(truth):
    pooled = m3.fit(
        truth.runs.where("language != 'dd'"), truth.law, pool="language", noise=m3.noise.normal(by="language"),
        draws=40, warmup=100, allow="flagged", progress=False,
    )  # fmt: skip
    draws = pooled.draws["beta"].shape[1]
    assert pooled.draws["sigma"].shape == (4, draws, 3)
    assert np.ptp(pooled.draws["sigma"].mean(axis=(0, 1))) > 0
    post = pooled.of("cc")
    assert post.draws["sigma"].shape == (4, draws) and post.noise.by is None
    assert pooled.new_group().draws["sigma"].shape == (4, draws)


def test_repeated_text_is_shared_and_scales_are_free_by_default():
    kinds = pooling_of(m3.laws.m3())
    assert {name for name, kind in kinds.items() if kind == "free"} == {"E", "A", "B"}
    assert {name for name, kind in kinds.items() if kind == "shared"} == {
        "lambda",
        "P",
        "delta",
        "kappa",
        "omega",
    }


def test_what_a_fit_cannot_pool(truth):
    runs, law = truth.runs, truth.law
    with pytest.raises(m3.FitError, match="alpha is 'both'; expected shared, partial or free"):
        inspect.unwrap(pooling_of)(law, {"alpha": "both"})  # without the tests' own type checks
    with pytest.raises(m3.FitError, match="pooling names 'gamma', but law chinchilla has E"):
        m3.fit(runs, law, pool="language", pooling={"gamma": "shared"})
    with pytest.raises(m3.FitError, match="pooling is 'partial'; give kinds by coefficient"):
        inspect.unwrap(pooling_of)(law, "partial")
    with pytest.raises(m3.FitError, match=r"pool is \['language'\]; give the name of one column"):
        inspect.unwrap(m3.fit)(runs, law, pool=["language"])
    with pytest.raises(m3.RunTableError, match="column loss has another value in each of 30 rows"):
        m3.fit(runs.select(np.arange(30)), law, pool="loss")
    with pytest.raises(m3.RunTableError, match="has no column 'script'"):
        m3.fit(runs, law, pool="script")
    with pytest.raises(m3.RunTableError, match="column language is 'aa' in every row"):
        m3.fit(runs.where("language == 'aa'"), law, pool="language")
    with pytest.raises(m3.FitError, match="nothing to pool"):
        m3.fit(runs, law, pool="language", pooling=dict.fromkeys(law.names, "shared"))
    with pytest.raises(m3.FitError, match="give one column for both"):
        m3.fit(runs, law, pool="language", noise=m3.noise.normal(by="run"))
    with pytest.raises(m3.FitError, match="pooling is given without pool"):
        m3.fit(runs, law, pooling={})  # pyright: ignore[reportArgumentType, reportCallIssue]


def test_there_and_back(tmp_path, pooled):
    pooled.save(tmp_path / "pooled.nc")
    again = m3.load_pooled(tmp_path / "pooled.nc")
    for part in ("draws", "means", "spreads", "shared", "sample_stats"):
        ours, theirs = getattr(pooled, part), getattr(again, part)
        assert set(ours) == set(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    np.testing.assert_array_equal(pooled.log_likelihood, again.log_likelihood)
    for part in ("by", "groups", "pooling", "spread_priors", "constants", "notes", "verdict", "settings"):
        assert getattr(pooled, part) == getattr(again, part)
    assert again.law is pooled.law and again.runs.fingerprint() == pooled.runs.fingerprint()
    pd.testing.assert_frame_equal(again.summary(), pooled.summary())
    with pytest.raises(
        m3.PosteriorFileError, match="holds a pooled posterior, not a posterior; take one group"
    ):
        m3.load(tmp_path / "pooled.nc")
    pooled.of("aa").save(tmp_path / "aa.nc")
    np.testing.assert_array_equal(m3.load(tmp_path / "aa.nc").draws["A"], pooled.draws["A"][..., 0])
    with pytest.raises(m3.PosteriorFileError, match="holds a posterior, not a pooled posterior"):
        m3.load_pooled(tmp_path / "aa.nc")
    whole = (tmp_path / "pooled.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(whole[:-100])
    with pytest.raises(m3.PosteriorFileError):
        m3.load_pooled(tmp_path / "cut.nc")


def test_what_refits_a_group_says_that_it_cannot(pooled):
    for refused in (lambda: m3.sensitivity(pooled.of("aa")), lambda: m3.discrepancy(pooled.new_group())):
        with pytest.raises(m3.FitError, match="is one of a pooled fit"):
            refused()
    wide = m3.discrepancy(pooled.of("aa"), scale=0.04)
    assert wide.intervals != pooled.of("aa").intervals


def test_the_order_of_the_rows_does_not_matter(truth):
    law, noise = truth.law, truth.noise
    shuffled = truth.runs.select(np.random.default_rng(0).permutation(len(truth.runs)))
    options = {
        "pool": "language",
        "noise": noise,
        "draws": 50,
        "allow": "flagged",
        "progress": False,
        "chains": 1,
    }
    one, other = m3.fit(truth.runs, law, **options), m3.fit(shuffled, law, **options)
    np.testing.assert_array_equal(one.draws["beta"], other.draws["beta"])


@pytest.mark.parametrize("higher", [0.0, 1.1])
def test_coordinates_go_there_and_back(truth, higher):
    _, model, arrays = problem(truth)
    arrays = raised(arrays, higher)
    space = pooled_coordinates(model)
    with jax.enable_x64(True):
        from m3bayes.inference.pooled_model import split_hyper

        q = jnp.asarray(0.3 * np.random.default_rng(2).standard_normal(space.dim))
        hyper, _, _ = split_hyper(model, q)
        np.testing.assert_allclose(join_hyper(model, hyper), q[: len(join_hyper(model, hyper))], rtol=1e-12)
        sites = {**space.to_sites(q, arrays), "m": hyper.m, "log_s": hyper.log_s}
        np.testing.assert_allclose(space.from_sites(sites, arrays), q, rtol=1e-6, atol=1e-8)


def test_constants_bound_every_floor(truth):
    _, rows = groups_of(truth.runs, "language")
    constants = pooled_constants(truth.runs, truth.law, rows)
    medians = truth.runs.frame().groupby("language")["loss"].median()
    assert constants["L"] == medians.max()
