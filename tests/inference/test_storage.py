from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from m3bayes.errors import Note, PosteriorFileError
from m3bayes.files import unseal
from m3bayes.inference.noise import normal, student_t
from m3bayes.inference.storage import FORMAT, load
from m3bayes.laws import Coefficient, all_laws, chinchilla, law, m3
from m3bayes.runs import Runs
from tests.inference.example_posterior import assert_same, example_posterior, example_runs
from tests.sealing import sealed


@pytest.fixture
def path(tmp_path):
    return tmp_path / "post.nc"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> bytes:
    file = tmp_path_factory.mktemp("saved") / "post.nc"
    example_posterior().save(file)
    return file.read_bytes()


def refusal(path, **given) -> str:
    """The message with which ``path`` is refused: one line, naming it."""
    with pytest.raises(PosteriorFileError) as caught:
        load(path, **given)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def my_law(name="mine", names=("a", "b"), **options):
    coefficients = [Coefficient(n, dist.LogNormal(0.0, 1.0), "loss") for n in names]
    return law(name, lambda c, x: c["a"] + jnp.asarray(x["epochs"]), coefficients, options=options)


# --- round trips ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fitted", [*all_laws(), m3(floor=True, drop=("tau",)), chinchilla(tokens="all")], ids=str
)
def test_every_law_comes_back(path, fitted):
    post = example_posterior(law=fitted, draws=5)
    post.save(path)
    again = load(path)
    assert_same(post, again)
    assert again.law.formula == fitted.formula


@pytest.mark.parametrize("noise", [student_t(), normal(), student_t(by="language", known=True)])
def test_every_noise_comes_back(path, noise):
    post = example_posterior(noise=noise, draws=5)
    post.save(str(path))
    assert_same(post, load(str(path)))


def test_what_may_be_absent_may_be_absent(path):
    post = example_posterior()
    bare = replace(
        post, log_likelihood=None, sample_stats={}, constants={}, notes=(), settings={}, versions={}
    )
    bare.save(path)
    assert_same(bare, load(path))


def test_what_is_loaded_gives_the_same_summary_and_the_same_file(path, tmp_path):
    post = example_posterior()
    post.save(path)
    again = load(path)
    assert again.summary().equals(post.summary())
    again.save(tmp_path / "again.nc")
    assert (tmp_path / "again.nc").read_bytes() == path.read_bytes()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FLOATS = st.sampled_from([0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, 1 / 3, 1e308])


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(FLOATS, min_size=4, max_size=4),
    note=st.tuples(TEXT, TEXT, st.lists(TEXT, max_size=3)),
    kept=st.dictionaries(TEXT, st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False), TEXT)),
    columns=st.dictionaries(TEXT, st.one_of(st.lists(TEXT, min_size=3, max_size=3), FLOATS), max_size=3),
    cells=st.lists(TEXT, min_size=3, max_size=3, unique=True),
)
def test_any_content_comes_back_bit_for_bit(path, values, note, kept, columns, cells):
    note = Note(note[0], note[1], tuple(note[2]))
    plain = example_runs(3)
    extra = {
        f"extra {name}": np.array(c, dtype=object) if isinstance(c, list) else np.full(3, c)
        for name, c in columns.items()
    }
    columns = {**plain.columns, "run": np.array(cells, dtype=object), **extra}
    runs = Runs(columns, plain.unit_params, 0.1, (note,), note.message)
    post = example_posterior(law=chinchilla(), runs=runs, chains=2, draws=2)
    post = replace(
        post,
        draws={**post.draws, "E": np.array(values).reshape(2, 2)},
        notes=(note, note),
        settings=kept,
        constants={"x": values[0]},
    )
    post.save(path)
    assert_same(post, load(path))


def test_names_that_netcdf_does_not_allow_are_kept(path):
    runs = example_runs()
    odd = {
        name: np.arange(12.0) + i for i, name in enumerate(["a/b", "a_b", ".", "", "chain", "draw", "x\ny"])
    }
    post = replace(example_posterior(), runs=replace(runs, columns={**runs.columns, **odd}))
    post.save(path)
    assert_same(post, load(path))


def test_arviz_opens_the_file_as_it_is(path):
    import arviz as az

    post = example_posterior()
    post.save(path)
    with az.from_netcdf(path) as tree:
        assert set(tree.children) == {
            "posterior", "sample_stats", "log_likelihood", "observed_data", "constant_data",
        }  # fmt: skip
        np.testing.assert_array_equal(tree["posterior"]["tau"], post.draws["tau"])
        assert json.loads(tree.attrs["law"])["formula"] == post.law.formula
        assert json.loads(tree.attrs["runs"])["fingerprint"] == post.runs.fingerprint()
        assert az.summary(tree, var_names=["tau"], round_to="none").loc["tau", "mean"] == pytest.approx(
            post.draws["tau"].mean()
        )


