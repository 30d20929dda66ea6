"""Makes layers.json, the reference values of the layer, loss and optimiser tests.

    pip install jax==0.10.2 optax==0.2.8 numpy
    python make.py > layers.json

Everything is computed in f64 by JAX: convolutions by jax.lax.conv_general_dilated, gradients by jax.vjp, the
network by a second implementation of the architecture below, the optimiser and the schedule by optax. Inputs are
made by the formula `wave`, which the tests repeat.
"""

import json

import jax

jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
import optax


def wave(shape, phase, scale=1.0):
    """scale * sin(0.7 i + phase) cos(0.13 i) over the flat index i, in the given shape."""
    i = np.arange(int(np.prod(shape)), dtype=np.float64)
    return jnp.asarray(scale * np.sin(0.7 * i + phase) * np.cos(0.13 * i)).reshape(shape)


def conv(x, w, stride, padding):
    return jax.lax.conv_general_dilated(
        x, w, stride, [(p, p) for p in padding], dimension_numbers=("NCDHW", "OIDHW", "NCDHW"),
        precision=jax.lax.Precision.HIGHEST)


def flat(a):
    return [float(f"{v:.12g}") for v in np.asarray(a).ravel()]


def conv_case(x, w, stride, padding):
    xs, ws = wave(x, 0.1), wave(w, 0.4)
    y, pull = jax.vjp(lambda a, b: conv(a, b, stride, padding), xs, ws)
    dx, dw = pull(wave(y.shape, 0.9))
    return dict(x=x, w=w, stride=stride, padding=padding, y_shape=list(y.shape), y=flat(y), dx=flat(dx), dw=flat(dw))


def batch_norm(x, gamma, beta, relu, fixed=None):
    axes = (0, 2, 3, 4)
    mean, var = (jnp.mean(x, axes), jnp.var(x, axes)) if fixed is None else fixed
    c = lambda v: v.reshape(1, -1, 1, 1, 1)
    y = (x - c(mean)) / jnp.sqrt(c(var) + 1e-5) * c(gamma) + c(beta)
    return jnp.maximum(y, 0) if relu else y


def norm_case(shape, relu, fixed):
    channels = shape[1]
    x, gamma, beta = wave(shape, 0.2) + 3.0, wave([channels], 1.1) + 1.5, wave([channels], 2.2, 0.3)
    running = (wave([channels], 0.5, 0.2) + 3.0, wave([channels], 0.6, 0.1) + 0.4) if fixed else None
    y, pull = jax.vjp(lambda *a: batch_norm(*a, relu, running), x, gamma, beta)
    dx, dgamma, dbeta = pull(wave(shape, 0.7))
    axes = (0, 2, 3, 4)
    count = x.size // channels
    return dict(shape=shape, relu=relu, fixed=fixed, y=flat(y), dx=flat(dx), dgamma=flat(dgamma), dbeta=flat(dbeta),
                # Momentum 0.1 from mean 0 and variance 1, with the unbiased variance, as torch.nn.BatchNorm3d.
                running_mean=flat(0.1 * jnp.mean(x, axes)),
                running_variance=flat(0.9 + 0.1 * jnp.var(x, axes) * count / (count - 1)))


def tiny_shapes():
    """Names and shapes of the tiny network's trainable variables, in order of name."""
    shapes = {"stem.0.weight": [8, 1, 2, 2, 2], "stem.1.weight": [8], "stem.1.bias": [8]}
    inputs = 8
    for stage, channels in enumerate([8, 16, 32, 64], start=1):
        layers = [("conv1", inputs, 3), ("conv2", channels, 3)] + ([("downsample", inputs, 1)] if stage > 1 else [])
        for layer, source, kernel in layers:
            name = f"layer{stage}.0.{layer}"
            shapes[f"{name}.0.weight"] = [channels, source, kernel, kernel, kernel]
            shapes[f"{name}.1.weight"] = shapes[f"{name}.1.bias"] = [channels]
        inputs = channels
    shapes["fc.weight"], shapes["fc.bias"] = [3, 64], [3]
    return dict(sorted(shapes.items()))


def tiny_variables():
    variables = {}
    for index, (name, shape) in enumerate(tiny_shapes().items()):
        norm_scale = len(shape) == 1 and name.endswith("weight")
        scale = 0.1 if len(shape) == 1 else 1.0 / np.sqrt(np.prod(shape[1:]))
        # The variables are f32 in the tests.
        variables[name] = jnp.asarray(np.float32(wave(shape, 0.3 * index, scale) + (1.0 if norm_scale else 0.0)), jnp.float64)
    return variables


