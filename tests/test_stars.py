"""Labels of stars from their spectra."""

import dataclasses

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from jaxsed import stars as st
from jaxsed.learn import FitSettings
from jaxsed.stars import apogee, autoencoder, cannon, model, networks, training
from jaxsed.stars.data import StarFlag, check_grid

LABELS = ("teff", "logg", "fe", "Mg", "Al")
PIXELS = 60
SMALL = networks.Architecture(
    filters=(2, 3), taps=4, pool=2, dense=(12, 8), dropout=0.2, scale=None, branch=(6, 4),
    wide_branch=(8, 5), wide=15,
)  # fmt: skip


def windows():
    """Of magnesium (narrow) and aluminium (wide)."""
    mg, al = np.zeros(PIXELS), np.zeros(PIXELS)
    mg[[4, 5, 6, 30]] = 1
    al[40:58] = 1
    return {"Mg": mg, "Al": al}


def synthetic(n, seed=0, noise=0.01, missing=0.0):
    """Spectra linear in the labels; abundances act in their windows alone."""
    generator = np.random.default_rng(seed)
    scaled = generator.normal(size=(n, 5))
    slope = np.random.default_rng(99).normal(scale=0.03, size=(5, PIXELS))
    for row, window in ((3, windows()["Mg"]), (4, windows()["Al"])):
        slope[row] *= window
    flux = 1 - 0.2 * np.abs(np.sin(np.arange(PIXELS))) + scaled @ slope
    error = np.full_like(flux, noise)
    labels = np.array([4800.0, 2.5, -0.2, 0.1, 0.0]) + scaled * [300, 0.6, 0.3, 0.2, 0.2]
    labels[generator.random(labels.shape) < missing] = -9999.0
    wave = 15000 + 0.3 * np.arange(PIXELS)
    return st.spectra(
        wave, flux + noise * generator.normal(size=flux.shape), error, names=LABELS,
        labels=labels, label_error=np.full_like(labels, 1e-3), windows=windows(),
    )  # fmt: skip


def settings(**changes):
    schedule = FitSettings(
        optimizer="adam", learning_rates=(5e-3, 1e-3), batch_size=32, epochs=40, patience=40
    )
    return st.StarSettings(architecture=SMALL, fit=schedule, **changes)


@pytest.fixture(scope="module")
def trained():
    found, _ = st.train(
        jax.random.key(0), synthetic(700, missing=0.1), "censored", settings=settings(),
        progress=False,
    )  # fmt: skip
    return found


# ------------------------------------------------------------------ networks


def test_parameter_counts_are_those_published():
    """astroNN's censored network on the DR14 windows has 3,499,122 parameters."""
    names = {"teff": "teff", "logg": "logg", "fe": "fe"} | {e: e for e in apogee.windows()}
    names.pop("Fe")
    known = apogee.windows()
    net = jax.eval_shape(
        lambda key: networks.init(key, "censored", 7514, tuple(names), windows=known),
        jax.random.key(0),
    )
    assert networks.parameter_count(net) == 3_499_122
    plain = jax.eval_shape(
        lambda key: networks.init(key, "bcnn", 7514, tuple(names)), jax.random.key(0)
    )
    convolutions = 8 * 2 + 2 + 8 * 2 * 4 + 4
    dense = 7512 * 196 + 196 + 196 * 96 + 96
    assert networks.parameter_count(plain) == convolutions + dense + 2 * (96 * 22 + 22)


