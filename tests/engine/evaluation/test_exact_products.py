"""Scores and predictions come from exact fp32 products, whatever training multiplies with."""

import pytest
import torch
from toy_task import ToyConfig, ToyTask

from visionloop.engine import precision, predict
from visionloop.engine.evaluation import evaluate, samples
from visionloop.engine.predict import ReadBatch, predict_batch
from visionloop.engine.train import train

EXACT, FAST = ("highest", False), ("high", True)
CUDA = torch.device("cuda")


def switches():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


@pytest.fixture(autouse=True)
def fast_products():
    """TF32 on, as a run on CUDA switches it."""
    before = switches()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.fixture
def as_on_cuda(monkeypatch):
    """The engine treats the CPU as it treats CUDA, where it switches TF32."""
    for module in (evaluate, samples, predict):
        monkeypatch.setattr(
            module, "exact_products", lambda _device: precision.exact_products(CUDA)
        )


class Watched(ToyTask):
    """Notes the switches of each loss and of each prediction."""

    trained, predicted = set(), set()

    def loss(self, model, batch, normalizers):
        self.trained.add(switches())
        return super().loss(model, batch, normalizers)

    def predict(self, model, batch):
        self.predicted.add(switches())
        return super().predict(model, batch)


def test_tf32_is_off_inside_and_as_before_outside_also_after_an_error():
    with pytest.raises(KeyError), precision.exact_products(CUDA):
        assert switches() == EXACT
        raise KeyError
    assert switches() == FAST
    with precision.exact_products(torch.device("cpu")):
        assert switches() == FAST


@pytest.mark.usefixtures("as_on_cuda")
def test_every_prediction_of_a_run_is_exact_and_every_step_as_fast_as_before(tmp_path):
    settings = dict(batch_size=8, micro_batch=8, steps=4, eval_every=2, threads=1, workers=0)
    train(Watched, output=str(tmp_path), device="cpu", precision="fp32", **settings)
    assert Watched.predicted == {EXACT} and Watched.trained == {FAST}


@pytest.mark.usefixtures("as_on_cuda")
def test_predict_is_exact(tmp_path):
    seen = []

    class Described(ToyTask):
        def predict(self, model, batch):
            seen.append(switches())
            return super().predict(model, batch)

        def describe_predictions(self, batch, predictions, names):
            return [{"file": name} for name in names]

        def explain(self, module, batch, kind):
            seen.append(switches())
            return []

    task = Described(ToyConfig())
    dataset = task.build_eval_dataset("val")
    batch = task.collate_eval([dataset[i] | {"sample_id": torch.tensor(i)} for i in range(2)])
    read = ReadBatch(batch, 0, [0, 1], {})
    module = task.build_model().eval()
    predict_batch(
        task, module, read, tmp_path, ["a", "b"], torch.device("cpu"), kinds=("saliency",)
    )
    assert seen == [EXACT, EXACT] and switches() == FAST
