"""Every continuous distribution of numpyro: carried exactly to normal coordinates, or refused."""

import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints, transforms
from numpyro.distributions.distribution import validation_enabled
from scipy import special, stats

from jaxsed import params
from jaxsed.likelihood import photometry
from jaxsed.params import quantiles
from jaxsed.problem import Problem

N = 5000
LOWER = jnp.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.3, 0.2, 0.5]])
HALVES = dist.Categorical(probs=jnp.array([0.3, 0.7]))

# name: a prior, made in the test so that its arrays have the precision of the test
CARRIED: dict[str, Any] = {
    "AsymmetricLaplace": lambda: dist.AsymmetricLaplace(1.0, 0.5, 2.0),
    "AsymmetricLaplaceQuantile": lambda: dist.AsymmetricLaplaceQuantile(1.0, 0.5, 0.8),
    "Beta": lambda: dist.Beta(2.0, 5.0),
    "Beta, infinite at its ends": lambda: dist.Beta(0.3, 0.6),
    "BetaProportion": lambda: dist.BetaProportion(0.7, 12.0),
    "Cauchy": lambda: dist.Cauchy(1.0, 2.0),
    "Chi2": lambda: dist.Chi2(3.0),
    "CirculantNormal": lambda: dist.CirculantNormal(
        jnp.arange(4.0), covariance_row=jnp.array([1.0, 0.4, 0.1, 0.4])
    ),
    "Dagum": lambda: dist.Dagum(1.5, 3.0, 2.0),
    "Dirichlet": lambda: dist.Dirichlet(jnp.array([8.0, 1.0, 1.0])),
    "Dirichlet, sparse": lambda: dist.Dirichlet(jnp.array([0.5, 0.2, 1.0, 3.0])),
    "Dirichlet, flat": lambda: params.FlatDirichlet(4),
    "DoublyTruncatedPowerLaw": lambda: dist.DoublyTruncatedPowerLaw(-2.35, 0.1, 100.0),
    "DoublyTruncatedPowerLaw, rising": lambda: dist.DoublyTruncatedPowerLaw(1.5, 0.1, 2.0),
    "DoublyTruncatedPowerLaw, of log": lambda: dist.DoublyTruncatedPowerLaw(-1.0, 0.1, 2.0),
    "ExpandedDistribution": lambda: dist.Gamma(2.0, 3.0).expand([3]).to_event(1),
    "Exponential": lambda: dist.Exponential(0.5),
    "Gamma": lambda: dist.Gamma(3.0, 2.0),
    "Gamma, infinite at zero": lambda: dist.Gamma(0.4, 2.0),
    "GaussianCopula": lambda: dist.GaussianCopula(
        dist.Exponential(jnp.array([1.0, 2.0])), jnp.array([[1.0, 0.7], [0.7, 1.0]])
    ),
    "GaussianCopulaBeta": lambda: dist.GaussianCopulaBeta(
        jnp.array([2.0, 3.0]), jnp.array([4.0, 1.5]), jnp.array([[1.0, -0.5], [-0.5, 1.0]])
    ),
    "GaussianRandomWalk": lambda: dist.GaussianRandomWalk(0.5, num_steps=4),
    "Gompertz": lambda: dist.Gompertz(0.7, 2.0),
    "Gumbel": lambda: dist.Gumbel(1.0, 2.0),
    "HalfCauchy": lambda: dist.HalfCauchy(2.0),
    "HalfNormal": lambda: dist.HalfNormal(3.0),
    "Independent": lambda: dist.Laplace(jnp.array([0.0, 1.0]), 0.5).to_event(1),
    "InverseGamma": lambda: dist.InverseGamma(3.0, 2.0),
    "Kumaraswamy": lambda: dist.Kumaraswamy(2.0, 3.0),
    "Laplace": lambda: dist.Laplace(1.0, 2.0),
    "LeftTruncatedDistribution": lambda: dist.TruncatedNormal(0.0, 1.0, low=0.5),
    "LeftTruncatedDistribution, of StudentT": lambda: dist.TruncatedDistribution(
        dist.StudentT(3.0, 1.0, 2.0), low=0.0
    ),
    "LeftTruncatedGamma": lambda: dist.TruncatedGamma(2.0, 1.0, low=1.5),
    "Levy": lambda: dist.Levy(1.0, 2.0),
    "Logistic": lambda: dist.Logistic(1.0, 2.0),
    "LogNormal": lambda: dist.LogNormal(0.5, 0.8),
    "LogUniform": lambda: dist.LogUniform(1e-3, 10.0),
    "LowerTruncatedPowerLaw": lambda: dist.LowerTruncatedPowerLaw(-2.5, 0.5),
    "LowRankMultivariateNormal": lambda: dist.LowRankMultivariateNormal(
        jnp.arange(3.0), jnp.array([[1.0], [0.5], [-1.0]]), jnp.array([0.2, 0.3, 0.4])
    ),
    "MaskedDistribution": lambda: dist.MaskedDistribution(dist.Gamma(2.0, 1.0), True),
    "MixtureGeneral": lambda: dist.MixtureGeneral(
        HALVES, [dist.Normal(-3.0, 0.5), dist.StudentT(3.0, 2.0, 0.3)]
    ),
    "MixtureGeneral, of supports": lambda: dist.MixtureGeneral(
        HALVES, [dist.HalfNormal(1.0), dist.TruncatedNormal(3.0, 0.5, low=2.0)],
        support=constraints.positive,
    ),
    "MixtureSameFamily": lambda: dist.MixtureSameFamily(
        HALVES, dist.LogNormal(jnp.array([0.0, 2.0]), jnp.array([1.0, 0.3]))
    ),
    "MultivariateNormal": lambda: dist.MultivariateNormal(jnp.arange(3.0), scale_tril=LOWER),
    "MultivariateStudentT": lambda: dist.MultivariateStudentT(4.0, jnp.arange(3.0), LOWER),
    "Normal": lambda: dist.Normal(1.0, 0.5),
    "Pareto": lambda: dist.Pareto(2.0, 3.0),
    "RelaxedBernoulliLogits": lambda: dist.RelaxedBernoulliLogits(0.7, 0.5),
    "RightTruncatedDistribution": lambda: dist.TruncatedNormal(0.0, 1.0, high=-3.0),
    "RightTruncatedGamma": lambda: dist.TruncatedGamma(2.0, 1.0, high=1.5),
    "SoftLaplace": lambda: dist.SoftLaplace(1.0, 2.0),
    "StudentT": lambda: dist.StudentT(4.0, 2.0, 0.5),
    "StudentT, of one half": lambda: dist.StudentT(0.5, 2.0, 0.5),
    "StudentT, nearly normal": lambda: dist.StudentT(200.0, 2.0, 0.5),
    "StudentT, of two": lambda: quantiles.StudentT2(2.0, 0.5),
    "TransformedDistribution": lambda: dist.TransformedDistribution(
        dist.Beta(2.0, 5.0), [transforms.AffineTransform(3.0, -2.0)]
    ),
    "TransformedDistribution, to a simplex": lambda: dist.TransformedDistribution(
        dist.Normal(jnp.zeros(3), 0.5).to_event(1), [transforms.StickBreakingTransform()]
    ),
    "TwoSidedTruncatedDistribution": lambda: dist.TruncatedNormal(0.3, 1.0, low=0.0, high=4.0),
    "TwoSidedTruncatedDistribution, of StudentT": lambda: dist.TruncatedDistribution(
        dist.StudentT(5.0, 0.0, 1.0), -1.0, 3.0
    ),
    "TwoSidedTruncatedDistribution, far out": lambda: dist.TruncatedDistribution(
        dist.Laplace(0.0, 1.0), 12.0, 14.0
    ),
    "TwoSidedTruncatedDistribution, of Cauchy": lambda: dist.TruncatedDistribution(
        dist.Cauchy(0.0, 1.0), -1.0, 30.0
    ),
    "TwoSidedTruncatedDistribution, a vector": lambda: params.student_t2(0.3, 5.0, 3),
    "TwoSidedTruncatedGamma": lambda: dist.TruncatedGamma(2.0, 1.0, low=0.5, high=4.0),
    "Uniform": lambda: dist.Uniform(-2.0, 1.0),
    "Weibull": lambda: dist.Weibull(2.0, 1.5),
    "ZeroSumNormal": lambda: dist.ZeroSumNormal(0.5, (4,)),
}  # fmt: skip