def test_a_branch_sees_its_window_the_latents_and_the_parameters_alone():
    """The derivative of magnesium by any pixel outside its window goes through the two linear
    neurons and the three parameters: with these held, it vanishes exactly."""
    net = networks.init(jax.random.key(1), "censored", PIXELS, LABELS, windows=windows(),
                        architecture=SMALL)  # fmt: skip
    x = 0.1 * jax.random.normal(jax.random.key(2), (PIXELS,))

    @jax.jit
    def elements(x_window, x_whole):
        whole, _ = net.first(x_whole)
        _, own = net.first(x_window)
        return net.rest((whole, own), None)

    def split(i, argument):
        value = jax.jacfwd(lambda a, b: elements(a, b).value[i], argument)(x, x)
        variance = jax.jacfwd(lambda a, b: elements(a, b).log_variance[i], argument)(x, x)
        return np.asarray(jnp.abs(value) + jnp.abs(variance))

    for i, name in ((3, "Mg"), (4, "Al")):
        inside = windows()[name] > 0
        by_window = split(i, 0)
        assert (by_window[~inside] == 0).all()
        assert (by_window[inside] > 0).all()
        # What comes from the whole spectrum is a function of five numbers: a rank of five at most.
        assert (split(i, 1) > 0).any()

    def told(x_whole):
        """The last inputs of the branches that do not come from the window."""
        return elements(x, x_whole).last[3][-5:], elements(x, x_whole).last[4][-5:]

    for_mg, for_al = told(x)
    np.testing.assert_array_equal(for_mg, for_al)
    value = elements(x, x).value
    np.testing.assert_array_equal(for_mg[2:], value[:3])


def test_elements_do_not_teach_the_parameters():
    """No gradient flows from an element's label through the three parameters' heads."""
    net = networks.init(jax.random.key(1), "censored", PIXELS, LABELS, windows=windows(),
                        architecture=SMALL)  # fmt: skip
    x = 0.1 * jax.random.normal(jax.random.key(2), (PIXELS,))
    grad = jax.jit(jax.grad(lambda net: networks.run(net, x).value[3]))(net)
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(grad.heads))
    assert (np.asarray(grad.link[0]) != 0).any()


def test_neurons_of_the_link_are_short():
    net = networks.init(jax.random.key(1), "censored", PIXELS, LABELS, windows=windows(),
                        architecture=SMALL)  # fmt: skip
    x = jax.random.normal(jax.random.key(2), (PIXELS,))
    w, b = net.link
    long = dataclasses.replace(net, link=(1e3 * w, b))
    longer = dataclasses.replace(net, link=(1e6 * w, b))
    np.testing.assert_allclose(
        networks.run(long, x).value, networks.run(longer, x).value, rtol=1e-4, atol=1e-5
    )
    latent = networks.run(long, x).last[3][-5:-3]
    h = networks.run(long, x).last[0]
    assert (np.abs(latent) <= SMALL.link_norm * np.linalg.norm(h) * 1.001).all()


@pytest.mark.parametrize("kind", sorted(networks.PUBLISHED))
def test_masks_leave_the_mean_alone(kind):
    sizes = dataclasses.replace(SMALL, mask_convolution=True)
    net = networks.init(jax.random.key(1), kind, PIXELS, LABELS, windows=windows(),
                        architecture=sizes)  # fmt: skip
    masks = jax.vmap(net.masks)(jax.random.split(jax.random.key(3), 4000))
    for mask in jax.tree.leaves(masks):
        assert set(np.unique(mask)) == {0.0, np.float32(1 / 0.8)}
        assert abs(float(mask.mean()) - 1) < 5 * 0.5 / np.sqrt(mask.size)


@pytest.mark.parametrize(
    ("kind", "labels", "given", "complaint"),
    [
        ("cnn", LABELS, windows(), "unknown network"),
        ("censored", ("logg", "fe", "Mg"), windows(), "teff"),
        ("censored", LABELS, {"Mg": windows()["Mg"]}, "'Al' needs a window"),
        ("censored", LABELS, windows() | {"Al": np.zeros(PIXELS)}, "0 of 60"),
    ],
)
def test_impossible_networks_are_refused(kind, labels, given, complaint):
    with pytest.raises(ValueError, match=complaint):
        networks.init(jax.random.key(0), kind, PIXELS, labels, windows=given)


# ------------------------------------------------------------------ loss


def test_the_loss_is_that_of_the_paper():
    """Equations 5 to 7, written out in numpy."""
    generator = np.random.default_rng(0)
    y, yhat, s = generator.normal(size=(3, 4))
    known = np.array([0.1, 0.0, 0.5, 0.2])
    present = np.array([1.0, 1.0, 0.0, 1.0])
    batch = training.Batch(x=None, y=y, variance=known**2, present=present)
    found = training.loss_of(networks.Outputs(jnp.array(yhat), jnp.array(s), ()), batch)
    total = np.log(known**2 + np.exp(s))
    j = np.where(present > 0, 0.5 * (y - yhat) ** 2 * np.exp(-total) + 0.5 * total, 0.0)
    np.testing.assert_allclose(found, j.mean() * 4 / 3, rtol=1e-5)
    none = batch._replace(present=np.zeros(4))
    assert float(training.loss_of(networks.Outputs(jnp.array(yhat), jnp.array(s), ()), none)) == 0


