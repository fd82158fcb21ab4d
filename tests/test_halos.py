"""Halos: boxes, the network, what it must beat."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.table import Table
from halo_data import EDGES, SIZE, settings, small_settings, universe, with_fit

from jaxsed import cli
from jaxsed import halos as ha
from jaxsed.halos import boxes, formation, networks, support, training, trees


@pytest.fixture(scope="module")
def seen():
    return universe(250, forming=True)


@pytest.fixture(scope="module")
def unseen():
    return universe(80, seed=1, forming=True)


@pytest.fixture(scope="module")
def trained(seen):
    """A network of the numbers of galaxies and of their star formation."""
    return ha.train(jax.random.key(0), seen, settings=settings(), progress=False)[0]


def test_a_field_holds_numbers_and_means():
    box = boxes.Box(
        position=jnp.array([[0.1, 0.1, 0.1], [0.12, 0.1, 0.1], [0.9, 0.5, 0.0], [0.5, 0.5, 0.5]]),
        features=jnp.array([[1.0], [3.0], [-2.0], [9.0]]),
        present=jnp.array([1.0, 1.0, 1.0, 0.0]),
    )
    field = np.asarray(boxes.paint(box, 5))
    assert field.shape == (5, 5, 5, 2)
    np.testing.assert_allclose(field[0, 0, 0], [2.0, 2.0])
    np.testing.assert_allclose(field[4, 2, 0], [1.0, -2.0])
    assert field[..., 0].sum() == 3.0


def positions(box, periodic, n):
    """[draw, halo, 3] of a box that is turned `n` times."""
    turn = jax.jit(jax.vmap(lambda k: boxes.turned(jax.random.key(k), box, periodic).position))
    return np.asarray(turn(jnp.arange(n)))


def test_turning_a_box_keeps_its_distances():
    generator = np.random.default_rng(0)
    place = jnp.asarray(generator.random((30, 3)), jnp.float32)
    box = boxes.Box(place, jnp.zeros((30, 1)), jnp.ones(30))

    def distances(p):
        gap = np.abs(np.asarray(p)[:, None] - np.asarray(p))
        return np.sqrt((np.minimum(gap, 1 - gap) ** 2).sum(axis=-1))

    turned = positions(box, True, 20)
    for moved in turned:
        np.testing.assert_allclose(distances(moved), distances(place), atol=1e-5)
    assert np.std(turned[:, 0], axis=0).min() > 0.1
    still = {tuple(np.round(place[0], 4).tolist()) for place in positions(box, False, 600)}
    assert len(still) == 48


def test_a_box_that_is_turned_keeps_its_halos_inside():
    """Moved at random if it is periodic, a halo that leaves it comes in at the other side."""
    place = jnp.asarray(np.random.default_rng(0).random((2000, 3)), jnp.float32)
    box = boxes.Box(place, jnp.zeros((2000, 1)), jnp.ones(2000))
    moved = positions(box, True, 10)
    assert moved.min() >= 0 and moved.max() <= 1
    # as many in each tenth as before, but for chance
    for axis in range(3):
        share = np.histogram(moved[..., axis], np.linspace(0, 1, 11))[0] / moved[..., 0].size
        np.testing.assert_allclose(share, 0.1, atol=0.02)


def test_a_box_without_room_keeps_its_fastest_halos(seen):
    known = boxes.Features.of(seen)
    full, tight = boxes.pack(seen, known, 256), boxes.pack(seen, known, 10)
    assert (full.present.sum(axis=1) == np.bincount(seen.box)).all()
    speed = np.sort(np.where(full.present[0] > 0, full.features[0, :, 0], -np.inf))[::-1]
    np.testing.assert_allclose(np.sort(tight.features[0, :, 0])[::-1], speed[:10])


def test_a_prediction_does_not_depend_on_orientation_of_labels_or_neighbours(trained, unseen):
    alone = trained.predict(unseen.take([5]))
    many = trained.predict(unseen)
    np.testing.assert_allclose(alone.count[0], many.count[5], rtol=1e-5)


def test_the_network_beats_the_mean_and_its_uncertainties_are_right(trained, seen, unseen):
    truth = ha.galaxy_counts(unseen, EDGES)
    found = trained.predict(unseen)
    by_mean = ha.fit_baseline(seen, "mean", edges=EDGES).predict(unseen)
    ours, theirs = (ha.chi2(f.count, truth).mean() for f in (found, by_mean))
    assert ours < 0.5 * theirs
    inside = np.mean(np.abs(found.count - truth) < found.count_std)
    assert 0.5 < inside < 0.95
    assert (found.flag == 0).mean() > 0.9
    np.testing.assert_allclose(found.phi, ha.mass_function(found.count, EDGES, unseen.volume))


@pytest.mark.parametrize("kind", ["ridge", "forest"])
def test_baselines_learn_and_are_saved(seen, unseen, tmp_path, kind):
    truth = ha.galaxy_counts(unseen, EDGES)
    fitted = ha.fit_baseline(seen, kind, edges=EDGES)
    found = fitted.predict(unseen)
    by_mean = ha.fit_baseline(seen, "mean", edges=EDGES).predict(unseen)
    assert ha.chi2(found.count, truth).mean() < 0.8 * ha.chi2(by_mean.count, truth).mean()
    assert 0.5 < np.mean(np.abs(found.count - truth) < found.count_std) < 0.9
    fitted.save(tmp_path / "b.h5")
    again = ha.Baseline.load(tmp_path / "b.h5").predict(unseen)
    np.testing.assert_allclose(again.count, found.count, rtol=1e-6)


def test_a_part_of_a_simulation_is_not_looked_at_across_its_faces(trained, monkeypatch):
    assert trained.members[0].resnet.architecture.wrap is True
    with_fit(monkeypatch)
    part, _ = ha.train(
        jax.random.key(0), universe(60), settings=small_settings(periodic=False), progress=False
    )
    assert part.members[0].resnet.architecture.wrap is False


def test_a_saved_network_is_the_same(trained, unseen, tmp_path):
    trained.save(tmp_path / "m.h5")
    again = ha.HaloModel.load(tmp_path / "m.h5")
    assert again.record == trained.record
    np.testing.assert_array_equal(again.predict(unseen).count, trained.predict(unseen).count)


def test_a_network_knows_which_boxes_are_quiescent(trained, unseen):
    known, found = formation.formation(unseen, EDGES), trained.predict(unseen).formation
    n = known.quiescent + known.forming
    usual = 1 / (1 + np.exp(-np.asarray(trained.typical.logit)))
    told = n > 2
    gap = (known.quiescent / np.maximum(n, 1) - found.quiescent)[told]
    without = (known.quiescent / np.maximum(n, 1) - usual)[told]
    assert gap.std() < 0.85 * without.std()
    for z in formation.off(found, known):
        assert 0.55 < np.nanmean(np.abs(z) < 1) < 0.85


def test_a_saved_network_knows_it_still(trained, seen, tmp_path):
    trained.save(tmp_path / "m.h5")
    again = ha.HaloModel.load(tmp_path / "m.h5").predict(seen.take([0, 3])).formation
    for a, b in zip(again, trained.predict(seen.take([0, 3])).formation, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_table_has_it_and_empty_boxes_have_none(trained, tmp_path):
    boxes = universe(20, seed=2)
    boxes = dataclasses.replace(boxes, ids=np.arange(21))
    trained.save(tmp_path / "m.h5")
    ha.write_halos(tmp_path / "d.h5", dataclasses.replace(boxes, stellar_mass=None))
    cli.app(
        ["halos", "predict", str(tmp_path / "m.h5"), str(tmp_path / "d.h5"), "-q",
         "-t", str(tmp_path / "t.ecsv")],
        standalone_mode=False,
    )  # fmt: skip
    table = Table.read(tmp_path / "t.ecsv")
    names = {"quiescent_10_10.5", "quiescent_10_10.5_std", "log_sfr_10_10.5", "log_sfr_10_10.5_std"}
    assert names <= set(table.colnames)
    for name in names:
        assert np.isfinite(table[name][:20]).all()
        assert np.isnan(table[name][20])


def test_counts_have_gradients_with_respect_to_the_halos(trained, unseen):
    box = jax.tree.map(
        lambda a: jnp.asarray(a[0]), boxes.pack(unseen, trained.record.features, 256)
    )
    total = lambda f: jnp.sum(trained(box._replace(features=f))[0])  # noqa: E731
    slope = jax.jit(jax.grad(total))(box.features)
    assert np.isfinite(slope).all()
    assert float(jnp.abs(slope[box.present > 0]).max()) > 0
    assert float(jnp.abs(slope[box.present == 0]).max()) == 0


class Usual:
    """In place of a network, and like one that is not trained: it says the mean numbers."""

    def __call__(self, box, key):
        return networks.Outputs(jnp.zeros(3), jnp.full(3, networks.LOG_EXCESS))

    def l2(self):
        return 0.0


def values_of_losses(given, counts):
    """[settings] where the mean numbers are 4, 3 and 2."""
    log_mean, volume = jnp.log(jnp.array([4.0, 3.0, 2.0])), 100.0
    box = boxes.pack(universe(1, per_box=5), boxes.Features.of(universe(20)), 256)
    batch = training.Batch(jax.tree.map(jnp.asarray, box), jnp.asarray(counts, float)[None])
    losses = [training.loss_of(each, log_mean, volume) for each in given]
    run = jax.jit(lambda batch: [loss(Usual(), batch, jax.random.key(1)) for loss in losses])
    return np.array(run(batch))


def test_the_poisson_loss_is_the_likelihood():
    """Differences between counts are those of scipy's law, once what both losses share is gone."""
    from scipy.stats import poisson

    counts = [np.array([5.0, 1.0, 2.0]), np.array([2.0, 2.0, 4.0])]
    mean = np.array([4.0, 3.0, 2.0])
    poissons, chi2s = np.transpose(
        [values_of_losses([settings(loss="poisson"), settings(loss="chi2")], n) for n in counts]
    )
    expected = [
        -(poisson.logpmf(n, mean) + np.log([np.prod(np.arange(1, k + 1)) for k in n])).sum()
        - ha.chi2(mean, n)
        for n in counts
    ]
    np.testing.assert_allclose(poissons - chi2s, expected, rtol=1e-5)