MATRIX = "its values are matrices"
CIRCLE = "a circle has no ends"
CENSORED = "censoring belongs to data"
LOWER_TRIANGULAR = jnp.eye(2)

# name: (a prior, why it is refused)
REFUSED: dict[str, Any] = {
    "CAR": (
        lambda: dist.CAR(0.0, 0.5, 1.0, jnp.ones((3, 3)) - jnp.eye(3), is_sparse=False),
        "give its covariance to a MultivariateNormal",
    ),
    "Delta": (lambda: dist.Delta(1.0), "give the number itself"),
    "EulerMaruyama": (
        lambda: dist.EulerMaruyama(
            jnp.linspace(0.0, 1.0, 4), lambda x, t: (-x, 1.0), dist.Normal(0.0, 1.0)
        ),
        "its quantiles are not known",
    ),
    "FoldedDistribution": (lambda: dist.FoldedDistribution(dist.Normal(1.0, 1.0)), "not one to"),
    "GaussianStateSpace": (
        lambda: dist.GaussianStateSpace(3, jnp.eye(2), jnp.eye(2)), MATRIX
    ),
    "HurdleGamma": (lambda: dist.HurdleGamma(0.2, 2.0, 1.0), "probability of its own"),
    "HurdleLogNormal": (lambda: dist.HurdleLogNormal(0.2, 2.0, 1.0), "probability of its own"),
    "ImproperUniform": (
        lambda: dist.ImproperUniform(constraints.real, (), ()), "cannot be normalised"
    ),
    "IntervalCensoredDistribution": (
        lambda: dist.IntervalCensoredDistribution(
            dist.Normal(0.0, 1.0), jnp.array(0), jnp.array(0)
        ),
        CENSORED,
    ),
    "InverseWishart": (lambda: dist.InverseWishart(3.0, scale_matrix=jnp.eye(2)), MATRIX),
    "InverseWishartCholesky": (
        lambda: dist.InverseWishartCholesky(3.0, scale_matrix=jnp.eye(2)), MATRIX
    ),
    "LKJ": (lambda: dist.LKJ(3), MATRIX),
    "LKJCholesky": (lambda: dist.LKJCholesky(3), MATRIX),
    "LeftCensoredDistribution": (
        lambda: dist.LeftCensoredDistribution(dist.Normal(0.0, 1.0), jnp.array(0)), CENSORED
    ),
    "MaskedDistribution": (lambda: dist.Normal(0.0, 1.0).mask(False), "nothing normalises it"),
    "MatrixNormal": (
        lambda: dist.MatrixNormal(jnp.zeros((2, 2)), LOWER_TRIANGULAR, LOWER_TRIANGULAR), MATRIX
    ),
    "MixtureGeneral": (
        lambda: dist.MixtureGeneral(
            HALVES, [dist.Normal(jnp.full(3, loc), 1.0).to_event(1) for loc in (0.0, 1.0)]
        ),
        "its quantiles are not known",
    ),
    "ProjectedNormal": (lambda: dist.ProjectedNormal(jnp.ones(3)), "a sphere has no ends"),
    "RightCensoredDistribution": (
        lambda: dist.RightCensoredDistribution(dist.Normal(0.0, 1.0), jnp.array(0)), CENSORED
    ),
    "SineBivariateVonMises": (
        lambda: dist.SineBivariateVonMises(0.0, 0.0, 1.0, 1.0, correlation=0.5), CIRCLE
    ),
    "SineSkewed": (
        lambda: dist.SineSkewed(
            dist.VonMises(jnp.zeros(1), 1.0).to_event(1), jnp.array([0.5])
        ),
        CIRCLE,
    ),
    "TruncatedPolyaGamma": (lambda: dist.TruncatedPolyaGamma(), "its quantiles are not known"),
    "Unit": (lambda: dist.Unit(jnp.zeros(())), "it has no value"),
    "VonMises": (lambda: dist.VonMises(0.0, 1.0), CIRCLE),
    "Wishart": (lambda: dist.Wishart(3.0, scale_matrix=jnp.eye(2)), MATRIX),
    "WishartCholesky": (lambda: dist.WishartCholesky(3.0, scale_matrix=jnp.eye(2)), MATRIX),
    "a batch": (lambda: dist.Normal(jnp.zeros(3), 1.0), r"to_event\(1\)"),
    "a matrix": (lambda: dist.Normal(jnp.zeros((2, 3)), 1.0).to_event(2), MATRIX),
    "a vector of vectors": (lambda: dist.Dirichlet(jnp.ones((2, 3))).to_event(1), MATRIX),
}  # fmt: skip

