"""torchmetrics and Lightning: self.log with a metric whose epoch value does not depend on the batch size."""

import lightning
import torch

from streamloss.integrations.torchmetrics import Metric


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.linear, self.metric = torch.nn.Linear(3, 1), Metric("squared_error")

    def validation_step(self, batch, _):
        x, y, weights = batch
        self.metric.update(self.linear(x), y, weights)
        self.log("val_mse", self.metric)


torch.manual_seed(0)
model = Model()
data = torch.utils.data.TensorDataset(torch.randint(-9, 9, (500, 3)).float(), torch.randn(500, 1), torch.rand(500))
model.linear.weight.data = torch.tensor([[0.5, -0.25, 2.0]])
trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
for size in (7, 32, 500):
    (result,) = trainer.validate(model, torch.utils.data.DataLoader(data, batch_size=size), verbose=False)
    print(f"batches of {size:3}: {result['val_mse']!r}")
