"""Digits by a piecewise polynomial network: a program for high-order-layers-torch.

    python high_order_layers_torch_digits.py [--seed 0] [--epochs 20]

Prints a line of JSON: the losses of the first 50 steps, the accuracy on test data, seconds of training.
"""

import argparse
import json
import random
import time

import torch
from high_order_layers_torch.layers import MaxAbsNormalization
from high_order_layers_torch.networks import HighOrderMLP, initialize_network_polynomial_layers
from sklearn.datasets import load_digits

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=20)
options = parser.parse_args()
torch.manual_seed(options.seed)
random.seed(options.seed)

images, labels = load_digits(return_X_y=True)
x, y = torch.tensor(images / 8 - 1, dtype=torch.float32), torch.tensor(labels)
order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
train, test = order[:1400], order[1400:]

network = HighOrderMLP(
    layer_type="continuous",
    n=3,
    in_width=64,
    out_width=10,
    hidden_layers=1,
    hidden_width=64,
    in_segments=4,
    hidden_segments=4,
    out_segments=4,
    normalization=MaxAbsNormalization,
)
initialize_network_polynomial_layers(
    network, max_slope=0.5, max_offset=0.0
)  # constants have no slope to learn by
optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
losses, start = [], time.perf_counter()
for _ in range(options.epochs):
    for batch in train[torch.randperm(len(train))].split(64):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
seconds = time.perf_counter() - start
with torch.no_grad():
    accuracy = (network(x[test]).argmax(1) == y[test]).double().mean().item()
print(json.dumps({"losses": losses[:50], "accuracy": accuracy, "seconds": seconds, "steps": len(losses)}))