DISCRETE = {
    "BernoulliLogits", "BernoulliProbs", "BetaBinomial", "BetaNegativeBinomial", "BinomialLogits",
    "BinomialProbs", "CategoricalLogits", "CategoricalProbs", "DirichletMultinomial",
    "DiscreteUniform", "GammaPoisson", "GeometricLogits", "GeometricProbs", "HurdleLogits",
    "HurdlePoisson", "HurdleProbs", "MultinomialLogits", "MultinomialProbs", "NegativeBinomial2",
    "NegativeBinomialLogits", "NegativeBinomialProbs", "OrderedLogistic", "Poisson",
    "ZeroInflatedLogits", "ZeroInflatedPoisson", "ZeroInflatedProbs",
}  # fmt: skip


class One(NamedTuple):
    a: Any


def _known(table):
    """Entries whose distribution this numpyro has."""
    first = lambda name: name.split(",")[0]  # noqa: E731
    factories = {
        "LeftTruncatedGamma": "TruncatedGamma", "RightTruncatedGamma": "TruncatedGamma",
        "TwoSidedTruncatedGamma": "TruncatedGamma",
    }  # fmt: skip
    return [
        name for name in table
        if hasattr(dist, factories.get(first(name), first(name))) or name.startswith("a ")
    ]  # fmt: skip


