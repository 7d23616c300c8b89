"""ResNets: sizes of the literature, patch logits, and the identity that all else rests on."""

import pytest
import torch
from torch.nn import functional as F

from ltkd.networks import ResNet, image_logits


def small(**settings):
    """A small network in evaluation mode, with running statistics that do something."""
    torch.manual_seed(0)
    network = ResNet(settings.pop("classes", 5), depth=8, width=8, **settings)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def images_of(number=3, side=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, 3, side, side), dtype=torch.uint8, generator=generator)


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("classes, expected", [(10, 464_154), (100, 470_004)])
def test_resnet32_has_the_parameters_of_the_literature(classes, expected):
    assert parameters(ResNet(classes)) == expected


def test_parameters_by_hand():
    # Depth 8, width 4, 2 classes. Stem 27·4 + 8; blocks 9·(4·4 + 4·4) + 16, 9·(4·8 + 8·8) + 32
    # and 9·(8·16 + 16·16) + 64; classifier 16·2 + 2.
    assert parameters(ResNet(2, depth=8, width=4)) == 116 + 304 + 896 + 3520 + 34
    assert parameters(ResNet(2, depth=8, width=4, classifier="cosine")) == 4870 - 2


@pytest.mark.parametrize("classifier", ["linear", "cosine"])
@pytest.mark.parametrize("grid", [1, 2, 4, 8])
def test_the_image_is_the_mean_of_its_patches(classifier, grid):
    network = small(classifier=classifier, grid=grid)
    with torch.no_grad():
        x = (images_of().float() - network.mean) / network.std
        feature = network.blocks(F.relu(network.norm(network.stem(x)))).mean((2, 3))  # (B, F)
        if classifier == "linear":
            expected = feature @ network.classifier.weight.T + network.classifier.bias
        else:
            rows = network.classifier.weight
            expected = 30 * F.cosine_similarity(feature[:, None], rows[None], dim=-1)
        patches = network(images_of())
    assert patches.shape == (3, grid**2, 5)
    assert torch.allclose(image_logits(patches), expected, atol=1e-5)


def test_cosine_logits_lie_between_plus_and_minus_scale():
    with torch.no_grad():
        logits = image_logits(small(classifier="cosine", scale=7.0)(images_of(20)))
    assert logits.abs().max() <= 7.001


def test_patches_are_in_reading_order():
    # Of two images that differ in the top right corner alone, that patch differs most.
    images = images_of(1).repeat(2, 1, 1, 1)
    images[1, :, :8, 24:] = 255
    with torch.no_grad():
        logits = small()(images)
    assert (logits[0] - logits[1]).norm(dim=1).argmax() == 3


def test_a_grid_wider_than_the_feature_map_is_the_feature_map():
    """Found at once: a model file of someone else may ask for any grid."""
    assert small(grid=10**30)(images_of(1)).shape[1] == 8 * 8


@pytest.mark.parametrize("depth, width, grid", [(14, 8, 4), (20, 4, 2), (8, 6, 1)])
def test_other_sizes(depth, width, grid):
    network = ResNet(7, depth=depth, width=width, grid=grid)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) + 1 == depth
    assert network.classifier.in_features == 4 * width
    assert network(images_of(2)).shape == (2, grid**2, 7)


@pytest.mark.parametrize("depth", [2, 10, 33])
def test_wrong_depth(depth):
    with pytest.raises(ValueError, match=f"6n \\+ 2.*not {depth}"):
        ResNet(10, depth=depth)


def test_wrong_classifier():
    with pytest.raises(ValueError, match="'quadratic'"):
        ResNet(10, classifier="quadratic")


def test_images_that_are_not_square():
    with pytest.raises(ValueError, match="8 × 4"):
        small()(images_of()[:, :, :, :16])


@pytest.mark.parametrize("side, patches", [(32, 16), (24, 9), (16, 16), (20, 1)])
def test_smaller_images_have_patches_that_divide_the_map(side, patches):
    with torch.no_grad():
        assert small()(images_of(side=side)).shape[1] == patches