def test_smoothness_asks_for_straight_mass_functions():
    rough, plain = values_of_losses([settings(smoothness=2.0), settings()], [5.0, 1.0, 2.0])
    bend = np.diff(np.log([4.0, 3.0, 2.0]), n=2)[0]
    assert rough - plain == pytest.approx(2.0 * bend**2, rel=1e-3)


def test_the_loss_with_a_covariance_is_chi_square():
    """A diagonal covariance of the counts' own variances is the loss without one."""
    counts = np.array([5.0, 1.0, 2.0])
    covariance = np.diag((counts + 1.0) / (np.diff(EDGES) * 100.0) ** 2)
    given = settings(loss="chi2", covariance=covariance)
    found, plain = values_of_losses([given, settings(loss="chi2")], counts)
    assert found == pytest.approx(plain)


def test_a_forest_is_that_of_scikit_learn():
    from sklearn.ensemble import RandomForestRegressor

    generator = np.random.default_rng(0)
    x = generator.normal(size=(300, 4)).astype(np.float32)
    y = np.stack([x[:, 0] * x[:, 1], np.abs(x[:, 2])], axis=1)
    grown = RandomForestRegressor(20, random_state=0).fit(x, y)
    new = generator.normal(size=(500, 4)).astype(np.float32)
    ours = trees.of_sklearn(grown)
    np.testing.assert_allclose(ours.predict(new), grown.predict(new), atol=1e-5)
    np.testing.assert_allclose(ours.predict(x), grown.predict(x), atol=1e-5)