# Of every way that values are found; the tests of the others are slow.
FEW = {
    "Dirichlet", "Dirichlet, flat", "HalfNormal", "InverseGamma", "Levy", "MultivariateNormal",
    "StudentT", "TransformedDistribution, to a simplex", "TwoSidedTruncatedDistribution", "Uniform",
}  # fmt: skip


def _marked(but=()):
    """Names of priors, marked slow unless they are of the few, and not among `but`."""
    fast = FEW - set(but)
    return [
        name if name in fast else pytest.param(name, marks=pytest.mark.slow)
        for name in _known(CARRIED)
    ]


def test_every_distribution_of_numpyro_is_carried_or_refused():
    """A release of numpyro with a new distribution ends here: carry it, or say why not."""
    found = {
        name
        for name in dist.__all__
        if inspect.isclass(kind := getattr(dist, name)) and issubclass(kind, dist.Distribution)
    } - {"Distribution"}
    listed = {name.split(",")[0] for name in CARRIED} | set(REFUSED) | DISCRETE
    assert found - listed == set()


def _names(prior):
    """Names of the classes of a distribution, and of that of which a vector is made."""
    kinds = type(prior).__mro__ + type(getattr(prior, "base_dist", None)).__mro__
    return {kind.__name__ for kind in kinds}


@pytest.mark.parametrize("name", _known(REFUSED))
def test_what_cannot_be_carried_is_refused(name):
    make, reason = REFUSED[name]
    with pytest.raises(ValueError, match=rf"prior of a: .*{reason}"):
        params.check(One(make()))
    with pytest.raises(ValueError, match=rf"prior of a: .*{reason}"):
        params.dimension(One(make()))


def _draw(prior):
    return jax.jit(jax.vmap(lambda u: params.draw(One(prior), u).a))


def _flat(values):
    values = np.asarray(values, float)
    return values.reshape(len(values), -1)


@pytest.mark.parametrize("name", _marked())
def test_draws_are_of_the_prior(name):
    """Marginals by Kolmogorov-Smirnov against numpyro's own draws, and moments."""
    prior = CARRIED[name]()
    assert name.split(",")[0] in _names(prior)
    key_u, key_own = jax.random.split(jax.random.key(7))
    n = params.dimension(One(prior))
    drawn = _draw(prior)(jax.random.normal(key_u, (N, n)))
    own = jax.jit(lambda key: prior.sample(key, (N,)))(key_own)
    assert drawn.shape == own.shape
    ours, theirs = _flat(drawn), _flat(own)
    assert np.isfinite(ours).all()
    for k in range(ours.shape[1]):
        assert stats.ks_2samp(ours[:, k], theirs[:, k]).pvalue > 1e-4, k
        if k:  # what is shared with the value before
            pairs = (ours[:, k] - ours[:, k - 1], theirs[:, k] - theirs[:, k - 1])
            assert stats.ks_2samp(*pairs).pvalue > 1e-4, k
    try:
        moments = jax.jit(lambda: (prior.mean, prior.variance))()
        mean, variance = (_flat(np.asarray(m)[None])[0] for m in moments)
    except NotImplementedError:
        return
    if np.isfinite(variance).all() and (variance > 0).all():
        error = np.sqrt(variance / N)
        np.testing.assert_array_less(np.abs(ours.mean(0) - mean), 5 * error)


