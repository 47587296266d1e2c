"""torchmetrics and Lightning: the same bits for any batch size and number of processes, as people expect it to work."""

import copy
import os
import pickle
import socket
import subprocess
import sys
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torchmetrics = pytest.importorskip("torchmetrics")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip("lightning")
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger

from streamloss.integrations.torchmetrics import Metric  # noqa: E402
from tests.regression import SIZES, diabetes  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers, and its dependencies' own
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


# ------------------------------------------------------------------------------------------- torchmetrics


@pytest.mark.parametrize("weighted", [False, True])
def test_the_same_bits_for_any_batch_size(weighted):
    data = diabetes()
    whole = data.accumulator(weighted=weighted)
    columns = [torch.from_numpy(column) for column in (data.predictions, data.y[:, None], data.weights)]
    theirs = set()
    for size in SIZES:
        metric, reference = Metric(), torchmetrics.MeanSquaredError()
        for batch in zip(*(column.split(size) for column in columns), strict=True):
            metric.update(*batch[: 3 if weighted else 2])
            reference.update(*batch[:2])
        assert metric.compute().item() == whole.result()
        assert metric.accumulator == whole
        theirs.add(reference.compute().item())
    assert len(theirs) > 1  # torchmetrics' float32 total rounds once a batch


def test_its_float32_total_drifts():
    metric, reference = Metric("absolute_error"), torchmetrics.MeanAbsoluteError()
    tenth, zero = torch.full((1_000_000,), 0.1), torch.zeros(1_000_000)
    for both in (metric, reference):
        both.update(tenth, zero)
        for _ in range(30_000):
            both.update(tenth[:1], zero[:1])
    assert metric.compute().item() == tenth[0].item()
    assert abs(reference.compute().item() / tenth[0].item() - 1) > 1e-4


def test_masks_weights_and_nan():
    preds, target = torch.tensor([[1.0, 2.0], [torch.nan, 4.0]]), torch.zeros(2, 2)
    metric = Metric("absolute_error", nan="omit")
    metric.update(preds, target, torch.tensor([1.0, 2.0]), torch.tensor([[True, False], [True, True]]))
    assert metric.compute().item() == (1 + 2 * 4) / 3
    assert metric.accumulator.skipped_count == 1
    with pytest.raises(ValueError, match="target and preds must have the same shape"):
        metric.update(preds, target[:1])
    with pytest.raises(ValueError, match="nan='raise' would have to wait for meta"):
        Metric(nan="raise").update(*(torch.ones(3, device="meta"),) * 2)
    with pytest.raises(TypeError, match="mask must be bool"):
        metric.update(preds, target, mask=target)
    assert metric.compute().item() == 3


def test_forward_merge_reset_and_copies():
    metric = Metric()
    assert metric(torch.ones(3), torch.zeros(3)).item() == 1
    assert metric(torch.full((2,), 2.0), torch.zeros(2)).item() == 4
    assert metric.compute().item() == 11 / 5
    other = Metric()
    other.update(torch.full((3,), 5.0), torch.zeros(3))
    metric.merge_state(other)
    assert metric.compute().item() == 86 / 8  # and not what was computed before
    for same in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), metric.clone()):
        assert same.accumulator == metric.accumulator
    metric.half().set_dtype(torch.float16)
    assert metric.compute().item() == 86 / 8
    metric.reset()
    assert np.isnan(metric.compute().item())


def test_a_collection_shares_states_of_equal_losses_only():
    """All errors of the first batch are 0 or 1: the states of both losses are equal then."""
    losses = {
        "mse": "squared_error",
        "mae": "absolute_error",
        "fn": lambda label, prediction: abs(label - prediction) ** 3,
    }
    metrics = {name: Metric(loss) for name, loss in losses.items()} | {"sum": Metric(reduction="sum")}
    collection = torchmetrics.MetricCollection(metrics)
    collection.update(torch.tensor([1.0, 0.0, 1.0]), torch.zeros(3))
    collection.update(torch.tensor([3.0, 0.0, 1.0]), torch.zeros(3))
    found = {name: value.item() for name, value in collection.compute().items()}
    assert found == {"mse": 2.0, "mae": 1.0, "fn": 5.0, "sum": 12.0}
    assert sorted(map(sorted, collection.compute_groups.values())) == [["fn"], ["mae"], ["mse", "sum"]]


def test_a_checkpoint_holds_the_state_and_refuses_another_loss():
    metric = Metric("huber(delta=2)")
    metric.persistent(True)
    metric.update(torch.ones(3), torch.zeros(3))
    same = Metric("huber(delta=2)")
    same.persistent(True)
    same.load_state_dict(metric.state_dict())
    assert same.accumulator == metric.accumulator
    other = Metric("huber(delta=3)")
    other.persistent(True)
    with pytest.raises(RuntimeError, match="state_"):
        other.load_state_dict(metric.state_dict())