def tiny(v, x):
    def unit(x, name, norm, stride, padding, relu):
        y = conv(x, v[f"{name}.weight"], [stride] * 3, [padding] * 3)
        return batch_norm(y, v[f"{norm}.weight"], v[f"{norm}.bias"], relu)

    x = unit(x, "stem.0", "stem.1", 2, 0, True)
    for stage in range(1, 5):
        p, stride = f"layer{stage}.0", 1 if stage == 1 else 2
        y = unit(x, f"{p}.conv1.0", f"{p}.conv1.1", stride, 1, True)
        y = unit(y, f"{p}.conv2.0", f"{p}.conv2.1", 1, 1, False)
        s = x if stage == 1 else unit(x, f"{p}.downsample.0", f"{p}.downsample.1", stride, 0, False)
        x = jnp.maximum(y + s, 0)
    pooled = x.mean((2, 3, 4))
    return pooled @ v["fc.weight"].T + v["fc.bias"], pooled


def bce(logits, targets, weights, positive):
    terms = -(positive * targets * jax.nn.log_sigmoid(logits) + (1 - targets) * jax.nn.log_sigmoid(-logits))
    return jnp.sum(terms * weights) / jnp.sum(weights)


def network_case():
    x = jnp.asarray(np.float32(wave([2, 1, 32, 36, 40], 0.3)), jnp.float64)
    targets = jnp.asarray([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    variables = tiny_variables()
    loss = lambda v: bce(tiny(v, x)[0], targets, jnp.ones((2, 3)), jnp.ones(3))
    logits, pooled = tiny(variables, x)
    value, gradients = jax.value_and_grad(loss)(variables)
    return dict(logits=flat(logits), pooled_sum=float(pooled.sum()), loss=float(value),
                gradients={name: dict(norm=float(jnp.linalg.norm(g)), first=float(g.ravel()[0]))
                           for name, g in gradients.items()})


def loss_case():
    logits, targets = wave([4, 3], 0.2, 8.0), jnp.abs(wave([4, 3], 0.8)).round()
    weights, positive = jnp.asarray([1, 0, 1, 0.5, 1, 1, 0, 0, 1, 1, 2, 1.0]).reshape(4, 3), jnp.asarray([1.0, 9.21, 0.5])
    value, gradient = jax.value_and_grad(bce)(logits, targets, weights, positive)
    return dict(logits=flat(logits), targets=flat(targets), weights=flat(weights), positive=flat(positive),
                loss=float(value), gradient=flat(gradient))


def adamw_case():
    optimiser = optax.adamw(1e-2, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.1)
    weight = wave([12], 0.5)
    state = optimiser.init(weight)
    for step in range(5):
        update, state = optimiser.update(wave([12], 0.3 * step, 0.1), state, weight)
        weight = optax.apply_updates(weight, update)
    return dict(weight=flat(weight))


def schedule_case():
    cosine = optax.cosine_decay_schedule(1e-4, 50, alpha=1e-6 / 1e-4)
    return dict(lr=[float(cosine(step)) for step in range(51)])


print(json.dumps(dict(
    conv=[
        conv_case([2, 3, 5, 4, 6], [4, 3, 3, 3, 3], [1, 1, 1], [1, 1, 1]),
        conv_case([2, 2, 6, 5, 7], [3, 2, 3, 3, 3], [2, 2, 2], [1, 1, 1]),
        conv_case([1, 1, 6, 4, 8], [5, 1, 2, 2, 2], [2, 2, 2], [0, 0, 0]),
        conv_case([2, 3, 4, 5, 3], [2, 3, 1, 1, 1], [1, 1, 1], [0, 0, 0]),
        conv_case([2, 3, 5, 4, 6], [2, 3, 1, 1, 1], [2, 2, 2], [0, 0, 0]),
        conv_case([1, 2, 4, 7, 9], [2, 2, 2, 4, 3], [1, 2, 3], [0, 3, 2]),
        conv_case([1, 2, 3, 3, 4], [2, 2, 2, 1, 2], [1, 1, 1], [3, 0, 1]),
    ],
    norm=[norm_case([2, 3, 2, 3, 4], relu, fixed) for relu in (False, True) for fixed in (False, True)],
    network=network_case(), loss=loss_case(), adamw=adamw_case(), schedule=schedule_case(),
)))
