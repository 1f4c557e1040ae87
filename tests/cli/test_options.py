from __future__ import annotations

from argparse import ArgumentTypeError

import numpy as np
import pytest

from m3bayes import laws
from m3bayes.cli import options
from m3bayes.data import simulated_runs
from m3bayes.errors import LawError, M3BayesError, NotConvergedError, Note
from m3bayes.inference.noise import Noise
from m3bayes.inference.posterior import Posterior


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e999", "x", ""])
def test_positive_refuses(text):
    with pytest.raises(ArgumentTypeError, match="above 0"):
        options.positive(text)


@pytest.mark.parametrize("text", ["0", "1", "90", "-.5", "nan", "x"])
def test_share_refuses(text):
    with pytest.raises(ArgumentTypeError, match="between 0 and 1"):
        options.share(text)


@pytest.mark.parametrize("text", ["0", "-3", "1.5", "1e3", "many"])
def test_whole_refuses(text):
    with pytest.raises(ArgumentTypeError, match="whole number of 1 or more"):
        options.whole(1)(text)


def test_numbers_are_read():
    assert options.positive("1e21") == 1e21
    assert options.share(".9") == 0.9
    assert options.whole(0)("0") == 0
    assert options.not_negative("0") == 0
    assert options.setting("r=1") == ("r", 1.0)


@pytest.mark.parametrize("text", ["r", "r=", "=1", "r=x", "r=-1"])
def test_setting_refuses(text):
    with pytest.raises(ArgumentTypeError):
        options.setting(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("k=1:8", ("k", (1.0, 8.0))),
        ("N=:1e9", ("N", (None, 1e9))),
        ("share=.05:", ("share", (0.05, None))),
    ],
)
def test_interval(text, expected):
    assert options.interval(text) == expected


@pytest.mark.parametrize("text", ["k", "k=", "k=:", "k=3", "=1:2", "k=8:1", "k=a:b"])
def test_interval_refuses(text):
    with pytest.raises(ArgumentTypeError):
        options.interval(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("student-t", Noise()),
        ("normal", Noise("normal")),
        ("group:seed", Noise(by="seed")),
        ("known", Noise(known=True)),
        ("normal,group:language,known", Noise("normal", "language", True)),
    ],
)
def test_noise(text, expected):
    assert options.noise(text) == expected


@pytest.mark.parametrize("text", ["gaussian", "group:", "group", "", "normal,", "known:x"])
def test_noise_refuses(text):
    with pytest.raises(ArgumentTypeError, match="expected student-t"):
        options.noise(text)


def test_named_law():
    assert options.named_law("m3") is laws.m3()
    assert options.named_law("chinchilla:tokens=all") is laws.chinchilla(tokens="all")
    assert options.named_law("m3:floor=true").names == laws.m3(floor=True).names
    nested = options.named_law("m3", ("P", "tau"))
    assert nested.names == laws.m3(drop=("P", "tau")).names
    assert "kappa" not in nested.names


def test_named_law_with_several_values():
    law = options.named_law("atlas:sources=en+fr,similarity=en=.6+fr=0.2,other=true")
    assert law is laws.atlas(sources=("en", "fr"), similarity={"en": 0.6, "fr": 0.2}, other=True)
    assert options.named_law("atlas:sources=en").options == {"sources": ("en",)}
    assert options.named_law("atlas", ("tau_en",), ("en", "fr")).names[5:] == ("lambda", "tau_fr")


@pytest.mark.parametrize(
    ("text", "drop", "named"),
    [
        ("nonsense", (), "nonsense"),
        ("m3:floor", (), "option=value"),
        ("m3:floor=", (), "option=value"),
        ("m3:colour=blue", (), "colour"),
        ("chinchilla:tokens=some", (), "some"),
        ("m3", ("E",), "E cannot be dropped"),
        ("m3", ("zeta",), "zeta"),
        ("m3:sources=en+fr", (), "no option 'sources'"),
        ("atlas:sources=en+fr,similarity=en=3", (), "similarity of en is 3"),
    ],
)
def test_named_law_refuses(text, drop, named):
    with pytest.raises(LawError, match=named) as caught:
        options.named_law(text, drop)
    assert "\n" not in str(caught.value)


def test_names():
    assert options.names("P, tau") == ("P", "tau")
    with pytest.raises(ArgumentTypeError):
        options.names(" , ")


def test_check_out(tmp_path):
    options.check_out(None)
    options.check_out(tmp_path / "new.nc")
    with pytest.raises(M3BayesError, match="is a folder"):
        options.check_out(tmp_path)
    with pytest.raises(M3BayesError, match="does not exist"):
        options.check_out(tmp_path / "none" / "new.nc")


def test_a_flagged_posterior_is_refused_by_its_codes(tmp_path, monkeypatch):
    law = laws.chinchilla()
    draws = {name: np.ones((2, 3)) for name in (*law.names, "sigma", "nu")}
    notes = (Note("R_HAT", "a"), Note("R_HAT", "b"), Note("ESS", "c"))
    flagged = Posterior(law, Noise(), simulated_runs(), draws, verdict="flagged", notes=notes)
    monkeypatch.setattr(options, "load", lambda path: flagged)
    path = tmp_path / "post.nc"
    with pytest.raises(NotConvergedError, match=r"R_HAT, ESS\).*--allow flagged") as caught:
        options.load_allowed(path, "passed")
    assert caught.value.posterior is flagged
    assert options.load_allowed(path, "flagged") is flagged
