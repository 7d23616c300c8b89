"""torchvision's networks, patch by patch: the identity, sizes, weights, learning rates."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from ltkd import backbones
from ltkd.backbones import Backbone, backbone_for
from ltkd.checkpoints import load_checkpoint, network_from, save_checkpoint
from ltkd.datasets import LongTailedData, Split
from ltkd.experiments import Experiment
from ltkd.initial import new_network
from ltkd.networks import ResNet, image_logits
from ltkd.optimizers import optimizer_for
from ltkd.runs import train
from ltkd.schedules import SCHEDULES

SMALL = ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "squeezenet1_1", "regnet_y_400mf"]


def pictures(number: int = 2, side: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, 3, side, side), dtype=torch.uint8, generator=generator)


@pytest.fixture
def data() -> LongTailedData:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [8, 4, 2])
    pixels = random.integers(0, 256, (14, 3, 32, 32), np.uint8)
    split = Split(pixels, labels, np.arange(14))
    return LongTailedData("tiny", ["a", "b", "c"], split, split, split)


@pytest.mark.parametrize("classifier", ["linear", "cosine"])
def test_the_image_is_the_mean_of_its_patches(classifier):
    torch.manual_seed(0)
    network = Backbone(5, "resnet18", 2, classifier=classifier).eval()
    with torch.no_grad():
        patches = network(pictures())
        feature = network.blocks((pictures() - network.mean) / network.std).mean((2, 3))
        if classifier == "linear":
            expected = network.classifier(feature)
        else:
            rows = network.classifier.weight
            expected = 30 * torch.cosine_similarity(feature[:, None], rows[None], dim=-1)
    assert patches.shape == (2, 16, 5)
    assert torch.allclose(image_logits(patches), expected, atol=1e-4)


@pytest.mark.parametrize(("name", "head"), [("resnet18", "fc"), ("densenet121", "classifier")])
def test_it_is_torchvisions_own_network(name, head):
    """With its classifier, the mean of the patch logits is what torchvision's network says."""
    torch.manual_seed(0)
    original = torchvision.models.get_model(name).eval()
    network = Backbone(1000, name).eval()
    network.blocks.load_state_dict(backbones._without_head(original)[0].state_dict())
    network.classifier.load_state_dict(getattr(original, head).state_dict())
    images = pictures(side=96)
    with torch.no_grad():
        expected = original((images - network.mean) / network.std)
        assert torch.allclose(image_logits(network(images)), expected, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_backbones_by_name(name):
    network = backbone_for(name, 4, 64)
    assert network.training
    network.eval()
    with torch.no_grad():
        patches = network(pictures())
        assert patches.shape[2] == 4 and round(patches.shape[1] ** 0.5) ** 2 == patches.shape[1]
        assert not torch.equal(patches[0], patches[1])
    again = network_from(network.settings).eval()
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(again(pictures()), patches)


@pytest.mark.parametrize("side, patches", [(32, 16), (64, 16), (128, 16), (224, 49), (48, 9)])
def test_the_stem_of_resnet18_suits_the_size(side, patches):
    with torch.no_grad():
        assert backbone_for("resnet18", 3, side).eval()(pictures(1, side)).shape[1] == patches


def test_a_side_that_nothing_divides_is_not_pooled():
    network = Backbone(3, "resnet18", 2)
    assert [network.cells(side) for side in (1, 2, 4, 7, 8, 13, 14, 16)] == [
        1,
        2,
        4,
        7,
        4,
        13,
        7,
        4,
    ]


def test_every_parameter_learns():
    network = backbone_for("resnet18", 3, 32)
    network(pictures(4, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


class TestVisionTransformer:
    @pytest.fixture
    def small(self, monkeypatch):
        """A vision transformer of two thin layers in the place of vit_b_16."""

        def model(name):
            torch.manual_seed(0)
            return torchvision.models.VisionTransformer(64, 16, 2, 2, 32, 64)

        monkeypatch.setattr(backbones, "_model", model)
        return Backbone(3, "vit_b_16").eval()

    def test_tokens_are_those_of_torchvision(self, small):
        original = backbones._model("vit_b_16").eval()
        images = pictures()
        x = (images - small.mean) / small.std
        with torch.no_grad():
            tokens = original._process_input(x)
            first = original.class_token.expand(2, -1, -1)
            expected = original.encoder(torch.cat([first, tokens], 1))[:, 1:]  # (B, P, F)
            found = small.blocks(x).flatten(2).transpose(1, 2)
            assert torch.allclose(found, expected, atol=1e-5)
            logits = small.classifier(expected)
            assert torch.allclose(small(images), logits, atol=1e-5)

    @pytest.mark.parametrize("side, patches", [(64, 16), (48, 9), (32, 4), (96, 36)])
    def test_other_sizes_interpolate_the_positions(self, small, side, patches):
        with torch.no_grad():
            assert small(pictures(2, side)).shape == (2, patches, 3)

    def test_patches_are_in_reading_order(self, small):
        images = pictures(1).repeat(2, 1, 1, 1)
        images[1, :, :16, 48:] = 255
        with torch.no_grad():
            logits = small(images)
        assert (logits[0] - logits[1]).norm(dim=1).argmax() == 3


def test_an_unknown_backbone_is_answered_with_near_ones():
    with pytest.raises(ValueError, match=r"Unknown backbone 'resnet_50'; .*resnet50"):
        backbone_for("resnet_50", 3, 64)


def test_images_that_are_too_small():
    with pytest.raises(ValueError, match=r"alexnet cannot take images of 16 pixels \(.*\): choose"):
        backbone_for("alexnet", 3, 16)


def test_a_schedule_that_begins_on_images_that_are_too_small(digits, shorten):
    photographs = SCHEDULES["photographs"]
    experiment = Experiment.named("digits-lt")
    experiment = replace(experiment, backbone="alexnet", image_size=64, schedule=photographs)
    begins = (
        r"alexnet cannot take images of 48 pixels, with which the schedule begins, \(.*\): choose"
    )
    with pytest.raises(ValueError, match=begins):
        new_network(experiment, digits, "teacher")
    new_network(shorten(experiment, 1, small=0.0), digits, "teacher")  # 64 pixels will do


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Where torchvision keeps its downloads: empty, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    return tmp_path / "hub" / "checkpoints"


def test_weights_without_a_network_say_what_to_fetch_and_where(hub):
    with pytest.raises(OSError) as error:
        backbone_for("resnet18", 3, 64, "imagenet")
    message = str(error.value)
    assert "\n" not in message and "no network" in message
    assert "fetch https://download.pytorch.org/models/resnet18-f37072fd.pth" in message
    assert str(hub) in message


def test_weights_from_a_file(hub):
    hub.mkdir(parents=True)
    torch.manual_seed(5)
    original = torchvision.models.resnet18().eval()
    torch.save(original.state_dict(), hub / "resnet18-f37072fd.pth")
    network = backbone_for("resnet18", 7, 64, "imagenet", mean=[0.1] * 3, std=[0.1] * 3).eval()
    assert network.settings["mean"] == list(backbones.IMAGENET[0])  # those of the weights
    with torch.no_grad():
        x = (pictures() - network.mean) / network.std
        found = network.blocks(x).mean((2, 3))
        original.fc = torch.nn.Identity()
        assert torch.allclose(found, original(x), atol=1e-4)
    (hub / "resnet18-f37072fd.pth").write_bytes(b"half a file")
    with pytest.raises(OSError, match=r"resnet18-f37072fd.pth are damaged .*: delete that file"):
        backbone_for("resnet18", 7, 64, "imagenet")


def no_memory(*arguments, **options):
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


def test_weights_that_cannot_be_read_now_are_not_called_damaged(hub, monkeypatch):
    hub.mkdir(parents=True)
    torch.save(torchvision.models.resnet18().state_dict(), hub / "resnet18-f37072fd.pth")

    monkeypatch.setattr(torch, "load", no_memory)
    with pytest.raises(OSError, match=r"resnet18-f37072fd.pth cannot be read now \(Default"):
        backbones.imagenet_weights("resnet18")


def test_images_for_which_there_is_no_memory_are_not_called_too_small(monkeypatch):
    monkeypatch.setattr(Backbone, "features", no_memory)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        backbone_for("resnet18", 3, 64)


def test_weights_of_densenet_are_known_by_their_old_names(hub):
    hub.mkdir(parents=True)
    torch.manual_seed(5)
    original = torchvision.models.densenet121().eval()
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))(\d)\.")  # norm1.weight was norm.1.weight
    state = {old.sub(r"\1.\2.", key): value for key, value in original.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in state
    torch.save(state, hub / "densenet121-a639ec97.pth")
    network = backbone_for("densenet121", 7, 64, "imagenet").eval()
    with torch.no_grad():
        x = (pictures() - network.mean) / network.std
        found, expected = network.blocks(x), original.features(x).relu()
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["GoogLeNet", "Inception3"])
def test_the_weights_that_take_imagenets_normalisation_out_again(kind):
    images = pictures() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in backbones.IMAGENET)
    network = SimpleNamespace(transform_input=True)  # as it is with torchvision's weights
    expected = getattr(torchvision.models, kind)._transform_input(network, (images - mean) / std)
    name = {"GoogLeNet": "googlenet", "Inception3": "inception_v3"}[kind]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in backbones.normalisation(name))
    assert torch.allclose((images - mean) / std, expected, atol=1e-5)


