"""Half precision: half the size, the same answers, and refused where the answers change."""

import torch

from ltkd import halving
from ltkd.checkpoints import halved, load_checkpoint
from ltkd.evaluation import evaluate_network
from ltkd.experiments import ROLES
from ltkd.results import results


def stored(path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["weights"]


def test_weights_are_halved_and_load_as_float32(trained, digits, capsys):
    sizes = {role: trained.model_file(role).stat().st_size for role in ROLES}
    logits = {}
    images = torch.from_numpy(digits.test.images[:64])
    for role in ROLES:
        with torch.no_grad():
            logits[role] = load_checkpoint(trained.model_file(role))[0](images)
    changes = halving.halve(trained, digits)
    assert capsys.readouterr().out.count("is in half precision now: ") == 2
    for role in ROLES:
        path = trained.model_file(role)
        assert path.stat().st_size < 0.65 * sizes[role]
        kinds = {v.dtype for v in stored(path).values() if v.numel() > max(v.shape, default=1)}
        assert kinds == {torch.float16}
        assert stored(path)["mean"].dtype == torch.float32
        network, content = load_checkpoint(path, 10)
        assert {p.dtype for p in network.parameters()} == {torch.float32}
        with torch.no_grad():
            assert torch.allclose(network(images), logits[role], atol=0.05)
        for split in ("validation", "test"):
            found = evaluate_network(network, getattr(digits, split), digits.groups)
            assert content["metrics"][split]["all"] == found["all"]
        assert content["metrics"]["seconds"] > 0  # the rest is kept
        assert abs(changes[role]) <= halving.TOLERANCE


def test_tables_of_whole_numbers_stay_as_they_are():
    """MaxViT keeps the relative positions of patches in such a table."""
    places = torch.tensor([[0, 70_000], [1, 2]])
    assert torch.equal(halved({"places": places})["places"], places)
    assert halved({"places": places})["places"].dtype == torch.int64


def test_results_name_the_job(trained, digits):
    halving.halve(trained, digits)
    jobs = [line.split()[3] for line in results(trained, digits)["command"].split(" && ")]
    assert jobs == ["student", "halve", "evaluate"]


def test_twice_is_once(trained, digits):
    halving.halve(trained, digits)
    once = {role: trained.model_file(role).read_bytes() for role in ROLES}
    assert set(halving.halve(trained, digits).values()) == {0.0}
    assert {role: trained.model_file(role).read_bytes() for role in ROLES} == once


def test_a_model_that_loses_accuracy_keeps_its_precision(trained, digits, monkeypatch, capsys):
    before = trained.model_file("student").read_bytes()

    def spoilt(weights):
        return {n: -v if v.ndim > 1 else v for n, v in weights.items()}

    monkeypatch.setattr(halving, "halved", spoilt)
    change = halving.halve(trained, digits)["student"]
    assert abs(change) > halving.TOLERANCE
    assert trained.model_file("student").read_bytes() == before
    assert "student_model.pth stays in full precision: " in capsys.readouterr().out
