"""torchvision's classification networks, by name, as networks that classify every patch."""

import difflib
import re
import warnings
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet as TorchvisionResNet
from torchvision.models import VisionTransformer

from .files import out_of_memory, shown, unread
from .networks import PatchNetwork

HEADS = ("avgpool", "dropout", "fc", "flatten", "head", "classifier")
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation
HALF = (0.5,) * 3, (0.5,) * 3


class Backbone(PatchNetwork):
    """A classification network of torchvision whose last feature map is classified patch by patch.

    Average pooling and the linear classifier are put in the other order, so the image's logits are
    exactly the mean of the patch logits. For ResNet, DenseNet, RegNet, MobileNetV2, EfficientNet
    and others with a linear head that is the original network. A head with layers of its own
    (VGG, MobileNetV3, MaxViT) gives way to the linear one, and ConvNeXt's last norm comes before
    the pooling. A vision transformer (Dosovitskiy et al. 2021) is classified by its patch tokens,
    not by its class token.

    Parameters
    ----------
    classes : number of classes C
    backbone : a name of torchvision.models.list_models, such as "resnet18" or "vit_b_16"
    stem_stride : of torchvision's ResNets (He et al. 2016), where it is below 4: a 3 × 3
        convolution with that stride takes the place of the stem for 224-pixel images, which
        divides the side by 4
    grid : the feature map is pooled to the largest grid up to this one that divides its side; a
        side that nothing divides, 13 say, is not pooled
    others : as for networks.ResNet

    Raises ValueError for an unknown name, with the nearest known ones.

    >>> Backbone(10, "resnet18", stem_stride=2)(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 16, 10])
    """

    def __init__(
        self,
        classes: int,
        backbone: str,
        stem_stride: int = 4,
        grid: int = 7,
        classifier: str = "linear",
        scale: float = 30.0,
        mean: tuple[float, ...] = IMAGENET[0],
        std: tuple[float, ...] = IMAGENET[1],
    ):
        super().__init__({
            "classes": classes, "backbone": backbone, "grid": grid, "classifier": classifier,
            "scale": scale, "stem_stride": stem_stride, "mean": list(mean), "std": list(std),
        })  # fmt: skip
        model = _model(backbone)
        if isinstance(model, TorchvisionResNet) and stem_stride < 4:
            model.conv1 = nn.Conv2d(3, 64, 3, stem_stride, padding=1, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
            model.maxpool = nn.Identity()
        self.blocks, channels = _without_head(model)
        self.classify_by(channels)
        self.train()

    def features(self, x: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) → feature maps (B, F, h, w)."""
        return self.blocks(x)

    def cells(self, side: int) -> int:
        """How many patches there are along a feature map's side."""
        cells = super().cells(side)
        return cells if cells > 1 else side

    def load_imagenet(self) -> None:
        """Take the ImageNet weights of all layers but the classifier's and a changed stem's.

        torchvision downloads them, or reads them where it keeps its downloads. Raises OSError
        with one sentence where neither works.
        """
        name = self.settings["backbone"]
        model = _model(name)
        model.load_state_dict(imagenet_weights(name))
        state = _without_head(model)[0].state_dict()
        own = self.blocks.state_dict()
        self.blocks.load_state_dict(
            {key: state[key] if state[key].shape == own[key].shape else own[key] for key in own}
        )


class Tokens(nn.Module):
    """A vision transformer's patch tokens after the last layer, as a map (B, F, h, w).

    Images of another size than the transformer's own get its position embedding interpolated.
    """

    def __init__(self, model: VisionTransformer):
        super().__init__()
        self.patches, self.layers = model.conv_proj, model.encoder.layers
        self.norm, self.dropout = model.encoder.ln, model.encoder.dropout
        self.class_token, self.positions = model.class_token, model.encoder.pos_embedding

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)  # (B, F, h, w)
        size = x.shape[-2:]
        first, rest = self.positions[:, :1], self.positions[:, 1:]
        side = round(rest.shape[1] ** 0.5)
        rest = rest.transpose(1, 2).unflatten(2, (side, side))  # (1, F, side, side)
        if size != (side, side):
            rest = F.interpolate(rest, size, mode="bicubic", antialias=True)
        tokens = (x + rest).flatten(2).transpose(1, 2)  # (B, P, F)
        token = (self.class_token + first).expand(len(x), -1, -1).to(tokens.dtype)
        tokens = self.norm(self.layers(self.dropout(torch.cat([token, tokens], 1))))
        return tokens[:, 1:].transpose(1, 2).unflatten(2, size)


