"""Makes layers_torch.json and networks_torch.json, the reference values of pooling, of the operations of
transformers, of interpolation, of whole networks and of a BERT, and wrapped.pth, a file of torch.save.

    pip install torch==2.15.0 torchvision==0.29.2 monai==1.6.1 einops transformers==5.24.0 numpy
    python make_layers_torch.py

Everything is computed in f64 by PyTorch on a CPU, with the published modules of torchvision, MONAI and transformers.
Inputs and weights are made by the formula `wave`, which the tests repeat; weights are rounded to f32 first.
"""

import json
from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F
from monai.networks.nets import DenseNet, DenseNet121, ViT
import torchvision
from torchvision.models import VisionTransformer, resnet18, resnet50
from torchvision.models.video import r3d_18
from transformers import BertConfig, BertModel


def wave(shape, phase, scale=1.0):
    """scale * sin(0.7 i + phase) cos(0.13 i) over the flat index i, in the given shape."""
    i = np.arange(int(np.prod(shape)), dtype=np.float64)
    return torch.from_numpy(scale * np.sin(0.7 * i + phase) * np.cos(0.13 * i)).reshape(shape)


def flat(tensor):
    return [float(f"{v:.12g}") for v in tensor.detach().ravel().tolist()]


def case(f, inputs, **arguments):
    """The result of f, and the gradients of sum(result * wave(0.9))."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    y = f(*inputs)
    gradients = torch.autograd.grad((y * wave(list(y.shape), 0.9)).sum(), inputs)
    return dict(**arguments, y_shape=list(y.shape), y=flat(y), gradients=[flat(g) for g in gradients])


def pools():
    cases = []
    for kernel, stride, padding in [
        ([3, 3, 3], [2, 2, 2], [1, 1, 1]), ([2, 2, 2], [2, 2, 2], [0, 0, 0]),
        ([1, 3, 3], [1, 2, 2], [0, 1, 1]), ([2, 1, 3], [3, 2, 1], [1, 0, 0]),
    ]:
        x = wave([1, 2, 4, 5, 6], 0.1)
        form = dict(kernel=kernel, stride=stride, padding=padding)
        cases.append(dict(
            **form,
            maximum=case(lambda x: F.max_pool3d(x, kernel, stride, padding), [x]),
            mean=case(lambda x: F.avg_pool3d(x, kernel, stride, padding), [x])))
    return cases


def interpolations():
    cases = []
    for size in [[6, 10, 9], [3, 2, 11], [4, 5, 1]]:
        for aligned in [False, True]:
            f = lambda x: F.interpolate(x, size=size, mode="trilinear", align_corners=aligned)
            cases.append(case(f, [wave([1, 2, 4, 5, 6], 0.1)], size=size, aligned=aligned))
    nearest = case(lambda x: F.interpolate(x, scale_factor=(1, 2, 3), mode="nearest"), [wave([1, 2, 4, 5, 6], 0.1)])
    return dict(linear=cases, nearest=nearest)


def attention(q, k, v, heads, mask=None):
    split = lambda x: x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)
    mask = None if mask is None else mask[:, None, None, :].bool()
    y = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=mask)
    return y.transpose(1, 2).flatten(2)


def transformer():
    x, gamma, beta = wave([2, 3, 8], 0.2) + 3, wave([8], 1.1) + 1.5, wave([8], 2.2, 0.3)
    q, k, v = wave([2, 4, 6], 0.1, 2.0), wave([2, 5, 6], 0.4, 2.0), wave([2, 5, 6], 0.7)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 1, 1, 1]])
    return dict(
        layer_norm=case(lambda *a: F.layer_norm(a[0], (8,), a[1], a[2], 1e-5), [x, gamma, beta]),
        softmax=case(lambda x: x.softmax(-1), [wave([3, 7], 0.3, 8.0)]),
        gelu=case(F.gelu, [wave([40], 0.3, 4.0)]),
        attention=case(lambda *a: attention(*a, 2), [q, k, v]),
        masked_attention=case(lambda *a: attention(*a, 3, mask), [q, k, v]))


def fill(model, left_out=()):
    """Formula values for all parameters, in the order of their names."""
    names = sorted(name for name, _ in model.named_parameters() if not any(part in name for part in left_out))
    parameters = dict(model.named_parameters())
    for index, name in enumerate(names):
        shape = list(parameters[name].shape)
        scale = 0.1 if len(shape) == 1 else 1.0 / np.sqrt(np.prod(shape[1:]))
        offset = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
        value = (wave(shape, 0.3 * index, scale) + offset).float().double()
        parameters[name].data.copy_(value)
    return names, parameters


def norms(names, parameters, loss):
    gradients = torch.autograd.grad(loss, [parameters[name] for name in names])
    return {name: dict(norm=float(g.norm()), first=float(g.ravel()[0])) for name, g in zip(names, gradients)}


def network(model, shape, train):
    model = model.double()
    # MONAI makes a normalisation for cross-attention even where there is none.
    names, parameters = fill(model, left_out=("norm_cross_attn",))
    model.train(train)
    logits = model(wave(shape, 0.3).float().double())
    logits = logits[0] if isinstance(logits, tuple) else logits
    return dict(shape=shape, train=train, logits=flat(logits),
                gradients=norms(names, parameters, (logits * wave(list(logits.shape), 0.9)).sum()))


def one_channel(model, name):
    old = getattr(model, name)
    new = torch.nn.Conv2d(1, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)
    setattr(model, name, new)
    return model


def networks():
    dense = dict(in_channels=1, out_channels=3, init_features=16, growth_rate=8, block_config=(2, 2, 2))
    vit = dict(in_channels=1, img_size=32, patch_size=8, hidden_size=64, mlp_dim=128, num_layers=2, num_heads=4,
               classification=True, num_classes=3, post_activation=None)
    torchvision_vit = VisionTransformer(32, 8, 2, 4, 64, 128, num_classes=3)
    # The deep ones are not in training mode: with such regular weights, the gradients through many batch statistics of
    # few values differ by several percent between f32 and f64 in PyTorch itself.
    return OrderedDict([
        ("resnet18", network(one_channel(resnet18(num_classes=3), "conv1"), [2, 1, 65, 80], False)),
        ("resnet50", network(one_channel(resnet50(num_classes=3), "conv1"), [2, 1, 65, 80], False)),
        ("densenet121", network(DenseNet121(spatial_dims=2, in_channels=1, out_channels=3), [2, 1, 65, 80], False)),
        ("densenet-tiny", network(DenseNet(spatial_dims=2, **dense), [2, 1, 33, 40], False)),
        ("densenet3d-tiny", network(DenseNet(spatial_dims=3, **dense), [2, 1, 32, 36, 40], True)),
        ("vit-tiny", network(one_channel(torchvision_vit, "conv_proj"), [2, 1, 32, 32], True)),
        ("vit3d-tiny", network(ViT(spatial_dims=3, **vit), [2, 1, 32, 32, 32], True)),
    ])


def bert():
    config = BertConfig(vocab_size=30, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
                        max_position_embeddings=12, type_vocab_size=2, hidden_dropout_prob=0.0,
                        attention_probs_dropout_prob=0.0, pad_token_id=0)
    config._attn_implementation = "eager"
    model = BertModel(config, add_pooling_layer=False).double().eval()
    names, parameters = fill(model)
    ids = torch.tensor([[2, 5, 9, 3, 0, 0], [2, 7, 11, 29, 6, 3]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    # What lies under the padding is not looked at.
    kept = hidden * mask[..., None]
    return dict(ids=ids.tolist(), mask=mask.tolist(), hidden=flat(kept), config=json.loads(config.to_json_string()),
                gradients=norms(names, parameters, (hidden[:, 0] * wave([2, 32], 0.9)).sum()))


def write(path, values):
    with open(path, "w") as file:
        json.dump(values, file)
        file.write("\n")


def torchvision_densenet():
    return torchvision.models.densenet.DenseNet(growth_rate=8, block_config=(2, 2, 2), num_init_features=16, num_classes=5)


def shapes(model):
    """Names and shapes of everything that a saved module holds."""
    return {name: list(array.shape) for name, array in model.state_dict().items()}


def wrapped():
    """A checkpoint as trainers write them: the state dict under a key, behind a prefix, beside other things. One array
    is a part of a longer storage, one is transposed in it, one is of integers."""
    arrays = dict(weight=wave([2, 3], 0.1), part=wave([6], 0.2)[2:5].half(), turned=wave([3, 4], 0.3).float().t(),
                  num_batches_tracked=torch.tensor(7))
    return dict(epoch=3, state_dict=OrderedDict((f"module.{name}", array) for name, array in arrays.items()))


torch.save(wrapped(), "wrapped.pth")
write("layers_torch.json", dict(pool=pools(), interpolate=interpolations(), transformer=transformer()))
write("networks_torch.json", dict(networks=networks(), bert=bert(), published=dict(
    r3d_18=shapes(r3d_18()), densenet=shapes(torchvision_densenet()))))
