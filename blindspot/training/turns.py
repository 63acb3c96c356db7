"""A Llama decoder on rows of turns without computing in vain, for training where every operation counts: on a CPU.

The numbers are those of the model's own forward pass with `seen_keys` as its mask, up to rounding. What is left out:
padding; scores of a query with keys that it does not see, since a token sees the prefix of its row and its own turn
alone; and in the last layer all but the tokens whose logits a loss reads. Operations that the eager model does one by
one (a turn by its angle, a norm) are one with their own gradient.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F
from transformers import LlamaModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from blindspot.positions.language.rotation import MultiAxisRotary
from blindspot.training.packing import PREFIX, Micro


@dataclass(frozen=True)
class Queries:
    """Queries of pieces, each piece filled up to the same number of them."""

    query_cq: Tensor  # their places among all queries; of what fills up, 0
    real_cq: Tensor  # 1, or 0 of what fills up
    score_cqk: Tensor  # 0 where a query sees a key of its piece, else minus infinity
    place_m: Tensor  # of each query its place in the flattened pieces


@dataclass(frozen=True)
class TurnLayout:
    """The n real tokens of a padded batch, cut into pieces: as many whole turns (or a prefix) as are no longer together
    than the longest of them. The keys of a piece are the prefix of its row and the piece itself.
    """

    token_n: Tensor  # the tokens' places in the flattened batch
    read_m: Tensor  # those among them whose logits are read
    key_ck: Tensor  # of each piece its keys: first the prefix, then its own
    row_c: Tensor  # of each piece its row
    prefix_rk: Tensor  # of each row the tokens of its prefix
    all: Queries
    read: Queries

    @classmethod
    def of(cls, micro: Micro) -> "TurnLayout":
        """Of a batch of rows with turns, each behind a prefix."""
        assert micro.turn_bl is not None
        width = micro.ids_bl.shape[1]
        token_n = np.flatnonzero(np.arange(width) < np.array(micro.lengths)[:, None])
        row_n, turn_n = token_n // width, micro.turn_bl.flatten().numpy()[token_n]
        first_u = np.flatnonzero((np.diff(row_n, prepend=-1) != 0) | (np.diff(turn_n, prepend=0) != 0))
        unit_n, length_u = _runs(np.diff(first_u, append=len(token_n)))[0], np.diff(first_u, append=len(token_n))
        prefix_r = first_u[turn_n[first_u] == PREFIX]
        length_r = length_u[turn_n[first_u] == PREFIX]
        longest, prefix_k = int(length_u.max()), np.arange(length_r.max())

        first_c = _pieces(first_u.tolist(), length_u.tolist(), row_n[first_u].tolist(), longest)
        piece_n, within_n = _runs(np.diff(first_c, append=len(token_n)))
        row_c, last = row_n[first_c], len(token_n) - 1
        prefix_rk = (prefix_r[:, None] + prefix_k).clip(max=last)
        own_ck = (first_c[:, None] + np.arange(longest)).clip(max=last)
        key_ck = np.concatenate([prefix_rk[row_c], own_ck], axis=1)
        seen_nk = np.concatenate(
            [
                (turn_n != PREFIX)[:, None] & (prefix_k < length_r[row_n][:, None]),
                (unit_n[own_ck[piece_n]] == unit_n[:, None]) & (np.arange(longest) <= within_n[:, None]),
            ],
            axis=1,
        )
        every_n, read_m = np.arange(len(token_n)), np.searchsorted(token_n, micro.predictor_n.numpy())
        every, read = (_queries(wanted, piece_n, seen_nk, len(first_c)) for wanted in (every_n, read_m))
        places = map(torch.from_numpy, (token_n, read_m, key_ck, row_c, prefix_rk))
        return cls(*places, all=every, read=read)  # pyright: ignore[reportArgumentType]


def _pieces(first_u: list[int], length_u: list[int], row_u: list[int], longest: int) -> np.ndarray:
    """Where pieces begin that hold whole units of one row, one after the other while they fit."""
    begins, row = [], -1
    for first, length, own in zip(first_u, length_u, row_u, strict=True):
        if own != row or first + length > begins[-1] + longest:
            begins.append(first)
            row = own
    return np.array(begins)


def _queries(wanted_m: np.ndarray, piece_n: np.ndarray, seen_nk: np.ndarray, pieces: int) -> Queries:
    """The ``wanted`` tokens, in ascending order, as queries."""
    count_c = np.bincount(piece_n[wanted_m], minlength=pieces)
    at_m, shape = _runs(count_c), (pieces, count_c.max())
    query_cq, real_cq = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    query_cq[at_m], real_cq[at_m] = np.arange(len(wanted_m)), 1
    score_cqk = np.zeros((*shape, seen_nk.shape[1]), np.float32)
    score_cqk[at_m] = np.where(seen_nk[wanted_m], np.float32(0), np.float32(-np.inf))
    return Queries(*map(torch.from_numpy, (query_cq, real_cq, score_cqk, np.ravel_multi_index(at_m, shape))))


def _runs(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the members of runs that are so long: the number of the run, and the member's within it."""
    run_n = np.repeat(np.arange(len(lengths)), lengths)
    return run_n, np.arange(len(run_n)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def takes(language_model: Any) -> bool:
    """Whether a decoder can be computed so: Llama's own layers, heads alike, nothing hooked in between."""
    if type(language_model) is not LlamaModel:
        return False
    rotary = language_model.rotary_emb
    plain = not (isinstance(rotary, MultiAxisRotary) and (rotary.scheme.per_head or rotary.scheme.rings))
    hooked = any(layer._forward_pre_hooks for layer in language_model.layers)
    config = language_model.config
    plain &= config.num_key_value_heads == config.num_attention_heads and config.hidden_act == "silu"
    plain &= not (config.attention_bias or config.mlp_bias or config.attention_dropout)
    return plain and not hooked


@contextmanager
def computing(language_model: Any, micro: Micro) -> Iterator[None]:
    """Within it the decoder's forward pass gives the states of ``micro.predictor_n`` alone, shape (1, n, d)."""
    layout = TurnLayout.of(micro)

    def forward(
        input_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **ignored: Any,
    ) -> BaseModelOutputWithPast:
        embeds_bld = language_model.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        tables = language_model.rotary_emb(embeds_bld, position_ids)
        cos_np, sin_np = (table.flatten(0, 1)[layout.token_n].chunk(2, dim=-1)[0].contiguous() for table in tables)
        hidden_nd = embeds_bld.flatten(0, 1).index_select(0, layout.token_n)
        *layers, last = language_model.layers
        for layer in layers:
            hidden_nd = _layer(layer, hidden_nd, cos_np, sin_np, layout)
        hidden_md = _layer(last, hidden_nd, cos_np, sin_np, layout, layout.read_m)
        return BaseModelOutputWithPast(last_hidden_state=_norm(language_model.norm, hidden_md)[None])

    language_model.forward = forward
    try:
        yield
    finally:
        del language_model.forward


def _layer(
    layer: Any, hidden_nd: Tensor, cos_np: Tensor, sin_np: Tensor, layout: TurnLayout, read_m: Tensor | None = None
) -> Tensor:
    """States behind a layer, of all tokens or of those that are read."""
    attention, mlp = layer.self_attn, layer.mlp
    q_dd, k_dd, v_dd = (projection.weight for projection in (attention.q_proj, attention.k_proj, attention.v_proj))
    normed_nd = _norm(layer.input_layernorm, hidden_nd)
    if read_m is None:
        projected = F.linear(normed_nd, torch.cat([q_dd, k_dd, v_dd]))
        q_hmd, k_hnd, v_hnd = Heads.apply(projected, cos_np, sin_np, 3, 2, attention.head_dim)
    else:
        k_hnd, v_hnd = Heads.apply(
            F.linear(normed_nd, torch.cat([k_dd, v_dd])), cos_np, sin_np, 2, 1, attention.head_dim
        )
        few_md = F.linear(normed_nd.index_select(0, read_m), q_dd)
        (q_hmd,) = Heads.apply(few_md, cos_np[read_m], sin_np[read_m], 1, 1, attention.head_dim)
        hidden_nd = hidden_nd.index_select(0, read_m)
    queries = layout.all if read_m is None else layout.read
    attended_md = Attend.apply(q_hmd, k_hnd, v_hnd, layout, queries, attention.scaling)
    hidden_md = torch.addmm(hidden_nd, attended_md, attention.o_proj.weight.T)
    gates_mf = F.linear(
        _norm(layer.post_attention_layernorm, hidden_md), torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
    )
    return torch.addmm(hidden_md, SwiGlu.apply(gates_mf), mlp.down_proj.weight.T)


def _norm(norm: Any, hidden_nd: Tensor) -> Tensor:
    return RmsNorm.apply(hidden_nd, norm.weight, norm.variance_epsilon)


class RmsNorm(Function):
    """Llama's norm."""

    @staticmethod
    def forward(ctx: Any, x_nd: Tensor, weight_d: Tensor, epsilon: float) -> Tensor:
        scale_n1 = (
            torch.linalg.vector_norm(x_nd, dim=-1, keepdim=True).square_().div_(x_nd.shape[-1]).add_(epsilon).rsqrt_()
        )
        unit_nd = x_nd * scale_n1
        ctx.save_for_backward(unit_nd, scale_n1, weight_d)
        return unit_nd * weight_d

    @staticmethod
    def backward(ctx: Any, grad_nd: Tensor) -> Any:
        unit_nd, scale_n1, weight_d = ctx.saved_tensors
        product_nd = grad_nd * unit_nd
        mean_n1 = (product_nd @ weight_d)[:, None].div_(-len(weight_d))
        grad_x_nd = (grad_nd * weight_d).addcmul_(unit_nd, mean_n1).mul_(scale_n1)
        return grad_x_nd, product_nd.sum(dim=0), None


class Attend(Function):
    """Attention by pieces, of shape (m, heads * D) from queries (heads, m, D), keys and values (heads, n, D)."""

    @staticmethod
    def forward(
        ctx: Any, q_hmd: Tensor, k_hnd: Tensor, v_hnd: Tensor, layout: TurnLayout, queries: Queries, scale: float
    ) -> Tensor:
        def piecewise(x_hnd: Tensor, at_ck: Tensor) -> Tensor:
            return x_hnd.index_select(1, at_ck.flatten()).view(-1, at_ck.shape[1], x_hnd.shape[2])

        heads, (pieces, many) = len(q_hmd), queries.query_cq.shape
        q_gqd, k_gkd, v_gkd = (
            piecewise(x, at) for x, at in ((q_hmd, queries.query_cq), (k_hnd, layout.key_ck), (v_hnd, layout.key_ck))
        )
        bias_gqk = queries.score_cqk.expand(heads, -1, -1, -1).flatten(0, 1)
        weight_gqk = torch.baddbmm(bias_gqk, q_gqd, k_gkd.mT, alpha=scale).softmax(dim=-1)
        ctx.save_for_backward(q_gqd, k_gkd, v_gkd, weight_gqk)
        ctx.layout, ctx.queries, ctx.scale, ctx.tokens = layout, queries, scale, k_hnd.shape[1]
        out_hpd = (weight_gqk @ v_gkd).view(heads, pieces * many, -1)
        return out_hpd.index_select(1, queries.place_m).transpose(0, 1).flatten(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        q_gqd, k_gkd, v_gkd, weight_gqk = ctx.saved_tensors
        layout, queries = ctx.layout, ctx.queries
        pieces, many = queries.query_cq.shape
        heads = len(q_gqd) // pieces
        grad_cqhd = grads[0].index_select(0, queries.query_cq.flatten()).view(pieces, many, heads, -1)
        grad_gqd = (grad_cqhd * queries.real_cq[..., None, None]).permute(2, 0, 1, 3).flatten(0, 1)
        grad_score_gqk = torch.ops.aten._softmax_backward_data(grad_gqd @ v_gkd.mT, weight_gqk, -1, weight_gqk.dtype)
        grad_q_gqd = (grad_score_gqk @ k_gkd).mul_(ctx.scale)
        grad_q_hmd = grad_q_gqd.view(heads, pieces * many, -1).index_select(1, queries.place_m)
        grad_k_gkd, grad_v_gkd = (grad_score_gqk.mT @ q_gqd).mul_(ctx.scale), weight_gqk.mT @ grad_gqd
        return (
            grad_q_hmd,
            _to_tokens(grad_k_gkd, heads, layout),
            _to_tokens(grad_v_gkd, heads, layout),
            None,
            None,
            None,
        )


def _to_tokens(grad_gkd: Tensor, heads: int, layout: TurnLayout) -> Tensor:
    """Gradients of the keys of pieces as those of tokens: of each its own, and of a prefix those of all that see it."""
    rows, prefix = layout.prefix_rk.shape
    dim, pieces = grad_gkd.shape[2], len(layout.row_c)
    own_hpd = grad_gkd[:, prefix:].reshape(heads, -1, dim)
    grad_hnd = own_hpd.index_select(1, layout.all.place_m)
    seen_hckd = grad_gkd[:, :prefix].reshape(heads, pieces, prefix * dim)
    sums_hrkd = grad_gkd.new_zeros(heads, rows, prefix * dim).index_add_(1, layout.row_c, seen_hckd)
    return grad_hnd.index_add_(1, layout.prefix_rk.flatten(), sums_hrkd.view(heads, rows * prefix, dim))


class SwiGlu(Function):
    """silu(gate) * up of (n, 2 * f)."""

    @staticmethod
    def forward(ctx: Any, gates_ng: Tensor) -> Tensor:
        gate_nf, up_nf = gates_ng.chunk(2, dim=-1)
        sigmoid_nf = gate_nf.sigmoid()
        silu_nf = gate_nf * sigmoid_nf
        ctx.save_for_backward(up_nf, sigmoid_nf, silu_nf)
        return silu_nf * up_nf

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        up_nf, sigmoid_nf, silu_nf = ctx.saved_tensors
        out_ng = torch.empty(len(up_nf), 2 * up_nf.shape[1])
        grad_gate_nf, grad_up_nf = out_ng.chunk(2, dim=-1)
        torch.mul(grads[0], silu_nf, out=grad_up_nf)
        slope_nf = (1 - sigmoid_nf).mul_(silu_nf).add_(sigmoid_nf)
        torch.mul(slope_nf.mul_(up_nf), grads[0], out=grad_gate_nf)
        return out_ng


class Heads(Function):
    """Projections (n, parts * heads * D) as ``parts`` of shape (heads, n, D), of which the first ``turned`` are turned.

    Channel k is paired with k + D/2.
    """

    @staticmethod
    def forward(ctx: Any, x_nc: Tensor, cos_np: Tensor, sin_np: Tensor, parts: int, turned: int, dim: int) -> Any:
        ctx.save_for_backward(cos_np, sin_np)
        ctx.parts, ctx.turned = parts, turned
        x_phnd = x_nc.view(len(x_nc), parts, -1, dim).permute(1, 2, 0, 3)
        out_phnd = torch.empty(x_phnd.shape)
        _turn(x_phnd[:turned], out_phnd[:turned], cos_np, sin_np, 1)
        out_phnd[turned:] = x_phnd[turned:]
        return tuple(out_phnd.unbind())

    @staticmethod
    def backward(ctx: Any, *grads_hnd: Tensor) -> Any:
        cos_np, sin_np = ctx.saved_tensors
        heads, length, dim = grads_hnd[0].shape
        out_npc = torch.empty(length, ctx.parts, heads, dim)
        out_phnd = out_npc.permute(1, 2, 0, 3)
        for part, grad_hnd in enumerate(grads_hnd):
            if part < ctx.turned:
                _turn(grad_hnd, out_phnd[part], cos_np, sin_np, -1)
            else:
                out_phnd[part] = grad_hnd
        return out_npc.flatten(1), None, None, None, None, None


def _turn(x: Tensor, out: Tensor, cos: Tensor, sin: Tensor, sign: int) -> None:
    first, second = x.chunk(2, dim=-1)
    out_first, out_second = out.chunk(2, dim=-1)
    torch.mul(first, cos, out=out_first).addcmul_(second, sin, value=-sign)
    torch.mul(second, cos, out=out_second).addcmul_(first, sin, value=sign)
