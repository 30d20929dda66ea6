"""Makes steps_torch.json, the reference values of the optimisers, the clipping of gradients and the one-cycle schedule.

    pip install torch==2.15.0 numpy
    python make_steps_torch.py > steps_torch.json

Everything is computed in f64 by torch.optim and torch.nn.utils. Weights and gradients are made by the formula `wave`,
which the tests repeat.
"""

import json
import math

import torch


def wave(count, phase, scale=1.0):
    """scale * sin(0.7 i + phase) cos(0.13 i) over the index i."""
    values = [scale * math.sin(0.7 * i + phase) * math.cos(0.13 * i) for i in range(count)]
    return torch.tensor(values, dtype=torch.float64)


def flat(values):
    return [float(f"{float(v):.12g}") for v in values]


def optimiser(make, steps=6, schedule=None, count=12):
    """The weights after some steps with known gradients."""
    weight = torch.nn.Parameter(wave(count, 0.5))
    optimiser = make([weight])
    scheduler = schedule(optimiser) if schedule else None
    for step in range(steps):
        weight.grad = wave(count, 0.3 * step, 0.1)
        optimiser.step()
        if scheduler and step + 1 < steps:
            scheduler.step()
    return flat(weight.detach())


def one_cycle(optimiser, steps=6):
    return torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=1e-2, total_steps=steps)


def schedule(steps):
    """Learning rate and Adam's first beta at each step."""
    adam = torch.optim.Adam([torch.nn.Parameter(wave(3, 0.5))])
    scheduler = torch.optim.lr_scheduler.OneCycleLR(adam, max_lr=1e-3, total_steps=steps)
    rates = []
    for step in range(steps):
        rates.append((adam.param_groups[0]["lr"], adam.param_groups[0]["betas"][0]))
        adam.step()
        if step + 1 < steps:
            scheduler.step()
    return dict(steps=steps, lr=flat(lr for lr, _ in rates), momentum=flat(beta for _, beta in rates))


def clipping():
    """Two parameters with gradients, clipped to a norm below and above theirs."""
    cases = []
    for max_norm in (0.5, 50.0):
        parameters = [torch.nn.Parameter(wave(7, 0.1)), torch.nn.Parameter(wave(5, 0.2))]
        for phase, parameter in enumerate(parameters):
            parameter.grad = wave(len(parameter), 0.4 + phase)
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        clipped = torch.cat([parameter.grad for parameter in parameters])
        cases.append(dict(max_norm=max_norm, norm=float(norm), clipped=flat(clipped)))
    return cases


AdamW, SGD = torch.optim.AdamW, torch.optim.SGD
print(json.dumps(dict(
    adamw=optimiser(lambda p: AdamW(p, lr=1e-2, weight_decay=0.1)),
    adamw_betas=optimiser(lambda p: AdamW(p, lr=1e-2, betas=(0.8, 0.99), eps=1e-3, weight_decay=0.1)),
    adamw_one_cycle=optimiser(lambda p: AdamW(p, lr=1e-2, weight_decay=0.1), schedule=one_cycle),
    sgd=optimiser(lambda p: SGD(p, lr=1e-1)),
    sgd_momentum=optimiser(lambda p: SGD(p, lr=1e-1, momentum=0.9, weight_decay=0.05)),
    sgd_nesterov=optimiser(lambda p: SGD(p, lr=1e-1, momentum=0.9, weight_decay=0.05, nesterov=True)),
    sgd_one_cycle=optimiser(lambda p: SGD(p, lr=1e-1, momentum=0.9, nesterov=True), schedule=one_cycle),
    one_cycle=[schedule(steps) for steps in (1, 2, 10, 37)],
    clipping=clipping(),
)))
