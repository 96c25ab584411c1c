"""One inner model whose weights are divided among processes: which engines are right, and what fails.

    torchrun --nproc-per-node 2 benchmarks/sharded.py

Compares every meta-gradient with that of one process, in float64, and prints the largest difference or the error.
``sharded weights``: each weight is a ``DTensor`` divided by its rows (as FSDP2 stores weights), gathered
where it is used.
``tensor parallel``: ``parallelize_module``, the first layer by columns and the second by rows. ``FSDP2``:
``fully_shard``. All on CPU with gloo.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.experimental import implicit_replication
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from rbml import Batch, Episodes, Learner
from rbml.hypergrad import Adjoint, FirstOrder, Hypergradient, Unrolled
from rbml.learner import Execution
from rbml.strategy import sgd

ENGINES: dict[str, Hypergradient] = {
    "Unrolled": Unrolled(),
    "Adjoint": Adjoint(),
    "Adjoint, reverse": Adjoint(hvp="reverse"),
    "FirstOrder": FirstOrder(),
}


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    torch.manual_seed(1)
    tasks = Episodes(*(Batch(torch.randn(2, 6, 8), torch.randn(2, 6, 4)) for _ in range(2)))
    for form, divide in FORMS.items():
        for name, engine in ENGINES.items():
            truth = learner(engine).meta_gradient(tasks).grads
            try:
                divided = learner(engine)
                divide(divided.model, mesh)
                with implicit_replication():
                    found = divided.meta_gradient(tasks).grads
                error = max(float((whole(found[one]) - truth[one]).abs().max()) for one in truth)
                said = f"largest difference {error:.1e}"
            except Exception as error:
                said = f"fails: {type(error).__name__}: {str(error).splitlines()[0][:100]}"
            if dist.get_rank() == 0:
                print(f"{form:16} {name:17} {said}", flush=True)
    dist.barrier()
    dist.destroy_process_group()


def learner(engine: Hypergradient) -> Learner:
    """Return a learner of three steps; verification needs a model in one piece."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    run = Execution(verify=False)
    return Learner(model, sgd(0.1), steps=3, loss=nn.functional.mse_loss, hypergradient=engine, execution=run)


def sharded(model: nn.Module, mesh: DeviceMesh) -> None:
    for part in model.modules():
        for name, leaf in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(distribute_tensor(leaf.data, mesh, [Shard(0)])))


def tensor_parallel(model: nn.Module, mesh: DeviceMesh) -> None:
    parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def fsdp(model: nn.Module, mesh: DeviceMesh) -> None:
    for layer in (model.get_submodule("0"), model.get_submodule("2"), model):
        fully_shard(layer, mesh=mesh)


FORMS: dict[str, Callable[[nn.Module, DeviceMesh], None]] = {
    "sharded weights": sharded,
    "tensor parallel": tensor_parallel,
    "FSDP2": fsdp,
}


def whole(leaf: Tensor) -> Tensor:
    """Return a tensor in one piece."""
    found: Tensor = leaf.full_tensor() if isinstance(leaf, DTensor) else leaf
    return found


if __name__ == "__main__":
    main()