# --- laws and tables -----------------------------------------------------------------------------------


def test_a_law_of_the_users_is_given_back_to_load(path):
    mine = my_law(shift=(1, 2))
    post = example_posterior(law=mine)
    post.save(path)
    assert_same(post, load(path, law=mine))
    assert load(path, law=mine).law is mine
    assert "user-defined law mine(shift=(1, 2))" in refusal(path)
    assert "mine(shift=3)" in refusal(path, law=my_law(shift=3))
    message = refusal(path, law=my_law(names=("a", "c"), shift=(1, 2)))
    assert "a, b" in message and "a, c" in message


def test_a_file_of_another_law_is_refused_with_both_names(path):
    example_posterior(law=m3(drop=("tau",))).save(path)
    message = refusal(path, law=chinchilla())
    assert "m3(drop=('tau',))" in message and "chinchilla()" in message
    assert "m3()" in refusal(path, law=m3())
    assert load(path, law=m3(drop=("tau",))).law.names == m3(drop=("tau",)).names


def test_a_users_law_with_the_name_of_a_built_in_one_is_not_taken_for_it(path):
    impostor = my_law(name="m3", names=m3().names)
    example_posterior(law=impostor).save(path)
    assert "user-defined law m3()" in refusal(path)
    assert load(path, law=impostor).law is impostor


def test_options_that_have_no_place_in_a_file_are_refused_when_saving(path):
    with pytest.raises(PosteriorFileError, match="cannot be saved") as caught:
        example_posterior(law=my_law(function=print)).save(path)
    assert "\n" not in str(caught.value)
    assert not path.exists()


def test_a_file_of_another_table_is_refused_with_both_names(path):
    example_posterior().save(path)
    assert_same(load(path, runs=example_runs()), example_posterior())
    other = replace(example_runs(seed=1), name="other.csv")
    message = refusal(path, runs=other)
    assert "example.csv" in message and "other.csv" in message
    assert example_runs().fingerprint()[:12] in message and other.fingerprint()[:12] in message


# --- files that are not whole, or not ours -------------------------------------------------------------


def test_a_file_cut_short_is_refused(path, saved):
    for length in [0, 1, 7, 8, 100, len(saved) // 2, len(saved) - 100, len(saved) - 1]:
        path.write_bytes(saved[:length])
        refusal(path)
    assert "damaged" in refusal(path)


def test_a_flipped_bit_is_refused(path, saved):
    random = np.random.default_rng(0)
    for bit in random.integers(0, 8 * len(saved), 50).tolist():
        changed = bytearray(saved)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        refusal(path)


def test_bytes_that_went_missing_or_were_added_are_refused(path, saved):
    for changed in (saved[:5000] + saved[5001:], saved + b"\0", saved[:5000] + b"\0" + saved[5000:]):
        path.write_bytes(changed)
        assert "damaged" in refusal(path)


def test_a_later_format_is_refused_with_both_versions(path, saved):
    opened = unseal(saved)
    assert opened is not None
    path.write_bytes(sealed(opened[0], "posterior 99"))
    message = refusal(path)
    assert "format 99" in message and f"up to {FORMAT}" in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"params,loss\n1,2\n", "not a netCDF"),
        (b"\x89HDF\r\n\x1a\n nothing else", "no posterior of m3bayes"),
        (sealed(b"\x89HDF\r\n\x1a\n m3bayes_format", "posterior 1"), "not the content"),
        (sealed(b"\x89HDF\r\n\x1a\n", "chain of 12"), "holds a chain"),
    ],
)
def test_files_of_other_kinds_are_refused(path, content, says):
    path.write_bytes(content)
    assert says in refusal(path)


def test_netcdf_of_others_is_refused(path):
    import xarray

    xarray.Dataset({"E": ("draw", np.ones(3))}).to_netcdf(path, engine="h5netcdf")
    assert "no posterior of m3bayes" in refusal(path)


def test_places_without_a_file_are_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "missing.nc")
    assert "directory" in refusal(tmp_path)


def forged(saved: bytes, change) -> bytes:
    """A file with a valid seal whose content ``change`` altered through HDF5."""
    import io

    opened = unseal(saved)
    assert opened is not None
    image = io.BytesIO(opened[0])
    with h5py.File(image, "r+") as file:
        change(file)
    return sealed(image.getvalue(), opened[1])


def _drop_coefficient(file):
    del file["posterior/alpha"]


