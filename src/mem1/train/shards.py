"""A TENSOR AND ITS PARTS: FSDP2 cuts along the first axis, one part for each process.

DTensor -> local -> the part of this process, which may be empty
whole tensor, DTensor or Tensor to be like -> put | placed
"""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor, *, device: torch.device) -> Tensor:
    """All of a tensor; all processes ask for it at once. Args: `device`, of the processes, where
    parts that are kept on the CPU are gathered."""
    if not isinstance(tensor, DTensor):
        return tensor
    moved = tensor.to(device)
    assert isinstance(moved, DTensor)
    return moved.full_tensor()


def put(tensor: Tensor, *, into: Tensor) -> None:
    """Copy a whole tensor into one that may be cut."""
    with torch.no_grad():
        local(into).copy_(_part(tensor, like=into))


def placed(tensor: Tensor, *, like: Tensor) -> Tensor:
    """A copy of a whole tensor, cut as another of its shape is. One of another shape is left
    whole."""
    if not isinstance(like, DTensor) or tensor.shape != like.shape:
        return tensor.clone()
    found = torch.empty_like(like, dtype=tensor.dtype, requires_grad=False)
    put(tensor, into=found)
    return found


def _part(tensor: Tensor, *, like: Tensor) -> Tensor:
    if not isinstance(like, DTensor):
        return tensor
    mesh = like.device_mesh
    size = -(-len(tensor) // mesh.size())
    begin = mesh.get_local_rank() * size
    return tensor[begin : begin + size]