def test_the_normalisation_is_that_of_the_weights():
    assert backbones.normalisation("efficientnet_v2_l") == backbones.HALF
    assert backbones.normalisation("vit_b_16") == backbones.IMAGENET


def test_the_weights_fit_the_networks_positions():
    """The usual weights of vit_h_14 are for images of 518 pixels: they have other positions."""
    for name in ("vit_h_14", "vit_b_16"):
        assert backbones._weights(name).meta["min_size"] == (224, 224)


def test_the_small_resnet_has_no_weights():
    with pytest.raises(ValueError, match="no ImageNet weights for the small ResNet"):
        Experiment.choose("cifar10-lt", weights="imagenet")
    with pytest.raises(ValueError, match="imagenet or not given, not 'jft'"):
        Experiment.choose("cifar10-lt", backbone="resnet18", weights="jft")
    assert Experiment.choose("cifar10-lt", backbone="resnet18", weights="imagenet").name == (
        "cifar10-lt-resnet18-imagenet"
    )


def test_a_backbone_is_trained_and_loaded_again(data, shorten, capsys):
    experiment = replace(
        Experiment.named("digits-lt"), backbone="shufflenet_v2_x0_5", image_size=32
    )
    experiment = shorten(experiment, 1, batch_size=7, augment=("flip",))
    network, content = train(experiment, data, "student")
    assert content["network"]["backbone"] == "shufflenet_v2_x0_5"
    assert isinstance(network, Backbone)
    assert train(experiment, data, "student")[1]["history"] == content["history"]
    assert "The student is loaded" in capsys.readouterr().out


