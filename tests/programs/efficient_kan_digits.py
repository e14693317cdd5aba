"""Digits by a Kolmogorov-Arnold network: a program for efficient-kan.

    python efficient_kan_digits.py [--seed 0] [--epochs 20]

Prints a line of JSON: the losses of the first 50 steps, the accuracy on test data, seconds of training.
"""

import argparse
import json
import time

import torch
from efficient_kan import KAN
from sklearn.datasets import load_digits

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=20)
options = parser.parse_args()
torch.manual_seed(options.seed)

images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 8 - 1, dtype=torch.float32), torch.tensor(labels)
order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
train, test = order[:1400], order[1400:]

network = KAN([64, 64, 10])
optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-4)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.9)
losses, start = [], time.perf_counter()
for _ in range(options.epochs):
    for batch in train[torch.randperm(len(train))].split(64):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(x[batch]), y[batch])
        (loss + 1e-4 * network.regularization_loss()).backward()
        optimizer.step()
        losses.append(loss.item())
    scheduler.step()
seconds = time.perf_counter() - start
with torch.no_grad():
    accuracy = (network(x[test]).argmax(1) == y[test]).double().mean().item()
print(json.dumps({"losses": losses[:50], "accuracy": accuracy, "seconds": seconds, "steps": len(losses)}))