def test_a_forest_of_halos_knows_what_matters(tmp_path):
    found, truth, predicted = ha.fit_forest(
        universe(30), grid={"min_samples_leaf": [4], "max_depth": [None]}
    )
    assert found.figures["r2"] > 0.8
    assert np.std(predicted - truth) == pytest.approx(found.figures["scatter"])
    importance = found.figures["importance"]
    assert importance["v_peak"] > importance["spin"] > 0.1
    found.save(tmp_path / "f.h5")
    again = ha.HaloForest.load(tmp_path / "f.h5")
    fresh = universe(3, seed=5)
    np.testing.assert_allclose(again.predict(fresh), found.predict(fresh))
    assert again.figures["r2"] == found.figures["r2"]


def test_importances_have_the_names_of_their_features():
    """Of four features in an order that is neither the alphabet's nor that of what they matter."""
    base = universe(25)
    draw = np.random.default_rng(3)
    concentration, age = draw.normal(size=(2, base.box.size))
    features = base.features | {"concentration": concentration, "age": age}
    mass = base.stellar_mass * 10 ** (0.15 * age)
    mixed = dataclasses.replace(base, features=features, stellar_mass=mass)
    figures = ha.fit_forest(mixed, grid={"min_samples_leaf": [4]})[0].figures
    for kind in ("importance", "permutation"):
        found = figures[kind]
        assert sorted(found, key=lambda name: -found[name]) == [
            "v_peak", "spin", "age", "concentration"
        ]  # fmt: skip
        assert found["concentration"] < 0.05
    assert sum(figures["importance"].values()) == pytest.approx(1.0)