def test_a_missing_label_teaches_nothing():
    stars = synthetic(20, missing=0.3)
    scaling = training.scaling_of(stars)
    batch = training.batch_of(stars, scaling)
    net = networks.init(jax.random.key(1), "bcnn", PIXELS, LABELS, architecture=SMALL)

    def total(y):
        changed = batch._replace(y=y)
        run = jax.vmap(lambda x: networks.run(net, x))(batch.x)
        return jnp.sum(jax.vmap(training.loss_of)(run, changed))

    slope = np.asarray(jax.grad(total)(jnp.asarray(batch.y)))
    assert ((slope == 0) == (batch.present == 0)).all()


def test_weight_decay_acts():
    net = networks.init(jax.random.key(1), "bcnn", PIXELS, LABELS, architecture=SMALL)
    stars = synthetic(8)
    batch = training.batch_of(stars, training.scaling_of(stars))
    slopes = [
        jax.grad(training._loss(l2, 0.0))(net, (batch, None), jax.random.key(0))
        for l2 in (0.0, 0.5)
    ]
    gap = slopes[1].trunk.dense[0][0] - slopes[0].trunk.dense[0][0]
    np.testing.assert_allclose(gap, net.trunk.dense[0][0], rtol=1e-3, atol=1e-6)


# ------------------------------------------------------------------ training and prediction


def test_labels_of_unseen_stars_and_their_uncertainties(trained):
    unseen = synthetic(500, seed=1)
    found = trained.predict(jax.random.key(1), unseen, draws=50)
    spread = np.array([training.robust_scatter(d) for d in (found.value - unseen.labels).T])
    # The labels vary by these; noise alone would allow a tenth to a sixth of them.
    assert (spread < 0.4 * np.array([300, 0.6, 0.3, 0.2, 0.2])).all(), spread
    inside, far = st.coverage(found.value, found.std, unseen.labels)
    assert (np.abs(inside - 0.683) < 0.15).all(), inside
    assert (far > 0.88).all(), far
    assert (found.flag == 0).mean() > 0.95


def test_a_prediction_does_not_depend_on_its_neighbours(trained):
    unseen = synthetic(300, seed=1)
    together = trained.predict(jax.random.key(1), unseen, draws=5)
    alone = trained.predict(jax.random.key(1), unseen.take([280]), draws=5)
    np.testing.assert_allclose(alone.value[0], together.value[280], rtol=2e-5)
    np.testing.assert_allclose(alone.std[0], together.std[280], rtol=2e-3)


def test_the_draws_are_those_of_a_plain_loop(trained):
    unseen = synthetic(3, seed=1)
    found = trained.predict(jax.random.key(1), unseen, draws=7)
    net = trained.members[0]
    masks = model._draw_masks(jax.random.key(1), trained.members, 7)[0]
    values, variances = [], []
    for d in range(7):
        mask = jax.tree.map(lambda a, d=d: a[d], masks)
        outs = [networks.run(net, trained.scaling.inputs(f), mask) for f in unseen.flux]
        values.append([o.value for o in outs])
        variances.append([o.log_variance for o in outs])
    mean, std = np.asarray(trained.scaling.mean), np.asarray(trained.scaling.std)
    np.testing.assert_allclose(found.value, mean + std * np.mean(values, axis=0), rtol=1e-4)
    np.testing.assert_allclose(found.std_model, std * np.std(values, axis=0), rtol=2e-3)
    np.testing.assert_allclose(
        found.std_predictive, std * np.exp(0.5 * np.mean(variances, axis=0)), rtol=1e-3
    )


def test_flux_errors_are_propagated_to_first_order(trained):
    star = synthetic(1, seed=1)
    found = trained.predict(jax.random.key(1), star, flux_errors=True)
    moved = star.flux + 1e-2 * np.random.default_rng(0).normal(size=(4000, PIXELS))
    labels = jax.vmap(trained)(jnp.asarray(moved, jnp.float32))
    np.testing.assert_allclose(found.std_flux[0], np.std(labels, axis=0), rtol=0.3)
    assert (trained.predict(jax.random.key(1), star).std_flux == 0).all()


