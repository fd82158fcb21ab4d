"""Random keys: each is used once, of either of JAX's kinds, by every function that takes one."""

import ast
import functools
import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from flax import struct
from star_data import synthetic

from jaxsed import infer
from jaxsed import stars as st
from jaxsed.core import keys
from jaxsed.emulators.training import pairs, widths
from jaxsed.emulators.training import photometric as train
from jaxsed.emulators.training import spectral as train_spectral
from jaxsed.halos import training as halo_training
from jaxsed.infer import amortised
from jaxsed.infer.schedule import chains, single_calls, uses
from jaxsed.learn import FitSettings, loop
from jaxsed.sps.models.registry import family
from jaxsed.stars import autoencoder, networks, prediction
from jaxsed.workflows import mocks, stars, train_spectra
from jaxsed.workflows import train_photometric as catalog_train

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = [
    path
    for folder in ("jaxsed", "benchmarks")
    for path in sorted((REPOSITORY / folder).rglob("*.py"))
]

# ---------------------------------------------------------------- a rule for sources
# Handing a key to these does not use it up: they name it, or look at it.
NEUTRAL = {
    "typed_key", "typed_keys", "key_data", "wrap_key_data", "asarray", "getattr", "type", "next",
    "finished", "identity", "_identity", "_open",
}  # fmt: skip
FOLDS = {"fold_in", "numbered"}
# Functions that hand the key of a run to several, which take their parts of it by name (see Keys),
# or that mean to have the same numbers again: simulations twice over, masks for several stars.
BY_NAME = {
    ("photometric.py", "train_photometric", "key"), ("widths.py", "choose_width", "key"),
    ("stitched.py", "train_stitched", "own_key"),
    ("spectral.py", "train_spectrum", "key_train"), ("spectral.py", "_notes", "key"),
    ("spectral.py", "train_spectrum", "key"),
    ("apogee.py", "uncertainties", "key"), ("apogee.py", "main", "key"),
    ("observed.py", "main", "key"), ("flow.py", "ours", "key"),
    ("exact.py", "measure", "keys"),
}  # fmt: skip
NAMES = ("key", "keys", "own_key")


class Uses(NamedTuple):
    """How often the keys of a scope are used up, and how often folded."""

    used: Counter
    folded: Counter

    def and_(self, other):
        return Uses(self.used + other.used, self.folded + other.folded)

    def or_(self, other):
        return Uses(self.used | other.used, self.folded | other.folded)


def is_key(name):
    return name in NAMES or name.startswith("key_")


def nothing():
    return Uses(Counter(), Counter())


class Scope:
    """Uses of the keys of one function; those of its inner functions count where they stand."""

    def __init__(self):
        self.broken = set()

    def block(self, body):
        total = nothing()
        for i, node in enumerate(body):
            if isinstance(node, ast.If):
                test, rest = self.of(node.test), self.block(body[i + 1 :])
                yes, no = self.block(node.body), self.block(node.orelse)
                leaves = isinstance(node.body[-1], ast.Return | ast.Raise)
                after = yes.or_(no.and_(rest)) if leaves else yes.or_(no).and_(rest)
                return self.checked(total.and_(test).and_(after))
            if isinstance(node, ast.Assign | ast.AnnAssign | ast.For | ast.With):
                total = total.and_(self.of(node))
                targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
                new = {n.id for t in targets if t for n in ast.walk(t) if isinstance(n, ast.Name)}
                self.checked(total)  # a name that is bound anew is another key
                total = Uses(*(Counter({k: v for k, v in c.items() if k not in new})
                               for c in total))  # fmt: skip
                continue
            total = total.and_(self.of(node))
        return self.checked(total)

    def checked(self, uses):
        for name, count in uses.used.items():
            if count > 1 or uses.folded[name]:
                self.broken.add(name)
        return uses

    def of(self, node):
        if node is None:
            return nothing()
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            own = {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
            body = node.body if isinstance(node.body, list) else [ast.Expr(node.body)]
            inner = self.block(body)
            bound = own | {
                n.id for n in ast.walk(node)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            }  # fmt: skip
            return Uses(*(Counter({k: v for k, v in c.items() if k not in bound}) for c in inner))
        if isinstance(node, ast.IfExp):
            branches = self.of(node.body).or_(self.of(node.orelse))
            return self.of(node.test).and_(branches)
        if isinstance(node, ast.For):
            inside = self.block(node.body)
            bound = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)
                     and isinstance(n.ctx, ast.Store)}  # fmt: skip
            again = Uses(
                Counter({k: 2 * v for k, v in inside.used.items() if k not in bound}),
                inside.folded,
            )
            return self.of(node.iter).and_(again)
        total = nothing()
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            name = node.func.id if isinstance(node.func, ast.Name) else name
            owner = getattr(getattr(node.func, "value", None), "id", "")
            for argument in [*node.args, *(k.value for k in node.keywords)]:
                if isinstance(argument, ast.Name) and is_key(argument.id):
                    if name in FOLDS:
                        total.folded[argument.id] += 1
                    elif name not in NEUTRAL and owner != "Keys":
                        total.used[argument.id] += 1
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                continue
            total = total.and_(self.of(child))
        for field in ("body", "orelse", "finalbody"):
            inner = getattr(node, field, None)
            if isinstance(inner, list):
                total = total.and_(self.block(inner))
        return total