def _log_volume(jacobian, prior):
    if isinstance(prior.support, type(constraints.simplex)):
        jacobian = jacobian[:-1]  # a density over all but the last share
    return 0.5 * np.linalg.slogdet(jacobian.T @ jacobian)[1]


@pytest.mark.parametrize("name", _marked(but=("InverseGamma", "StudentT")))
def test_density_is_that_of_the_prior(name, x64):
    """-u.u/2 + excess - ln|d theta/du| is the log density of numpyro, by finite differences and
    by derivatives."""
    prior = CARRIED[name]()
    n = params.dimension(One(prior))
    u = 1.5 * jax.random.normal(jax.random.key(3), (12, n), dtype=float)

    def value(u):
        theta, same, excess = params.constrain(One(prior), u)
        return jnp.ravel(theta.a), jnp.sum(jnp.abs(same - u)) + jnp.abs(excess)

    h = 1e-5
    run = jax.jit(jax.vmap(lambda u: (value(u), jax.jacfwd(value)(u)[0])))
    (theta, extra), slopes = run(u)
    np.testing.assert_array_equal(extra, 0.0)
    steps = h * jnp.eye(n)
    sides = jax.jit(jax.vmap(lambda u: jax.vmap(lambda d: value(u + d)[0])(jnp.concatenate(
        [steps, -steps]
    ))))(u)  # fmt: skip
    differences = np.swapaxes(np.asarray(sides[:, :n] - sides[:, n:]) / (2 * h), 1, 2)
    scale = np.abs(differences).max()
    np.testing.assert_allclose(slopes, differences, rtol=1e-4, atol=1e-7 * scale)
    expected = jax.jit(prior.log_prob)(theta.reshape(-1, *prior.event_shape))
    for i in range(len(u)):
        got = -0.5 * np.sum(u[i] ** 2) - 0.5 * n * np.log(2 * np.pi)
        got -= _log_volume(differences[i], prior)
        assert got == pytest.approx(float(expected[i]), abs=2e-5), u[i]
    back = jax.jit(jax.vmap(lambda v: params.unconstrain(One(prior), One(v.reshape(
        prior.event_shape
    )))))(theta)  # fmt: skip
    np.testing.assert_allclose(back, u, atol=1e-5)


@pytest.mark.parametrize("name", _marked(but=("Dirichlet",)))
def test_edges_in_32_bit(name):
    """Out to eight standard deviations: finite values and gradients, inside the support, and the
    coordinates of a value are its own."""
    prior = CARRIED[name]()
    n = params.dimension(One(prior))
    u = jnp.concatenate([e * s for e in (8, 5, 2, 1e-3) for s in (jnp.eye(n), -jnp.eye(n))])
    u = jnp.concatenate([u, jnp.zeros((1, n)), 8 * jnp.ones((1, n)), -8 * jnp.ones((1, n))])

    def scalar(u):
        theta, _, excess = params.constrain(One(prior), u)
        return jnp.sum(theta.a) + excess, theta

    def all_of(u):
        (_, theta), gradient = jax.value_and_grad(scalar, has_aux=True)(u)
        again = params.constrain(One(prior), params.unconstrain(One(prior), theta))[0]
        slope = jax.grad(lambda u: params.log_slope(One(prior), scalar(u)[1], u))(u)
        return theta.a, gradient, again.a, params.within(One(prior), theta), slope

    value, gradient, again, inside, _ = jax.jit(jax.vmap(all_of))(u)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()
    assert np.asarray(inside).all()
    close = u.shape[0] - 3 - 2 * n, u.shape[0] - 2  # two standard deviations and less
    middle = slice(4 * n, close[1])
    np.testing.assert_allclose(again[middle], value[middle], rtol=3e-3, atol=2e-4)
    if n == 1:  # monotone, and never stuck
        order = np.argsort(np.asarray(u[:, 0]), kind="stable")
        steps = np.diff(np.asarray(value, float)[order])
        assert (steps >= 0).all() or (steps <= 0).all()


