"""transformers: evaluation in constant memory, padding left out."""

import tempfile

import torch
from transformers import Trainer, TrainingArguments

from streamloss.integrations.transformers import ComputeMetrics


class Head(torch.nn.Module):
    """A value for every token of rows whose labels are padded with -100."""

    def forward(self, x, labels):
        return {"loss": x.mean(), "logits": x[..., None] / 2}


rows = [{"x": torch.arange(4.0), "labels": torch.tensor([0.0, 1.0, 2.0, -100.0])} for _ in range(100)]
for size in (7, 32):
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_eval_batch_size=size, batch_eval_metrics=True, report_to=[], use_cpu=True
        )
        trainer = Trainer(Head(), arguments, eval_dataset=rows, compute_metrics=ComputeMetrics())
        print(f"batches of {size:2}: {trainer.evaluate()['eval_mse']!r}")