def test_spectra_unlike_the_training_are_flagged(trained):
    odd = synthetic(50, seed=1)
    odd = dataclasses.replace(odd, flux=odd.flux + np.linspace(-0.8, 0.8, PIXELS, dtype=np.float32))
    found = trained.predict(jax.random.key(1), odd)
    assert (found.flag & int(StarFlag.OUTSIDE_TRAINING)).astype(bool).mean() > 0.9
    assert (found.distance > 1).mean() > 0.9


def test_a_saved_model_is_the_same(trained, tmp_path):
    unseen = synthetic(5, seed=1)
    trained.save(tmp_path / "model.h5")
    again = model.load(tmp_path / "model.h5")
    for a, b in zip(
        trained.predict(jax.random.key(1), unseen, draws=3),
        again.predict(jax.random.key(1), unseen, draws=3),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    assert again.record == trained.record
    assert again.record.validation == trained.record.validation


def test_an_ensemble_and_a_laplace_layer(tmp_path):
    stars = synthetic(300)
    sizes = dataclasses.replace(SMALL, dropout=0.0)
    few = dataclasses.replace(settings(), architecture=sizes, laplace=True, members=2)
    few = dataclasses.replace(few, fit=dataclasses.replace(few.fit, epochs=10))
    found, histories = st.train(jax.random.key(0), stars, "bcnn", settings=few, progress=False)
    assert len(histories) == 2
    unseen = synthetic(40, seed=1)
    both = found.predict(jax.random.key(1), unseen)
    without = dataclasses.replace(found, laplace=None).predict(jax.random.key(1), unseen)
    np.testing.assert_allclose(both.value, without.value)
    assert (both.std_model > without.std_model).all()
    one = dataclasses.replace(found, members=found.members[:1], laplace=None)
    assert (one.predict(jax.random.key(1), unseen).std_model < 1e-3 * both.std_model).all()
    found.save(tmp_path / "model.h5")
    again = model.load(tmp_path / "model.h5").predict(jax.random.key(1), unseen)
    np.testing.assert_array_equal(again.std, both.std)


def test_the_laplace_covariance_is_that_of_linear_regression():
    """Of a linear layer with known variances, the Bayesian posterior in closed form."""
    stars = synthetic(40, missing=0.2)
    scaling = training.scaling_of(stars)
    batch = training.batch_of(stars, scaling)
    net = networks.init(jax.random.key(1), "bcnn", PIXELS, LABELS, architecture=SMALL)
    record = model.Record("bcnn", LABELS, (), 40, (), (), 0)
    found = model.StarModel((net,), scaling, model.reach_of(net, scaling, stars.flux),
                            jnp.ones(5), None, record)  # fmt: skip
    covariance = training.with_laplace(found, batch).laplace[0][2]
    a = np.stack([np.append(networks.run(net, x).last[2], 1.0) for x in batch.x])
    out = [networks.run(net, x).log_variance[2] for x in batch.x]
    weight = batch.present[:, 2] / (np.exp(out) + batch.variance[:, 2])
    expected = np.linalg.inv((a.T * weight) @ a + np.eye(a.shape[1]))
    np.testing.assert_allclose(covariance, expected, rtol=1e-3, atol=1e-6)


# ------------------------------------------------------------------ bad input


def test_hostile_spectra_are_flagged_and_lose_nothing_else(trained):
    stars = synthetic(6, seed=1)
    flux, error = stars.flux.copy(), stars.error.copy()
    flux[1] = np.nan
    error[2, 3] = -1.0
    error[3, 4] = 0.0
    flux[4, 5] = np.inf
    error[5, : int(0.5 * PIXELS)] = np.inf
    bad = st.spectra(stars.wave, flux, error)
    found = trained.predict(jax.random.key(1), bad, flux_errors=True)
    assert found.flag[0] & ~int(StarFlag.OUTSIDE_TRAINING) == 0
    assert found.flag[1] & int(StarFlag.NO_PIXELS)
    assert np.isnan(found.value[1]).all() and np.isnan(found.std[1]).all()
    assert found.flag[2] & int(StarFlag.BAD_ERRORS) and found.flag[3] & int(StarFlag.BAD_ERRORS)
    assert found.flag[5] & int(StarFlag.MANY_BAD_PIXELS)
    assert np.isfinite(found.value[[0, 2, 3, 4, 5]]).all()
    assert np.isfinite(found.std[[0, 2, 3, 4, 5]]).all()
    clean = trained.predict(jax.random.key(1), stars)
    np.testing.assert_allclose(found.value[0], clean.value[0], rtol=1e-5)


def test_another_grid_is_refused(trained):
    stars = synthetic(2)
    with pytest.raises(ValueError, match="59 pixels, the network was trained with 60"):
        trained.predict(
            jax.random.key(0), st.spectra(stars.wave[1:], stars.flux[:, 1:], stars.error[:, 1:])
        )
    with pytest.raises(ValueError, match="pixels off"):
        check_grid(stars.wave + 4.1, stars.wave)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"error": np.ones((2, 3))}, "expected wavelengths"),
        ({"wave": np.array([1.0, 3.0, 2.0, 4.0])}, "pixel 2 does not"),
        ({"names": ("a", "a"), "labels": np.zeros((2, 2))}, "named twice"),
        ({"names": ("a",), "labels": np.zeros((2, 2))}, "expected labels"),
        ({"names": ("a", "b"), "labels": [[1, -9999], [2, np.nan]]}, "no star has a label b"),
        ({"names": ("a",), "labels": np.ones((2, 1)), "label_error": [[0.1], [-0.2]]}, "row 1"),
        ({"windows": {"Mg": np.ones(3)}}, "window of Mg"),
    ],
)
def test_impossible_arrays_are_refused(change, complaint):
    given = {"wave": np.arange(1.0, 5.0), "flux": np.ones((2, 4)), "error": np.ones((2, 4))}
    with pytest.raises(ValueError, match=complaint):
        st.spectra(**(given | change))