# Values of our own inversions against scipy's, from tail to tail.
FAMILIES = {
    **{
        f"beta {a} {b}": (
            lambda a=a, b=b: dist.Beta(a, b), stats.beta(a, b), (lambda d, x: np.log(x))
        )
        for a, b in ((0.2, 0.3), (1.0, 9.0), (2.5, 0.7), (40.0, 60.0), (300.0, 2.0))
    },
    **{
        f"gamma {a}": (
            lambda a=a: dist.Gamma(a, 2.0), stats.gamma(a, scale=0.5), (lambda d, x: np.log(x))
        )
        for a in (0.3, 1.0, 2.5, 30.0, 400.0)
    },
    **{
        f"student {df}": (
            lambda df=df: dist.StudentT(df, 0.0, 1.0), stats.t(df), (lambda d, x: np.arcsinh(x))
        )
        for df in (0.7, 1.0, 2.0, 3.3, 10.0, 100.0)
    },
}  # fmt: skip


FAST = {("beta 0.2 0.3", 32), ("gamma 2.5", 32), ("student 3.3", 32)}


def _scipy_quantile(law, u):
    return np.where(u < 0, law.ppf(special.ndtr(u)), law.isf(special.ndtr(-u)))


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        pytest.param(name, bits, marks=[] if (name, bits) in FAST else [pytest.mark.slow])
        for name in FAMILIES
        for bits in (32, 64)
    ],
)
def test_inversions_agree_with_scipy(name, bits):
    make, law, scale = FAMILIES[name]
    u = np.linspace(-7.0, 7.0, 29)
    with jax.enable_x64(bits == 64):
        prior = make()
        run = jax.jit(jax.vmap(lambda u: params.from_normal(prior, u)[0]))
        got = np.asarray(run(jnp.asarray(u, float)), float)
    wanted = _scipy_quantile(law, u)
    tiny = np.finfo(np.float32).tiny
    fits = np.abs(wanted) > 10 * tiny if bits == 32 else np.ones(u.shape, bool)
    fits |= wanted == 0
    if bits == 32 and name.startswith("student"):
        # JAX's incomplete beta function loses tails below 1e-7 of many degrees of freedom.
        fits &= np.abs(u) <= 5
    tolerance = 3e-4 if bits == 32 else 1e-6
    np.testing.assert_allclose(
        scale(law, got)[fits], scale(law, wanted)[fits], rtol=tolerance, atol=tolerance
    )


def test_parameters_of_an_inversion_have_derivatives(x64):
    """A prior may follow another parameter; where JAX cannot differentiate, it says so."""

    def median_like(a):
        return params.from_normal(dist.Gamma(a, 2.0), jnp.asarray(0.7))[0]

    value = jax.jit(median_like)
    slope = (value(3.0 + 1e-5) - value(3.0 - 1e-5)) / 2e-5
    assert jax.jit(jax.grad(median_like))(3.0) == pytest.approx(float(slope), rel=1e-5)
    student = jax.jit(jax.grad(lambda s: params.from_normal(dist.StudentT(5.0, 1.0, s), 0.7)[0]))
    scaled = student(2.0)
    assert scaled == pytest.approx(stats.t(5).ppf(special.ndtr(0.7)), rel=1e-6)
    with pytest.raises(ValueError, match="not supported"):
        jax.jit(jax.grad(lambda a: params.from_normal(dist.Beta(a, 2.0), jnp.asarray(0.7))[0]))(3.0)


@pytest.mark.slow
def test_second_derivatives(x64):
    for prior in (dist.Gamma(2.5, 1.0), dist.StudentT(4.0, 0.0, 1.0)):
        value = lambda u, p=prior: params.from_normal(p, u)[0]  # noqa: E731
        for u in (-1.3, 0.0, 0.9):
            near = [float(jax.grad(value)(u + h)) for h in (1e-5, -1e-5)]
            bend = float(jax.grad(jax.grad(value))(u))
            assert bend == pytest.approx((near[0] - near[1]) / 2e-5, rel=1e-4, abs=1e-6)