def keys_used_twice(tree):
    """(function, key) of every key that is used more than once, or used and folded."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            scope = Scope()
            scope.block(node.body)
            found += [(node.name, name) for name in sorted(scope.broken)]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_no_key_is_used_twice(path):
    found = keys_used_twice(ast.parse(path.read_text()))
    assert [(f, k) for f, k in found if (path.name, f, k) not in BY_NAME] == []


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("a, b = split(key)\n    return a, fold_in(key, 1)", True),
        ("a = normal(key)\n    return a + uniform(key)", True),
        ("for i in x:\n        f(fold_in(key, i))\n    return sample(split(key))", True),
        ("for i in x:\n        f(key)", True),
        ("def g(x):\n        return normal(key, x)\n    return g(1) + normal(key)", True),
        ("return fit(key) if x else other(key)", False),
        ("if x:\n        return fit(key)\n    return other(key)", False),
        ("key, key_step = split(key)\n    return step(key_step), key", False),
        ("for i in x:\n        f(fold_in(key, i))", False),
        ("def g(key):\n        return normal(key)\n    return g(key)", False),
        ("return vmap(lambda key: normal(key))(split(key))", False),
    ],
)
def test_the_rule_sees_what_it_should(source, wrong):
    tree = ast.parse(f"def f(key, x):\n    {source}\n")
    assert bool(keys_used_twice(tree)) == wrong


# ---------------------------------------------------------------- what the samplers do


@struct.dataclass
class Dusty:
    def __call__(self, theta):
        return 1e-9 * jnp.ones(2) * theta.dust1


def toy_problem():
    return toys.problem(np.ones(3), np.full(3, 0.3), [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


QUICK = toys.method_of("hmc", warmup=100, draws=100, retries=1)


def children_of(words):
    """Words of what ``split(key)[n]`` and ``fold_in(key, n)`` are for n below 8, of these keys."""
    keys = jax.random.wrap_key_data(jnp.asarray(words, jnp.uint32))
    each = jax.jit(lambda keys: jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(
        keys, jnp.arange(8)
    ))  # fmt: skip
    folded = np.asarray(jax.random.key_data(each(keys))).reshape(-1, 2)
    return {tuple(row) for row in folded.tolist()}


def test_beginnings_segments_and_learning_have_keys_of_their_own(monkeypatch):
    """None is the galaxy's own, and none is what splitting another, or the galaxy's, gives."""
    words = jax.random.key_data
    monkeypatch.setattr(chains, "begin", lambda key, problem, **settings: words(key))
    monkeypatch.setattr(chains, "advance", lambda key, *rest: words(key))
    own = jax.random.split(jax.random.key(3), 1)
    problem = toy_problem()
    one = problem.replace(
        prior=jax.tree.map(lambda a: jnp.asarray(a)[None], problem.prior),
        data=jax.tree.map(lambda a: a[None], problem.data),
    )

    @jax.jit
    def run(own):
        seen = [chains.begin_batch.__wrapped__(own, one, chains=2, starts=1, dense=True)]
        for step in range(4):
            where = jnp.array([step]), jnp.array([True]), jnp.zeros((1, 2))
            seen.append(
                chains.advance_batch.__wrapped__(own, *where, one, jnp.zeros(2), moves=None)
            )
        others = uses.LEARNING, uses.SINGLE_CALL, uses.FLOW
        return [
            *seen,
            *(words(uses.numbered(own[0], use, n))[None] for use in others for n in range(4)),
        ]

    seen = run(own)
    used = [tuple(np.asarray(w)[0].tolist()) for w in seen]
    root = tuple(np.asarray(words(own))[0].tolist())
    assert len(set(used)) == len(used)
    assert root not in used
    assert not children_of([root, *used]) & set(used)


@pytest.mark.slow
def test_keys_of_a_galaxy_are_all_different(monkeypatch):
    """Of two runs of HMC and those of its fallbacks: no key is split and folded as well, and
    none is used by two lines."""
    used, folds = defaultdict(set), defaultdict(set)
    steps = []

    def watch(name):
        original = getattr(jax.random, name)

        def watched(key, *arguments, **named):
            frame = sys._getframe(1)
            if frame.f_globals["__name__"].startswith("jaxsed."):
                line = (frame.f_code.co_filename, frame.f_lineno)

                def note(words, number):
                    steps.append(name)
                    for row in np.reshape(words, (-1, 2)).tolist():
                        if name == "fold_in":
                            folds[tuple(row)].add(int(number))
                        else:
                            used[tuple(row)].add(line)

                data = arguments[0] if name == "fold_in" else 0
                jax.debug.callback(note, jax.random.key_data(key), jnp.asarray(data))
            return original(key, *arguments, **named)

        monkeypatch.setattr(jax.random, name, watched)

    compiled = (
        chains.begin_batch, chains.advance_batch, chains.learn_batch,
        single_calls.single_call_batch,
    )  # fmt: skip
    for function in compiled:
        function.clear_cache()
    for name in ("split", "fold_in", "normal", "uniform", "permutation", "choice", "categorical"):
        watch(name)
    monkeypatch.setattr(infer.Diagnostics, "passes", lambda self: np.zeros((), bool))
    slices = infer.AffineInvariant(draws=100, retries=1, starts=1, walkers=8, chains=2)
    infer.sample(jax.random.key(3), toy_problem(), QUICK, fallback=(slices,), slots=1)
    jax.effects_barrier()
    monkeypatch.undo()
    for function in compiled:
        function.clear_cache()
    assert steps.count("fold_in") > 5
    assert not used.keys() & folds.keys()
    assert not {key: lines for key, lines in used.items() if len(lines) > 1}


# ---------------------------------------------------------------- both kinds of keys


class Reached(Exception):
    """A function has taken the key."""


def reach(*arguments, **named):
    raise Reached


def bands_of(key, n):
    return np.zeros((n, 1)), np.ones((n, 1))


TARGET = train.EmulatorTarget(("redshift",), ("r",), box=(np.zeros(1), np.ones(1)))


# the package has functions of these names
SAMPLE, STITCHED, QUICKLY, POSTERIOR = (
    sys.modules[f"jaxsed.{name}"]
    for name in ("infer.sample", "emulators.training.stitched", "infer.approximations",
                 "infer.amortised.posterior")
)  # fmt: skip
SPECTRUM = train_spectral.SpectrumTarget(("z",), np.linspace(1.0, 2.0, 4), None)


def linear_loss(model, batch, key):
    return jnp.mean((batch - model) ** 2)


FIT = FitSettings(learning_rates=(0.1,), batch_size=10, epochs=1, patience=1)


def entries():
    """name: (function of a key, what it reaches: a module and the name of what it calls next)."""
    problem = toy_problem()
    galaxies = family("provabgs")
    cannon = functools.cache(lambda: st.fit_cannon(synthetic(60)))
    return {
        "sample": (
            lambda k: infer.sample(k, problem), (SAMPLE, "Galaxies")
        ),
        "laplace": (lambda k: infer.laplace(k, problem).mean, None),
        "pathfinder": (
            lambda k: infer.pathfinder(k, problem), (QUICKLY, "laplace")
        ),
        "simulate": (
            lambda k: amortised.simulate(k, None, 5, len),
            (POSTERIOR, "_compiled"),
        ),
        "train a flow": (
            lambda k: amortised.train(k, None),
            (POSTERIOR, "simulate"),
        ),
        "fit": (
            lambda k: loop.fit(k, jnp.zeros(()), linear_loss, np.arange(50.0, dtype=np.float32),
                               settings=FIT, progress=False)[0],
            None,
        ),
        "simulate_pairs": (lambda k: pairs.simulate_pairs(k, bands_of, 10, (1, 1)), None),
        "train_photometric": (
            lambda k: train.train_photometric(k, bands_of, TARGET), (train, "simulate_pairs")
        ),
        "train_on": (
            lambda k: train.train_on(k, None, TARGET, None, settings=train.TrainSettings()),
            (train.mlp, "init"),
        ),
        "choose_width": (
            lambda k: widths.choose_width(k, bands_of, TARGET, widths=(2, 4)),
            (widths, "simulate_sets"),
        ),
        "train_stitched": (
            lambda k: STITCHED.train_stitched(
                k, lambda low, high: bands_of, TARGET,
                windows=((0.0, 1.0), (0.9, 2.0)), settings=train.TrainSettings(),
            ),
            (STITCHED, "simulate_sets"),
        ),
        "train_spectrum": (
            lambda k: train_spectral.train_spectrum(k, bands_of, SPECTRUM),
            (train_spectral, "stream"),
        ),
        "train_emulator": (
            lambda k: catalog_train.train_emulator(
                k, galaxies, None, (), redshift_range=(0.0, 1.0), settings=train.TrainSettings()
            ),
            (train, "simulate_pairs"),
        ),
        "train_provabgs_spectrum": (
            lambda k: train_spectra.train_provabgs_spectrum(k, SimpleNamespace(cosmology=None), {}),
            (train_spectra, "training_box"),
        ),
        "mock_galaxies": (
            lambda k: mocks.mock_galaxies(
                k, galaxies, Dusty(), np.array([0.1, 0.2])
            ).flux,
            None,
        ),
        "train a network of stars": (
            lambda k: st.train(k, synthetic(40), "bcnn", progress=False), (networks, "init")
        ),
        "masks of predictions": (
            lambda k: prediction.draw_masks(k, (), 3), None
        ),
        "train_autoencoder": (
            lambda k: autoencoder.train_autoencoder(k, synthetic(40), progress=False),
            (autoencoder, "fit"),
        ),
        "labels by the Cannon": (
            lambda k: stars.cannon_labels(k, cannon(), synthetic(3)).value, None
        ),
        "train a network of halos": (
            lambda k: halo_training.train(k, None, progress=False),
            (halo_training, "galaxy_counts"),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", entries())
def test_functions_take_both_kinds_of_keys(name, monkeypatch):
    run, next_call = entries()[name]
    if next_call is not None:
        monkeypatch.setattr(*next_call, reach)
    monkeypatch.setattr(catalog_train, "emulation", lambda *a, **k: (bands_of, TARGET))
    found = []
    for key in (jax.random.key(7), jax.random.PRNGKey(7), np.asarray(jax.random.PRNGKey(7))):
        if next_call is None:
            found.append(run(key))
        else:
            with pytest.raises(Reached):
                run(key)
    for other in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, found[0], other)
    for wrong in (7, None, jnp.zeros(2), jnp.zeros((2, 3), jnp.uint32)):
        with pytest.raises(ValueError, match="expected a random key, as jax.random.key"):
            run(wrong)


def test_draws_are_the_same_by_either_kind():
    """One galaxy and a batch: the words of the older kind are an axis more."""
    problem = toy_problem()
    two = problem.replace(
        prior=jax.tree.map(lambda a: jnp.broadcast_to(a, (2, *jnp.shape(a))), problem.prior),
        data=jax.tree.map(lambda a: jnp.broadcast_to(a, (2, *jnp.shape(a))), problem.data),
    )
    typed = jax.random.split(jax.random.key(5))
    raw = jax.random.split(jax.random.PRNGKey(5))
    for key, old, target in ((typed[0], raw[0], problem), (typed, raw, two)):
        first, second = (infer.sample(k, target, QUICK, slots=1) for k in (key, old))
        np.testing.assert_array_equal(first.x, second.x)
    with pytest.raises(ValueError, match="expected one random key, got an array"):
        infer.laplace(raw, problem)


def test_several_keys_are_told_from_one():
    assert keys.typed_keys(jax.random.split(jax.random.PRNGKey(0), 5)).shape == (5,)
    assert keys.typed_key(jax.random.PRNGKey(0)).shape == ()
