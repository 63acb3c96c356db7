"""Changing where an image encoder believes its patches to be, and nothing else."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from blindspot.errors import UserError
from blindspot.positions.encoder.attach import computes, table_of
from blindspot.positions.encoder.rotary import Rotation, Tables

Places = Tensor | Literal["zero"]


@contextmanager
def changed(model: nn.Module, patches: int, prefix: int, places: Places) -> Iterator[None]:
    """Give every patch the position of another one, or none, while the block lasts.

    Both sources of positions change together: a learned table, and rotation of queries and keys by Blindspot's schemes.

    Args:
        model: with one image encoder.
        patches: of a picture.
        prefix: tokens before them.
        places: whose position each patch has, shape (patches,), or ``zero``.

    Raises:
        UserError: if the encoder has its positions elsewhere, or its table is for another number of patches.
    """
    table = table_of(model)
    rotations = [module for module in model.modules() if isinstance(module, Rotation)]
    if computes(model) or (table is None and not rotations):
        raise UserError("this image encoder computes its positions in a way that cannot be changed from outside")
    if table is not None and table.shape[-2] not in (patches, patches + prefix):
        raise UserError(f"the position table has {table.shape[-2]} rows, and a picture has {patches} patches")
    with ExitStack() as stack:
        if table is not None:
            stack.enter_context(_table(table, patches, places))
        for rotation in rotations:
            stack.enter_context(_rotation(rotation, patches, prefix, places))
        yield


@contextmanager
def _table(table: nn.Parameter, patches: int, places: Places) -> Iterator[None]:
    with torch.no_grad():
        kept = table.clone()
        rows_nd = table.view(-1, table.shape[-1])[-patches:]
        rows_nd.copy_(torch.zeros_like(rows_nd) if isinstance(places, str) else rows_nd[places.to(rows_nd.device)])
    try:
        yield
    finally:
        with torch.no_grad():
            table.copy_(kept)


@contextmanager
def _rotation(rotation: Rotation, patches: int, prefix: int, places: Places) -> Iterator[None]:
    ordinary: Callable[..., Tables] = rotation.tables

    def tables(query_bhnd: Tensor, masked: bool) -> Tables:
        made = ordinary(query_bhnd, masked)
        if isinstance(places, str):
            return made._replace(cos=torch.ones_like(made.cos), sin=torch.zeros_like(made.sin))
        order = torch.cat([torch.arange(prefix), places.cpu() + prefix]).to(made.cos.device)
        rest = torch.arange(prefix + patches, made.cos.shape[-2], device=order.device)
        order = torch.cat([order, rest])
        return made._replace(cos=made.cos[..., order, :], sin=made.sin[..., order, :])

    holder: Any = rotation
    holder.tables = tables
    try:
        yield
    finally:
        del holder.tables