def test_training_needs_labels_that_vary():
    stars = synthetic(40)
    with pytest.raises(ValueError, match="no labels"):
        st.train(jax.random.key(0), st.spectra(stars.wave, stars.flux, stars.error), "bcnn")
    flat = dataclasses.replace(stars, labels=np.ones_like(stars.labels))
    with pytest.raises(ValueError, match="same teff"):
        training.scaling_of(flat)


# ------------------------------------------------------------------ The Cannon


def quadratic(n, seed=0, noise=0.005, scatter=0.0):
    generator = np.random.default_rng(seed)
    scaled = generator.normal(size=(n, 2))
    c = np.random.default_rng(7).normal(scale=0.05, size=(PIXELS, 6))
    c[:, 0] = 1
    flux = np.asarray(jax.vmap(cannon.features)(jnp.asarray(scaled))) @ c.T
    flux += np.hypot(noise, scatter) * generator.normal(size=flux.shape)
    labels = scaled * [250, 0.5] + [4700, 2.0]
    return st.spectra(
        15000.0 + np.arange(PIXELS), flux, np.full_like(flux, noise), names=("teff", "logg"),
        labels=labels,
    )  # fmt: skip


def test_a_cannon_finds_its_own_coefficients_and_scatter():
    stars = quadratic(3000, scatter=0.02)
    found = st.fit_cannon(stars)
    np.testing.assert_allclose(found.scatter, 0.02, rtol=0.1)
    unseen = quadratic(50, seed=1, noise=1e-6)
    flux = jax.vmap(found)(found.theta(unseen.labels))
    assert float(np.abs(flux - unseen.flux).max()) < 0.01
    assert (np.asarray(st.fit_cannon(quadratic(3000)).scatter) < 0.002).all()


@pytest.mark.slow
def test_posteriors_of_a_cannons_labels_are_calibrated():
    """Label posteriors by NUTS cover the truth, through the same Problem as galaxies."""
    from jaxsed import infer

    fitted = st.fit_cannon(quadratic(600))
    unseen = quadratic(24, seed=1)
    problem = fitted.problem(unseen)
    keys = jax.random.split(jax.random.key(0), len(unseen))
    samples = infer.sample(keys, problem, method="nuts", settings=infer.Settings(lanes=24))
    assert samples.diagnostics.passes().all()
    draws = np.stack([samples.theta.teff, samples.theta.logg], axis=-1).reshape(24, -1, 2)
    pull = (draws.mean(axis=1) - unseen.labels) / draws.std(axis=1)
    # 48 standard normal numbers: their mean square has a standard deviation of 0.2.
    assert 0.4 < np.mean(pull**2) < 1.9


