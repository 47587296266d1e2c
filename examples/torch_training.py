"""PyTorch: a training loss with exact value and torch's gradients, and a metric that no batch size changes."""

import torch

from streamloss.integrations.torch import Metric, MSELoss, all_reduce

torch.manual_seed(0)
x = torch.randn(1000, 3)
y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.1 * torch.randn(1000, 1)
model, loss = torch.nn.Linear(3, 1), MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for batch in torch.randperm(1000).split(50):
    optimizer.zero_grad()
    loss(model(x[batch]), y[batch]).backward()
    optimizer.step()

predictions = model(x).detach()
for size in (1, 7, 32, 1000):
    metric = Metric("squared_error")
    for part, labels in zip(predictions.split(size), y.split(size), strict=True):
        metric.update(part, labels)
    all_reduce(metric)  # over ranks, where there are several
    print(f"batches of {size:4}: {metric.compute()!r}")