def backbone_for(
    backbone: str,
    classes: int,
    image_size: int,
    weights: str | None = None,
    smallest: int | None = None,
    **settings: Any,
) -> Backbone:
    """A network that suits the image size; raises ValueError where it cannot take such images.

    `smallest` is the size of the images that a schedule begins with, where they are smaller.
    """
    stride = 1 if image_size < 48 else 2 if image_size < 112 else 4
    if weights:
        settings |= dict(zip(("mean", "std"), normalisation(backbone), strict=True))
        stride = 4  # the stem that the weights belong to
    network = Backbone(classes, backbone, stride, **settings)
    for side in sorted({image_size, smallest or image_size}, reverse=True):
        try:
            with torch.inference_mode():
                network.eval()(torch.zeros(1, 3, side, side))
        except (RuntimeError, AssertionError, ValueError) as error:
            if out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
            begins = "" if side == image_size else ", with which the schedule begins,"
            raise ValueError(
                f"{backbone} cannot take images of {side} pixels{begins} ({reason}): choose a "
                f"larger image_size, such as 224, or another backbone or schedule."
            ) from error
    if weights:
        network.load_imagenet()
    return network.train()


def imagenet_weights(name: str) -> dict[str, Tensor]:
    """torchvision's ImageNet weights for the network of that name, downloaded once.

    Raises OSError with one sentence where they are not here and cannot be had.
    """
    weights = _weights(name)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / Path(weights.url).name
    try:
        state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        return {_present_name(key): value for key, value in state.items()}
    except Exception as error:  # no network, no room, a damaged file: many kinds
        reason = str(error).partition("\n")[0] or type(error).__name__
        if file.exists():
            wrong, mend = "are damaged", "delete that file"
            if unread(error):
                wrong, mend = "cannot be read now", "fix that first"
            raise OSError(f"The weights in {shown(file)} {wrong} ({reason}): {mend}.") from error
        raise OSError(
            f"The ImageNet weights of {name} could not be downloaded ({reason}): fetch "
            f"{weights.url} where there is a network and put it in {shown(folder)}, or train from "
            f"scratch, without --weights."
        ) from error


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the images that the ImageNet weights were trained on.

    >>> normalisation("googlenet")
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    """
    if name in ("googlenet", "inception_v3"):  # torchvision's forward takes ImageNet's out again
        return HALF
    preset = _weights(name).transforms()
    return tuple(preset.mean), tuple(preset.std)


def _weights(name: str) -> Any:
    """torchvision's usual ImageNet weights; for vit_h_14 those of 224 pixels, as its network is."""
    known = torchvision.models.get_model_weights(name)
    return known.IMAGENET1K_SWAG_LINEAR_V1 if name == "vit_h_14" else known.DEFAULT


def _present_name(key: str) -> str:
    """The files of DenseNet are older than the names of its layers."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", key)


def _model(name: str) -> nn.Module:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        near = ", ".join(difflib.get_close_matches(name, known, 5, 0.3) or known[:5])
        raise ValueError(
            f"Unknown backbone {name!r}; choose resnet, or a classification network of "
            f"torchvision, such as {near}."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of changes to come in how weights are drawn
        return torchvision.models.get_model(name)


def _without_head(model: nn.Module) -> tuple[nn.Module, int]:
    """The layers up to the last feature map, and its channels."""
    if isinstance(model, VisionTransformer):
        return Tokens(model), model.hidden_dim
    parts = takewhile(lambda part: part[0] not in HEADS, model.named_children())
    layers: list[nn.Module] = []
    for name, part in parts:
        if not name.lower().startswith("aux"):  # classifiers half-way that only help training
            layers += part if isinstance(part, nn.ModuleList) else [part]
    if isinstance(model, torchvision.models.DenseNet):
        layers.append(nn.ReLU(inplace=True))  # a function in torchvision's forward
    if isinstance(model, torchvision.models.ConvNeXt):
        layers.append(model.classifier[0])  # its norm, before pooling instead of after
    blocks = nn.Sequential(*layers)
    with torch.inference_mode():
        return blocks, blocks.eval()(torch.zeros(1, 3, 224, 224)).shape[1]