RECOORDINATED = {
    "uniform in log-uniform": lambda: (dist.LogUniform(0.01, 13.0), dist.Uniform(0.01, 13.0)),
    "beta in uniform": lambda: (dist.Uniform(0.0, 1.0), dist.Beta(2.0, 5.0)),
    "normal in Student-t": lambda: (dist.StudentT(3.0, 0.0, 1.0), dist.Normal(0.5, 0.6)),
    "log-normal in gamma": lambda: (dist.Gamma(1.0, 0.5), dist.LogNormal(0.2, 0.5)),
    "Dirichlet in flat": lambda: (
        params.FlatDirichlet(3), dist.Dirichlet(jnp.array([4.0, 1.0, 2.0]))
    ),
}  # fmt: skip


TWINS = {"beta in uniform", "normal in Student-t"}
"""Of another one that is tested."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in TWINS else name
        for name in RECOORDINATED
    ],
)
def test_other_coordinates_keep_the_prior(name):
    """Normal draws of x with weights exp(excess) are of the prior; so are plain draws of `draw`."""
    base, prior = RECOORDINATED[name]()
    theta = One(params.Recoordinated(base, prior))
    params.check(theta)
    key_u, key_own = jax.random.split(jax.random.key(5))
    u = jax.random.normal(key_u, (N, params.dimension(theta)))
    moved, _, excess = jax.jit(jax.vmap(lambda u: params.constrain(theta, u)))(u)
    weight = np.exp(np.asarray(excess, float))
    weight /= weight.sum()
    drawn = jax.jit(jax.vmap(lambda u: params.draw(theta, u)))(u)
    moved, drawn, own = (_flat(a) for a in (moved.a, drawn.a, prior.sample(key_own, (N,))))
    count = 1 / np.sum(weight**2)
    assert count > 300
    for k in range(own.shape[1]):
        assert stats.ks_2samp(drawn[:, k], own[:, k]).pvalue > 1e-4
        order = np.argsort(moved[:, k])
        share = np.searchsorted(np.sort(own[:, k]), moved[order, k], side="right") / N
        gap = np.abs(np.cumsum(weight[order]) - share).max()
        assert gap < 2.2 * np.sqrt(1 / count + 1 / N)


@pytest.mark.parametrize(
    ("base", "prior"),
    [
        (lambda: dist.Uniform(0.0, 1.0), lambda: dist.Uniform(0.0, 2.0)),
        (lambda: dist.Uniform(0.0, 2.0), lambda: dist.Beta(2.0, 2.0)),
        (lambda: dist.Gamma(2.0, 1.0), lambda: dist.Normal(0.0, 1.0)),
        (lambda: dist.Normal(jnp.zeros(3), 1.0).to_event(1), lambda: dist.Dirichlet(jnp.ones(3))),
        (lambda: dist.Normal(0.0, 1.0), lambda: dist.Normal(jnp.zeros(2), 1.0).to_event(1)),
    ],
)
def test_a_base_of_another_support_is_refused(base, prior):
    with pytest.raises(ValueError, match="prior of a: .*(supports|dimension)"):
        params.check(One(params.Recoordinated(base(), prior())))
    with pytest.raises(ValueError, match="prior of a: .*(supports|dimension)"):
        params.check(One(params.Recoordinated(base(), given=lambda theta: prior())))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: dist.Uniform(1.0, 0.0), "low < high"),
        (lambda: dist.Uniform(0.0, 0.0), "low < high"),
        (lambda: dist.Uniform(0.0, jnp.nan), "high = nan"),
        (lambda: dist.Uniform(-jnp.inf, 0.0), "low = -inf"),
        (lambda: dist.LogUniform(0.0, 1.0), "low = 0"),
        (lambda: dist.Normal(0.0, -1.0), "scale = -1"),
        (lambda: dist.Normal(jnp.nan, 1.0), "loc = nan"),
        (lambda: dist.Normal(jnp.array([0.0, jnp.inf]), 1.0).to_event(1), "loc"),
        (lambda: dist.TruncatedNormal(0.0, 1.0, low=2.0, high=1.0), "low < high"),
        (lambda: dist.TruncatedNormal(0.0, 0.0, low=0.0, high=1.0), "scale = 0"),
        (lambda: dist.StudentT(0.0, 0.0, 1.0), "df = 0"),
        (lambda: dist.Dirichlet(jnp.array([1.0, 0.0])), "concentration"),
        (lambda: dist.Gamma(2.0, jnp.inf), "rate = inf"),
        (
            lambda: dist.MultivariateNormal(jnp.zeros(2), jnp.array([[1.0, 2.0], [2.0, 1.0]])),
            "scale_tril|covariance_matrix",
        ),
    ],
)
def test_bad_parameters_are_refused(make, complaint):
    with validation_enabled(False):  # numpyro's own, which not every parameter has
        prior = make()
    with pytest.raises(ValueError, match=f"prior of a: .*({complaint})"):
        params.check(One(prior))
    with pytest.raises(ValueError, match=f"prior of a: .*({complaint})"):
        params.check(One(params.Recoordinated(dist.Normal(0.0, 1.0), prior)))


def test_distributions_by_name_are_looked_at():
    for name, args in {
        "uniform": (1.0, 0.0), "log_uniform": (-1.0, 2.0), "normal": (0.0, 0.0),
        "truncated_normal": (0.0, 1.0, 3.0, 2.0), "student_t": (-2.0, 0.0, 1.0),
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match="out of its range|low < high|got invalid"):
            params.distribution(name, *args)
    with pytest.raises(ValueError, match="truncated_normal takes 4 numbers, got 2"):
        params.distribution("truncated_normal", 0.0, 1.0)
    with pytest.raises(ValueError, match="unknown distribution 'flat'"):
        params.distribution("flat")


def test_shares_of_a_long_simplex_are_within_it():
    prior = One(dist.Dirichlet(jnp.full(400, 0.7)))
    u = jax.random.normal(jax.random.key(0), (30, 399))
    theta = jax.jit(jax.vmap(lambda u: params.draw(prior, u)))(u)
    within = jax.jit(lambda t: params.within(prior, t))
    assert np.asarray(jax.jit(jax.vmap(within))(theta)).all()
    # The rounding of the shares themselves, of a sum in another order, or of a file.
    assert within(One(jnp.full(400, (1 + 5e-6) / 400)))
    assert not within(One(jnp.full(400, 1 / 390)))
    assert not params.within(One(dist.Uniform(0.0, 1.0)), One(jnp.asarray(1.1)))


class Line(NamedTuple):
    log_mass_formed: Any
    slope: Any


@pytest.mark.parametrize(
    "mass",
    [
        lambda: dist.Uniform(8.0, 12.0),
        lambda: dist.Normal(10.0, 0.5),
        pytest.param(lambda: dist.StudentT(3.0, 10.0, 0.5), marks=pytest.mark.slow),
        pytest.param(
            lambda: dist.TruncatedNormal(9.0, 1.0, low=8.0, high=12.0), marks=pytest.mark.slow
        ),
        lambda: params.Recoordinated(dist.Uniform(8.0, 12.0), dist.TruncatedNormal(
            9.0, 1.0, low=8.0, high=12.0
        )),
        lambda: 10.0,
    ],
    ids=["uniform", "normal", "Student-t", "truncated", "recoordinated", "known"],
)  # fmt: skip
def test_any_prior_of_the_mass(mass, x64):
    """The shear along the mass is for uniform priors; the density is right for all."""
    data = photometry(np.array([2e-10, 3e-10, 5e-10]), np.full(3, 4e-11), np.ones(3, int))
    wave = jnp.array([0.5, 1.0, 2.0])

    def forward(theta):
        return 10.0 ** (theta.log_mass_formed - 19.5) * wave**theta.slope

    prior = Line(mass(), dist.Laplace(0.5, 0.5))
    problem = Problem(prior, forward, data)
    own = prior.log_mass_formed
    own = own.prior if isinstance(own, params.Recoordinated) else own

    @jax.jit
    @jax.vmap
    def gap(x):
        theta = problem.constrain(x)
        free = theta if problem.dimension == 2 else theta[1:]
        jacobian = jax.jacfwd(lambda x: jnp.stack(problem.constrain(x)[-problem.dimension :]))(x)
        ours = prior.slope.log_prob(theta.slope) + jnp.linalg.slogdet(jacobian)[1]
        ours += 0.0 if len(free) == 1 else own.log_prob(theta.log_mass_formed)
        ours += problem.log_likelihood(forward(theta))
        return problem.logdensity(x) - ours, problem.unconstrain(theta) - x

    x = 0.8 * jax.random.normal(jax.random.key(2), (20, problem.dimension), dtype=float)
    constant, back = gap(x)
    np.testing.assert_allclose(constant, constant[0], atol=1e-8)
    np.testing.assert_allclose(back, 0.0, atol=1e-6)
