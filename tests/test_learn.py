"""The training loop: it learns, keeps the best, stops, resumes, and says what is wrong."""

import json

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsed.learn import FitSettings, fit, soap
from jaxsed.learn.settings import make_optimizer

KEY = jax.random.key(11)
TRUE_W = np.array([[1.0, -2.0], [0.5, 3.0], [0.0, 1.0]], np.float32)
TRUE_B = np.array([0.3, -0.7], np.float32)
OPTIMIZERS = ("nadam", "adam", "soap")


def linear_data(key, n=2000):
    x = jax.random.normal(key, (n, 3))
    return np.array(x), np.array(x @ TRUE_W + TRUE_B)


def start():
    return {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}


def loss(model, batch, key):
    x, y = batch
    return jnp.mean((x @ model["w"] + model["b"] - y) ** 2)


def quick(**changes):
    options = {"learning_rates": (3e-2, 1e-3), "batch_size": 100, "epochs": 15} | changes
    return FitSettings(**options)


def run(settings=None, data=None, **options):
    data = linear_data(KEY) if data is None else data
    return fit(KEY, start(), loss, data, settings=settings or quick(), progress=False, **options)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["staged", "cosine"])
def test_finds_the_answer(optimizer, schedule):
    model, history = run(quick(optimizer=optimizer, schedule=schedule, epochs=40, patience=40))
    np.testing.assert_allclose(model["w"], TRUE_W, atol=0.01)
    np.testing.assert_allclose(model["b"], TRUE_B, atol=0.01)
    assert history.stopped == "schedule finished"
    assert history.best_loss == np.min(history.validation_loss)


def test_history():
    _, history = run()
    n = len(history.train_loss)
    assert history.samples[-1] == n * 1900  # 5 % of 2000 are held back
    assert list(np.unique(history.stage)) == [0, 1]
    assert np.all(np.diff(history.seconds) > 0)
    assert set(np.round(history.learning_rate, 6)) == {3e-2, 1e-3}
    assert history.samples_per_second > 0
    json.dumps(history.to_dict())


def test_cosine_ends_at_its_last_rate():
    _, history = run(quick(schedule="cosine", learning_rates=(1e-2, 1e-5), patience=99))
    assert history.learning_rate[0] > 0.9e-2
    assert history.learning_rate[-1] == pytest.approx(1e-5)
    assert np.all(np.diff(history.learning_rate) < 0)


def test_deterministic_and_leaves_its_inputs_alone():
    model = start()
    data = linear_data(KEY)
    first, _ = fit(KEY, model, loss, data, settings=quick(epochs=3), progress=False)
    second, _ = fit(KEY, model, loss, data, settings=quick(epochs=3), progress=False)
    assert all(bool(jnp.all(first[k] == second[k])) for k in first)
    assert not np.any(model["w"])


def test_batch_size_per_stage():
    _, history = run(quick(batch_size=(50, 200), epochs=2))
    assert list(history.samples) == [1900, 3800, 5600, 7400]


def test_patience_ends_a_stage():
    # the rate is zero, so nothing ever improves on the first epoch
    _, history = run(quick(learning_rates=(0.0,), patience=3))
    assert len(history.train_loss) == 4


def test_given_validation_is_used():
    x, y = linear_data(jax.random.key(5), 150)
    _, history = run(quick(epochs=1, learning_rates=(0.0,)), validation=(x, y))
    assert history.best_loss == pytest.approx(np.mean(y[:100] ** 2), rel=1e-5)
    assert history.samples[0] == 2000


def test_fresh_data_for_every_epoch():
    keys = []

    def data(key):
        keys.append(np.asarray(jax.random.key_data(key)).tolist())
        return linear_data(key, 3000)

    model, history = run(quick(epochs=15, patience=15), data=data)
    np.testing.assert_allclose(model["w"], TRUE_W, atol=0.05)
    assert len(keys) == len({tuple(k) for k in keys}) == 1 + len(history.train_loss)


def test_time_limit():
    settings = quick(learning_rates=(1e-2, 1e-3, 1e-4), epochs=10**6, patience=10**6)
    _, history = run(FitSettings(**{**settings.to_dict(), "max_seconds": 1.0}))
    assert history.stopped == "time limit"
    assert history.seconds[-1] >= 1.0
    assert history.stage[0] == 0 and history.stage[-1] == 2  # a slow machine may skip one
    cosine = quick(
        schedule="cosine", learning_rates=(1e-2, 1e-5), epochs=10**6, patience=10**6,
        max_seconds=0.5,
    )  # fmt: skip
    _, history = run(cosine)
    assert history.learning_rate[-1] == pytest.approx(1e-5, rel=1e-3)


def test_interrupted_run_resumes_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxsed.learn.loop._CHECKPOINT_SECONDS", 0.0)
    path = tmp_path / "run.h5"
    settings = quick(epochs=4, optimizer="soap")
    whole, whole_history = run(settings)

    epochs = []

    def interrupted(key):
        epochs.append(key)
        if len(epochs) == 6:
            raise KeyboardInterrupt
        return linear_data(KEY)

    with pytest.raises(KeyboardInterrupt):
        run(settings, data=interrupted, checkpoint=path)
    assert path.exists()
    assert not list(tmp_path.glob("*.partial"))
    fresh_whole, _ = run(settings, data=lambda key: linear_data(KEY))
    resumed, history = run(settings, data=lambda key: linear_data(KEY), checkpoint=path)
    assert all(bool(jnp.all(resumed[k] == fresh_whole[k])) for k in resumed)
    assert len(history.train_loss) == len(whole_history.train_loss) == 8

    # a finished run is only read
    again, again_history = run(settings, data=lambda key: linear_data(KEY), checkpoint=path)
    assert all(bool(jnp.all(resumed[k] == again[k])) for k in resumed)
    assert len(again_history.train_loss) == 8


