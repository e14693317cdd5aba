"""DDP and FSDP2 on two gloo processes: the same gradients and weights as one process."""

import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

import high_order_fused as hof
from high_order_fused.kan import KANLinear

ROWS = 16


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        hof.HighOrderLinear(4, 6, hof.bases.piecewise_lagrange(3, 4)),
        KANLinear(6, 4, grid_size=3),
        hof.layers.high_order_fc_layers("discontinuous", n=2, in_features=4, out_features=2, segments=3),
    )


def batch():
    torch.manual_seed(1)
    return torch.rand(ROWS, 4) * 2 - 1, torch.randn(ROWS, 2)


def train(model, x, y):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # Adam would blow rounding up to whole steps
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()


def work(rank, port, sharded, file):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    model = network()
    x, y = (t.chunk(2)[rank] for t in batch())
    if sharded:
        from torch.distributed.fsdp import fully_shard

        mesh = dist.init_device_mesh("cpu", (2,))
        for layer in model:
            fully_shard(layer, mesh=mesh)
        train(fully_shard(model, mesh=mesh), x, y)
        state = {
            name: t.full_tensor() if hasattr(t, "full_tensor") else t
            for name, t in model.state_dict().items()
        }
    else:
        train(nn.parallel.DistributedDataParallel(model), x, y)
        state = model.state_dict()
    if rank == 0:
        torch.save(state, file)
    dist.barrier()
    dist.destroy_process_group()
    # The model keeps its group, and a thread of gloo's that lets go of a tensor while Python ends
    # aborts the process (pytorch#179291).
    os._exit(0)


@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp2"])
def test_two_processes_train_as_one(sharded, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(work, (port, sharded, tmp_path / "state.pt"), nprocs=2, start_method="spawn")
    state, alone = torch.load(tmp_path / "state.pt", weights_only=True), network()
    train(alone, *batch())
    for name, expected in alone.state_dict().items():
        torch.testing.assert_close(
            state[name], expected, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}"
        )