def test_model_files_from_before_there_were_backbones(data, quick, tmp_path):
    """Fields that a model file does not know have their defaults."""
    from ltkd.classifier import _experiment

    network = new_network(quick, data, "teacher")
    assert isinstance(network, ResNet)
    path = quick.model_file("teacher")
    save_checkpoint(path, network, data, quick, "teacher", {"all": 1.0}, [])
    content = torch.load(path, weights_only=True)
    for field in ("backbone", "weights", "merge_below"):
        del content["experiment"][field]
    del content["experiment"]["schedule"]["backbone_rate"]
    torch.save(content, path)
    assert _experiment(load_checkpoint(path)[1], path) == quick
    assert train(quick, data, "teacher")[1]["metrics"] == {"all": 1.0}  # loaded, not trained


@pytest.mark.parametrize("optimizer", ["sgd", "muon", "adamw"])
def test_backbone_and_head_have_their_own_rates(optimizer):
    network = ResNet(4, depth=8, width=4)
    plan = replace(SCHEDULES["finetune"], optimizer=optimizer, learning_rate=0.2, muon_rate=0.5)
    groups = optimizer_for(network, plan).param_groups
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    assert len(rates) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        rotated = optimizer == "muon" and parameter.ndim == 4 and name != "stem.weight"
        slow = 1.0 if name.startswith("classifier.") else 0.1
        assert rates[id(parameter)] == pytest.approx((0.5 if rotated else 0.2) * slow), name


def test_convolutions_with_a_bias_are_not_rotated():
    network = torchvision.models.vgg11(init_weights=False).features
    groups = optimizer_for(network, SCHEDULES["fast"]).param_groups
    assert not any(group.get("orthogonal") for group in groups)
    assert sum(len(g["params"]) for g in groups) == len(list(network.parameters()))


def test_convnexts_last_norm_comes_before_the_pooling(monkeypatch):
    def model(name):
        torch.manual_seed(0)
        return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)])

    monkeypatch.setattr(backbones, "_model", model)
    network, original = Backbone(3, "convnext_tiny").eval(), model("").eval()
    x = (pictures() - network.mean) / network.std
    with torch.no_grad():
        wanted = original.classifier[0](original.features(x))
        assert torch.allclose(network.blocks(x), wanted, atol=1e-5)
        assert network(pictures()).shape == (2, 16, 3)