def test_checkpoints_of_others_are_refused(tmp_path):
    path = tmp_path / "run.h5"
    run(quick(epochs=2), checkpoint=path)
    with pytest.raises(ValueError, match=r"run\.h5.*another key, model or settings"):
        run(quick(epochs=2, batch_size=50), checkpoint=path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"run\.h5.*not a readable checkpoint"):
        run(quick(epochs=2), checkpoint=path)
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError, match="another kind of HDF5"):
        run(quick(epochs=2), checkpoint=tmp_path / "foreign.h5")


def test_loss_that_is_not_finite_ends_the_run():
    x, y = linear_data(KEY)
    y[17] = np.nan
    model, history = run(data=(x, y))
    assert history.stopped == "loss not finite"
    assert not np.any(model["w"])


def test_loss_that_runs_away_ends_the_run_with_the_best_model():
    _, first = run(quick(learning_rates=(1e-2,), epochs=3))
    _, history = run(quick(learning_rates=(1e-2, 1e6), epochs=3))
    assert history.stopped == "loss diverged"
    assert len(history.train_loss) < 6
    assert history.best_loss == first.best_loss


def test_no_recompilation_between_epochs():
    traces = []

    def counted(model, batch, key):
        traces.append(1)
        return loss(model, batch, key)

    fit(KEY, start(), counted, linear_data(KEY), settings=quick(epochs=5), progress=False)
    # the round and the evaluation, each traced once (scan may trace its body twice)
    assert len(traces) <= 3


def test_float64(x64):
    model, _ = run(quick(epochs=2))
    assert model["w"].dtype == jnp.float64


def test_soap_turns_badly_scaled_problems():
    """A quadratic whose axes are neither aligned nor alike: SOAP is ahead of Adam."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    metric = jnp.asarray(rotation @ np.diag(10.0 ** np.linspace(-3, 0, 8)) @ rotation.T, float)
    target = jnp.asarray(rng.normal(size=(8, 8)), float)

    def cost(w):
        return jnp.sum((w - target) * (metric @ (w - target)))

    def final(transform):
        w = jnp.zeros((8, 8))
        state = transform.init(w)

        @jax.jit
        def step(carry, rate):
            w, state = carry
            direction, state = transform.update(jax.grad(cost)(w), state, w)
            return (w - rate * direction, state), None

        (w, _), _ = jax.lax.scan(step, (w, state), jnp.linspace(0.05, 0.0, 300))
        return float(cost(w))

    assert final(soap.scale_by_soap(every=5, refresh=1)) < 0.5 * final(make_optimizer("adam"))


def test_clipped_gradients_forget_a_huge_one_soon():
    """Adam remembers squares: one gradient of a million stops it for long, unless it is cut."""

    def travelled(clip_norm):
        transform = make_optimizer("adam", clip_norm)
        w, total = jnp.zeros(3), 0.0
        state = transform.init(w)
        for gradient in (1.0, 1.0, 1e6, 1.0, 1.0, 1.0):
            step, state = transform.update(jnp.full(3, gradient), state, w)
            total += float(jnp.abs(step).sum())
        return total

    assert travelled(2.0) > 3 * 6 * 0.9
    assert travelled(None) < 3 * 4


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"optimizer": "sgd"}, "unknown optimizer 'sgd'"),
        ({"schedule": "linear"}, "unknown schedule"),
        ({"learning_rates": ()}, "learning rates"),
        ({"batch_size": (10, 20)}, "one positive batch_size or 3"),
        ({"batch_size": 0}, "batch_size"),
        ({"epochs": 0}, "epochs >= 1"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"max_seconds": 0.0}, "max_seconds"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"stage_ends": (0.5, 1.0)}, "3 increasing stage_ends"),
    ],
)
def test_wrong_settings(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        FitSettings(**options)


def test_wrong_inputs():
    with pytest.raises(ValueError, match="floating-point leaves only, got int32 at model.'n'"):
        fit(KEY, {"n": jnp.arange(3)}, loss, linear_data(KEY), progress=False)
    with pytest.raises(ValueError, match="at least one trainable array"):
        fit(KEY, {}, loss, linear_data(KEY), progress=False)
    with pytest.raises(ValueError, match="shared leading axis"):
        run(data=(np.zeros((5, 3)), np.zeros((6, 2))))
    with pytest.raises(ValueError, match="at least one batch"):
        run(data=linear_data(KEY, 50))


@pytest.mark.parametrize("size", [3, 32, 70])
@pytest.mark.parametrize("scale", [1.0, 1e-25])
@pytest.mark.parametrize("rank", ["full", "five", "none"])
def test_orthonormal_basis(size, scale, rank):
    """Orthogonal to rounding whatever the matrix; the eigenvectors, once iterated."""
    rng = np.random.default_rng(0)
    keep = {"full": size, "five": 5, "none": 0}[rank]
    factor = rng.normal(size=(size, size)) * (np.arange(size) < keep) * 0.5 ** np.arange(size)
    matrix = jnp.asarray(scale * factor @ factor.T, jnp.float32)
    basis = jnp.eye(size)
    for _ in range(60):
        basis = jax.jit(soap._iterate)(matrix, basis)
    q = np.asarray(basis, float)
    np.testing.assert_allclose(q.T @ q, np.eye(size), atol=2e-6)
    turned = q.T @ np.asarray(matrix, float) @ q / scale
    off_diagonal = turned - np.diag(np.diag(turned))
    assert np.abs(off_diagonal).max() <= 2e-3 * np.abs(turned).max()