def _drop_column(file):
    del file["constant_data/loss"]


def _drop_law(file):
    del file.attrs["law"]


def _no_json(file):
    file.attrs["settings"] = "__import__('os').abort()"


def _unknown_law(file):
    file.attrs["law"] = file.attrs["law"].replace('"name": "m3"', '"name": "os"')


def _odd_options(file):
    file.attrs["law"] = file.attrs["law"].replace('"options": {}', '"options": {"drop": 7}')


def _fewer_coefficients(file):
    file.attrs["law"] = file.attrs["law"].replace('"alpha", ', "")


@pytest.mark.parametrize(
    "change",
    [_drop_coefficient, _drop_column, _drop_law, _no_json, _unknown_law, _odd_options, _fewer_coefficients],
)
def test_a_sealed_file_with_a_content_that_cannot_be_is_refused(path, saved, change):
    path.write_bytes(forged(saved, change))
    refusal(path)


def test_a_forged_file_without_a_change_loads(path, saved):
    path.write_bytes(forged(saved, lambda file: None))
    assert_same(load(path), example_posterior())


# --- kills, full disks, races --------------------------------------------------------------------------

# One process imports once and forks; the children only encode and write (no jax in them). Saving is
# deterministic, so comparing bytes compares posteriors. Killed are whole saves, most of whose time is
# encoding, and what a save does to the disk, over and over; a limit on sizes stands in for the full disk.
WORKER = """
    import json, os, resource, signal, sys, time
    import numpy as np
    from pathlib import Path
    from m3bayes.errors import M3BayesError
    from m3bayes.files import write_bytes
    from m3bayes.inference.storage import load
    from m3bayes.laws import Coefficient, law
    from tests.inference.example_posterior import assert_same, example_posterior

    # a law of no built-in name and no prior: nothing starts jax before the forks
    mine = law("mine", lambda c, x: c["a"], [Coefficient(n, None) for n in "abcdef"])
    old, new = (example_posterior(seed, law=mine, draws=2000) for seed in (0, 1))
    path = Path(sys.argv[1]) / "post.nc"
    contents = {}
    for post, name in ((old, "old"), (new, "new")):
        began = time.monotonic()
        post.save(path)
        longest = 3 * (time.monotonic() - began)
        assert_same(load(path, law=mine), post)
        contents[path.read_bytes()] = name

    def forked(work):
        child = os.fork()
        if child == 0:
            try:
                work()
            finally:
                os._exit(0)
        return child

    def here():
        return contents.get(path.read_bytes(), "neither")

    def files():
        return sorted(file.name for file in path.parent.iterdir())

    def save_for_ever():
        while True:
            old.save(path)
            new.save(path)

    def write_for_ever():
        while True:
            for content in contents:
                write_bytes(path, content)

    random = np.random.default_rng(0)
    killed, cut = [], 0
    for work, latest in ((save_for_ever, longest), (write_for_ever, longest / 4)):
        for moment in random.uniform(0, latest, int(sys.argv[2])):
            child = forked(work)
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            killed.append(here())
            cut += any(name.startswith(f".post.nc.{child}.") for name in files())
    old.save(path)
    after_kills = files()

    children = [forked(lambda post=post: [post.save(path) for _ in range(5)]) for post in (old, new)]
    for child in children:
        os.waitpid(child, 0)
    raced, after_race = here(), files()

    old.save(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        new.save(path)
        full = "no error"
    except M3BayesError as error:
        full = str(error)
    print(json.dumps({
        "killed": killed, "cut": cut, "after_kills": after_kills, "raced": raced, "after_race": after_race,
        "full": full, "kept": here(), "after_full": files(),
    }))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict:
    return killed_while_saving(tmp_path_factory.mktemp("worker"), 20)


def killed_while_saving(folder: Path, kills: int) -> dict:
    """What the worker saw after ``kills`` kills of whole saves, and as many of writes alone."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WORKER), str(folder), str(kills)],
        capture_output=True, text=True, timeout=600, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_killed_while_saving_the_old_file_or_the_new_one_is_there(said):
    assert len(said["killed"]) == 40 and set(said["killed"]) == {"old", "new"}
    assert said["cut"] > 0  # some were killed with half a file on the disk
    assert said["after_kills"] == ["post.nc"]


def test_two_processes_that_save_to_one_path_leave_one_whole_file(said):
    assert said["raced"] in ("old", "new")
    assert said["after_race"] == ["post.nc"]


def test_a_full_disk_is_said_and_the_old_file_is_kept(said):
    assert "make room" in said["full"] and "post.nc" in said["full"]
    assert said["kept"] == "old"
    assert said["after_full"] == ["post.nc"]