def test_tensors_on_a_device_stay_there():
    metric = Metric().to("meta")
    metric.update(*(torch.zeros(3, 2, device="meta"),) * 2, torch.zeros(3, device="meta"))
    assert next(iter(metric.metric_state.values())).device.type == "meta"


# ------------------------------------------------------------------------------------------- Lightning


class Unsized:
    """A loader that does not tell its length: Lightning leaves out a rank that says 0, and the others wait for it."""

    def __init__(self, loader):
        self.loader = loader

    def __iter__(self):
        return iter(self.loader)


class Model(lightning.LightningModule):
    """A linear model that stays as it is, and logs our metric and torchmetrics' own."""

    def __init__(self, size=32, rows=slice(None)):
        super().__init__()
        self.data, self.size, self.rows = diabetes(), size, rows
        self.linear = torch.nn.Linear(10, 1)
        self.linear.weight.data = torch.from_numpy(self.data.kernel.T.copy())
        self.linear.bias.data = torch.from_numpy(self.data.bias.copy())
        self.metric, self.reference, self.late = Metric(), torchmetrics.MeanSquaredError(), Metric()
        self.late.persistent(True)

    def loader(self, rows):
        columns = (self.data.x, self.data.y[:, None], self.data.weights)
        dataset = torch.utils.data.TensorDataset(*(torch.from_numpy(column[rows]) for column in columns))
        return torch.utils.data.DataLoader(dataset, batch_size=self.size)

    def train_dataloader(self):
        return self.loader(slice(0, 64))

    def val_dataloader(self):
        loader = self.loader(self.rows)
        return loader if self.trainer.world_size == 1 else Unsized(loader)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def training_step(self, batch, _):
        return torch.nn.functional.mse_loss(self.linear(batch[0]), batch[1])

    def validation_step(self, batch, _):
        x, y, weights = batch
        predictions = self.linear(x)
        self.late.update(predictions, y, weights)
        if self.trainer.world_size == 1:
            self.metric.update(predictions, y, weights)
            self.reference.update(predictions, y)
            self.log("val_mse", self.metric)
            self.log("theirs", self.reference)

    def on_validation_epoch_end(self):
        self.log("val_late", self.late)  # where a rank may have no batch: here every rank takes part


def test_lightning_logs_the_same_bits_for_any_batch_size(tmp_path):
    expected = diabetes().accumulator(weighted=True).result()
    theirs = set()
    for size in SIZES:
        logger = CSVLogger(tmp_path, name=str(size))
        checkpoint = ModelCheckpoint(monitor="val_mse", dirpath=tmp_path, filename=f"{size}")
        model = Model(size)
        trainer = lightning.Trainer(max_epochs=2, logger=logger, callbacks=[checkpoint], **QUIET)
        trainer.fit(model)
        assert trainer.callback_metrics["val_mse"].item() == expected
        assert checkpoint.best_model_score.item() == expected
        (result,) = trainer.validate(model, verbose=False)
        assert result["val_mse"] == result["val_late"] == expected
        theirs.add(result["theirs"])
    assert len(theirs) > 1
    Model.load_from_checkpoint(tmp_path / "442.ckpt")


WORKER = """
import sys, warnings
warnings.simplefilter("ignore")
from tests.test_integrations_torchmetrics import *
rank, bounds = int(sys.argv[1]), eval(sys.argv[2])
model = Model(7 + rank, slice(*bounds[rank]))
trainer = lightning.Trainer(
    strategy="ddp", devices=len(bounds), use_distributed_sampler=False, max_epochs=1, num_sanity_val_steps=0,
    logger=False, enable_checkpointing=False, limit_train_batches=3, **QUIET
)
trainer.fit(model)
print("value", trainer.callback_metrics["val_late"].item().hex())
(result,) = trainer.validate(model, verbose=False)
print("value", result["val_late"].hex())
"""


@pytest.mark.parametrize("bounds", [[(0, 442)], [(0, 300), (300, 442)], [(0, 17), (17, 17), (17, 442)]], ids=len)
def test_lightnings_ddp_has_the_same_bits_on_all_ranks(bounds):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(len(bounds)),
        "NODE_RANK": "0",
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(bounds)],
            env={**environment, "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(len(bounds))
    ]
    try:
        outputs = [rank.communicate(timeout=180) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    expected = "value " + diabetes().accumulator(weighted=True).result().hex()
    assert [rank.returncode for rank in ranks] == [0] * len(ranks), [err[-2000:] for _, err in outputs]
    for out, _ in outputs:
        assert [line for line in out.splitlines() if line.startswith("value")] == [expected] * 2