def test_boxes_may_differ_in_size_by_rounding_alone(seen):
    """A thousandth of the width in Mpc; in Mpc/h they may differ as the Hubble constant does."""
    fitted = ha.fit_baseline(seen.take(np.arange(20)), "mean", edges=EDGES)
    for factor, refused in ((1.0005, False), (0.9995, False), (1.002, True), (0.998, True)):
        other = dataclasses.replace(seen, box_size=factor * SIZE)
        scaled = dataclasses.replace(other, hubble=factor * seen.hubble)
        assert (fitted.predict(scaled).flag[:20] == 0).all()
        if refused:
            with pytest.raises(ValueError, match="Mpc wide"):
                fitted.predict(other)
        else:
            fitted.predict(other)


def test_empty_and_strange_boxes_are_flagged(trained):
    crowded = universe(1, per_box=2000)
    one = ha.halos(
        [0], [[1.0, 1.0, 1.0]], {"v_peak": [150.0], "spin": [0.0]}, box_size=SIZE, hubble=0.7,
        boxes=[0, 1],
    )  # fmt: skip
    found = trained.predict(one)
    assert found.flag[0] & ha.BoxFlag.OUTSIDE_TRAINING
    assert found.flag[1] == ha.BoxFlag.EMPTY
    assert found.count[1].tolist() == [0.0, 0.0, 0.0]
    assert ha.flag_text(found.flag[1]).startswith("no halo")
    assert trained.predict(crowded).flag[0] & ha.BoxFlag.OUTSIDE_TRAINING
    assert np.isfinite(trained.predict(crowded).count).all()


def test_boxes_of_other_halos_are_flagged(trained, seen, unseen):
    """As many as in the training, but faster, or with spins that scatter more."""
    assert np.mean(trained.predict(unseen).flag & ha.BoxFlag.STRANGE_HALOS > 0) < 0.1
    ridge = ha.fit_baseline(seen, "ridge", edges=EDGES)
    for name, change in (("v_peak", lambda v: 1.5 * v), ("spin", lambda s: 3.0 * s)):
        features = unseen.features | {name: change(unseen.features[name])}
        other = dataclasses.replace(unseen, features=features)
        for fitted in (trained, ridge):
            assert np.mean(fitted.predict(other).flag & ha.BoxFlag.STRANGE_HALOS > 0) > 0.9


def test_a_distance_is_that_of_mahalanobis(seen):
    known = boxes.Features.of(seen)
    found, own = support.description(seen, known), support.Support.of(seen, known)
    cov = np.cov(found, rowvar=False) + support.RIDGE * np.eye(found.shape[1])
    gap = found - found.mean(axis=0)
    expected = np.sqrt(np.einsum("bi,ij,bj->b", gap, np.linalg.inv(cov), gap))
    assert own.farthest == pytest.approx(expected.max(), rel=1e-6)
    one = seen.box == 3
    assert found[3, 0] == pytest.approx(np.log1p(one.sum()))
    values = known.of_halos(seen)[one]
    np.testing.assert_allclose(found[3, 1:3], values.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found[3, 3:], values.std(axis=0), atol=1e-5)


def test_other_boxes_and_lacking_features_are_refused(trained, unseen):
    with pytest.raises(ValueError, match="Mpc wide"):
        trained.predict(dataclasses.replace(unseen, hubble=0.5))
    without = dataclasses.replace(unseen, features={"v_peak": unseen.features["v_peak"]})
    with pytest.raises(ValueError, match="no spin"):
        trained.predict(without)


def test_training_needs_galaxies_in_every_bin(seen):
    with pytest.raises(ValueError, match="no stellar_mass"):
        ha.train(jax.random.key(0), dataclasses.replace(seen, stellar_mass=None), progress=False)
    with pytest.raises(ValueError, match="14 to 15"):
        ha.train(
            jax.random.key(0), seen, settings=dataclasses.replace(settings(), edges=(10, 14, 15)),
            progress=False,
        )  # fmt: skip
    with pytest.raises(ValueError, match="increasing"):
        ha.galaxy_counts(seen, (10, 10))
    with pytest.raises(ValueError, match="unknown loss"):
        settings(loss="mse")
    with pytest.raises(ValueError, match="covariance needs the loss 'chi2'"):
        settings(covariance=np.eye(3))
