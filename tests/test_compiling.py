"""torch.compile: the same results, and one line where it does not work."""

import shutil

import pytest
import torch

from ltkd import compiling
from ltkd.compiling import compiled
from ltkd.networks import ResNet

IMAGES = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)


def test_where_it_does_not_work_one_line_says_so(home, monkeypatch, capsys):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(home))

    def broken(function, **options):
        def fail(*arguments):
            raise RuntimeError("No compiler here\nand a long story")

        return fail

    monkeypatch.setattr(compiling.torch, "compile", broken)
    network = ResNet(5, depth=8, width=4).eval()
    call = compiled(network)
    assert torch.equal(call(IMAGES), network(IMAGES))
    assert torch.equal(call(IMAGES), network(IMAGES))
    (line,) = capsys.readouterr().out.splitlines()
    assert line == "torch.compile does not work here (No compiler here): training without it."


def test_mistakes_of_the_caller_are_not_hidden(home, monkeypatch, capsys):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(home))
    monkeypatch.setattr(compiling.torch, "compile", lambda function, **options: function)
    with pytest.raises(ValueError, match="square"):
        compiled(ResNet(5, depth=8, width=4))(IMAGES[..., :16])


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_or_not_the_results_are_the_same(home, monkeypatch, capsys):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is put back at the end
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    call = compiled(network)
    gradients = []
    for function in call, network:
        network.zero_grad()
        function(IMAGES.float()).square().mean().backward()
        gradients.append(network[0].weight.grad.clone())
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-3)
    assert "does not work" not in capsys.readouterr().out
    assert any((home / "data" / "built" / "compiled").rglob("*"))
