"""The networks for stars: sizes, what a branch can see, dropout masks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from star_data import LABELS, PIXELS, SMALL, windows

from jaxsed.stars import apogee, networks


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
    """In a training, none flows from an element's label through the three parameters' heads;
    asked for a derivative of the labels, it does."""
    net = networks.init(jax.random.key(1), "censored", PIXELS, LABELS, windows=windows(),
                        architecture=SMALL)  # fmt: skip
    x = 0.1 * jax.random.normal(jax.random.key(2), (PIXELS,))
    taught, full = (
        jax.jit(jax.grad(lambda net, t=t: networks.run(net, x, training=t).value[3]))(net)
        for t in (True, False)
    )
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(taught.heads))
    assert (np.asarray(taught.link[0]) != 0).any()
    assert (np.asarray(full.heads.value[0]) != 0).any()
    np.testing.assert_array_equal(
        networks.run(net, x).value, networks.run(net, x, training=True).value
    )


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