def test_images_of_64_pixels():
    network = small(stem_stride=2)
    with torch.no_grad():
        assert network.blocks(network.stem(images_of(1, 64).float())).shape[-2:] == (8, 8)
        assert network(images_of(2, 64)).shape == (2, 16, 5)


def test_bytes_and_floats_are_the_same_picture():
    network = small()
    with torch.no_grad():
        assert torch.equal(network(images_of()), network(images_of().float()))


def test_normalisation_is_inside_and_saved():
    network = small(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    state = network.state_dict()
    assert state["mean"].flatten().tolist() == pytest.approx([25.5, 51.0, 76.5])
    assert state["std"].flatten().tolist() == pytest.approx([127.5, 153.0, 178.5])
    plain = small(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
    plain.std.fill_(1.0)
    with torch.no_grad():
        done_outside = plain((images_of() - state["mean"]) / state["std"])
        assert torch.allclose(network(images_of()), done_outside, atol=1e-5)


def test_a_channel_without_contrast_does_not_divide_by_0():
    with torch.no_grad():
        assert small(std=(0.0, 0.25, 0.25))(images_of()).isfinite().all()


@pytest.mark.parametrize("classifier", ["linear", "cosine"])
def test_settings_and_state_rebuild_the_network(classifier):
    network = small(classifier=classifier, mean=(0.4, 0.5, 0.6))
    again = ResNet(**network.settings).eval()
    with torch.no_grad():
        assert not torch.equal(again(images_of()), network(images_of()))
        again.load_state_dict(network.state_dict())
        assert torch.equal(again(images_of()), network(images_of()))


def test_an_image_is_judged_alone():
    network = small()
    with torch.no_grad():
        together = network(images_of(5))
        alone = torch.cat([network(image[None]) for image in images_of(5)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_every_parameter_learns():
    network = ResNet(5, depth=8, width=8)
    network(images_of(4)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def reference(state: dict, images: torch.Tensor) -> torch.Tensor:
    """ResNet-8 as He et al. (2016) describe it, written out: patch logits of 32-pixel images."""

    def convolution(x, name, stride=1):
        return F.conv2d(x, state[f"{name}.weight"], stride=stride, padding=1)

    def norm(x, name):
        mean, var, weight, bias = (
            state[f"{name}.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    x = (images - state["mean"]) / state["std"]
    x = norm(convolution(x, "stem"), "norm").relu()
    for block, stride in enumerate((1, 2, 2)):
        name, shortcut = f"blocks.{block}", x
        if stride == 2:  # option A: every second pixel, zeros for the new channels
            shortcut = x[:, :, ::2, ::2]
            half = torch.zeros_like(shortcut)[:, : x.shape[1] // 2]
            shortcut = torch.cat([half, shortcut, half], 1)
        y = norm(convolution(x, f"{name}.conv1", stride), f"{name}.norm1").relu()
        x = (norm(convolution(y, f"{name}.conv2"), f"{name}.norm2") + shortcut).relu()
    cells = x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))  # 8 × 8 → 4 × 4
    features = cells.flatten(2).transpose(1, 2)
    return features @ state["classifier.weight"].T + state["classifier.bias"]


def test_the_network_is_that_of_the_paper():
    torch.manual_seed(3)
    network = ResNet(5, depth=8, width=8, mean=(0.3, 0.4, 0.5), std=(0.2, 0.3, 0.25))
    for _ in range(3):
        network(images_of(16))  # BatchNorm learns its statistics
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
    with torch.no_grad():
        found, wanted = network.eval()(images_of()), reference(network.state_dict(), images_of())
    assert torch.allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (4, 7)])
def test_the_stem_skips_no_pixel(stride, kernel):
    stem = small(stem_stride=stride).stem
    assert stem.kernel_size == (kernel, kernel) and stem.stride == (stride, stride)


@pytest.mark.parametrize("name", ["grid", "stem_stride"])
@pytest.mark.parametrize("value", [0, -1, 2.0, True, "2"])
def test_grid_and_stride_are_whole_numbers(name, value):
    with pytest.raises(ValueError, match=f"A network's {name} is 1, 2, 3 …"):
        small(**{name: value})