def test_a_cannon_needs_enough_stars(tmp_path):
    with pytest.raises(ValueError, match="expected at least 12"):
        st.fit_cannon(quadratic(10))
    fitted = st.fit_cannon(quadratic(50))
    fitted.save(tmp_path / "cannon.h5")
    again = cannon.load(tmp_path / "cannon.h5")
    np.testing.assert_array_equal(again.coefficients, fitted.coefficients)
    with pytest.raises(ValueError, match="pixels"):
        again.problem(synthetic(2).take([0, 1]))


# ------------------------------------------------------------------ the command


@pytest.mark.parametrize("network", ["bcnn", "cannon"])
def test_train_and_predict_from_the_command_line(tmp_path, network):
    from jaxsed.cli import app

    data, path, table = (tmp_path / n for n in ("data.h5", "model.h5", "out.ecsv"))
    st.write_spectra(data, synthetic(160))
    run = CliRunner()
    done = run.invoke(
        app,
        ["stars", "train", str(data), "-o", str(path), "--network", network, "--epochs", "2"],
    )
    assert done.exit_code == 0, done.output
    done = run.invoke(app, ["stars", "predict", str(path), str(data), "--table", str(table)])
    assert done.exit_code == 0, done.output
    from astropy.table import Table

    found = Table.read(table)
    assert len(found) == 160
    for name in LABELS:
        for column in (name, f"{name}_std_model", f"{name}_std_predictive", f"{name}_std"):
            assert np.isfinite(found[column]).all()
    assert {"flag", "flag_text", "distance"} <= set(found.colnames)


def test_the_command_says_what_a_file_lacks(tmp_path):
    from jaxsed.catalog.errors import JaxsedError
    from jaxsed.catalog.stars import train_file

    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["flux"] = np.ones((2, 3))
    with pytest.raises(JaxsedError, match="no dataset flux_uncertainty, wave_A; it has flux"):
        train_file(tmp_path / "data.h5", tmp_path / "out.h5", "bcnn")
    with pytest.raises(JaxsedError, match="no file"):
        train_file(tmp_path / "none.h5", tmp_path / "out.h5", "bcnn")
    st.write_spectra(tmp_path / "ok.h5", dataclasses.replace(synthetic(60), windows={}))
    with pytest.raises(JaxsedError, match="no dataset windows"):
        train_file(tmp_path / "ok.h5", tmp_path / "out.h5", "censored")


# ------------------------------------------------------------------ without labels


def test_an_autoencoder_keeps_what_varies(tmp_path):
    """Two numbers make these spectra, and two latent ones give them back."""
    stars = quadratic(5000, noise=0.02)
    schedule = FitSettings(
        optimizer="adam", learning_rates=(3e-3, 5e-4), batch_size=64, epochs=25, patience=40
    )
    sizes = autoencoder.AutoencoderSettings(hidden=(64, 32), filters=(4, 4), fit=schedule)
    found, _ = autoencoder.train_autoencoder(jax.random.key(0), stars, sizes, progress=False)
    unseen = quadratic(200, seed=1, noise=0.02)
    again = jax.jit(jax.vmap(found))(jnp.asarray(unseen.flux))
    chi2 = np.mean(((again - unseen.flux) / unseen.error) ** 2)
    without = np.mean(((found.mean - unseen.flux) / unseen.error) ** 2)
    # One would be the noise alone.
    assert chi2 - 1 < 0.1 * (without - 1), (chi2, without)
    found.save(tmp_path / "model.h5")
    loaded = autoencoder.load(tmp_path / "model.h5")
    np.testing.assert_array_equal(loaded(unseen.flux[0]), found(unseen.flux[0]))
    holes = unseen.flux[0].copy()
    holes[3] = np.nan
    assert np.isfinite(found(jnp.asarray(holes))).all()
