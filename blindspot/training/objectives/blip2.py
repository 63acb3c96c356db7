"""BLIP-2's first stage (Li et al. 2023, section 3.1): a Q-Former learns from captions what to ask of a frozen encoder.

Queries and words go through one transformer: self-attention is shared, feed-forward layers are apart, and queries alone
look at the picture. Three losses of three masks are summed:

* contrastive: queries and words do not see each other; a picture is as like a caption as its likest query is.
* matching: all see all; does the caption belong to the picture? Wrong ones are drawn by their likeness.
* generation: words see queries and the words before them, queries see no word; the caption is written.
"""

import copy
from math import log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blindspot.training.objectives.base import CaptionShape, caption_loss, causal_mask, full_precision

TEMPERATURE = 0.07


class QFormerObjective(nn.Module):
    """The losses of a Q-Former connector, and what they need beside it.

    Args:
        connector: a `connectors.queries.QFormer`, whose queries and transformer alone outlive the objective.
        captions: what the caption tensors look like.
    """

    def __init__(self, connector: Any, captions: CaptionShape) -> None:
        super().__init__()
        self.qformer, self.queries, self.captions = connector.qformer, connector.queries, captions
        own = connector.qformer
        config = copy.deepcopy(own.config)
        config.use_qformer_text_input = True
        self.joint = type(own)(config)  # feed-forward layers of words; all else is the connector's
        self.joint.layernorm = own.layernorm
        for layer, shared in zip(self.joint.encoder.layer, own.encoder.layer, strict=True):
            for name, module in shared.named_children():
                setattr(layer, name, module)
        width = config.hidden_size
        self.words = nn.Embedding(captions.vocab_size + 2, width)  # and what begins a text to compare, or to write
        self.places = nn.Embedding(captions.length + 1, width)
        for table in (self.words, self.places):
            nn.init.normal_(table.weight, std=0.02)
        self.of_picture, self.of_text, self.match = (
            nn.Linear(width, width),
            nn.Linear(width, width),
            nn.Linear(width, 2),
        )
        self.log_temperature = nn.Parameter(torch.tensor(log(TEMPERATURE)))

    def forward(self, patches_bnd: Tensor, captions_bl: Tensor) -> dict[str, Tensor]:
        """The sum of the losses as ``loss``, and each, detached.

        Args:
            patches_bnd: features of the frozen encoder.
            captions_bl: int64 ids, ended and padded.
        """
        alike_bb = self.likeness(patches_bnd, captions_bl)
        own_b = torch.arange(len(alike_bb), device=alike_bb.device)
        with full_precision(alike_bb):
            contrast = (F.cross_entropy(alike_bb, own_b) + F.cross_entropy(alike_bb.T, own_b)) / 2
        matching = self._matching(patches_bnd, captions_bl, alike_bb.detach())
        logits_blv = self.written(patches_bnd, captions_bl)
        writing = caption_loss(logits_blv, captions_bl, self.captions.pad_id)
        parts = {"contrast": contrast, "matching": matching, "writing": writing}
        return {"loss": contrast + matching + writing, **{name: part.detach() for name, part in parts.items()}}

    def likeness(self, patches_bnd: Tensor, captions_bl: Tensor) -> Tensor:
        """Logits of every picture with every caption, (pictures, captions): the cosine of the likest query."""
        queries_bqd = self._queries(patches_bnd)
        seen_bqd = self.qformer(query_embeds=queries_bqd, encoder_hidden_states=patches_bnd).last_hidden_state
        texts_bld = self._embedded(captions_bl, begin=0)
        ended_b1k = self._shown(captions_bl)
        said_bld = self.joint(
            query_embeds=texts_bld, query_length=0, attention_mask=_added(ended_b1k.expand(-1, texts_bld.shape[1], -1))
        ).last_hidden_state
        with full_precision(seen_bqd):
            seen_bqd = F.normalize(self.of_picture(seen_bqd.float()), dim=-1)
            said_bd = F.normalize(self.of_text(said_bld[:, 0].float()), dim=-1)
            return torch.einsum("pqd,cd->pcq", seen_bqd, said_bd).amax(-1) / self.log_temperature.exp()

    def written(self, patches_bnd: Tensor, captions_bl: Tensor) -> Tensor:
        """Logits of every word of the captions, from those before it and the picture, (batch, length, vocabulary)."""
        texts_bld, queries = self._embedded(captions_bl[:, :-1], begin=1), self.queries.num_embeddings
        length = texts_bld.shape[1]
        seen_tt = torch.zeros(queries + length, queries + length, dtype=torch.bool, device=texts_bld.device)
        seen_tt[:, :queries] = True
        seen_tt[queries:, queries:] = causal_mask(length, texts_bld) == 0
        states_btd = self._together(patches_bnd, texts_bld, seen_tt.expand(len(texts_bld), -1, -1))
        return states_btd[:, queries:] @ self.words.weight[: self.captions.vocab_size].T

    def _matching(self, patches_bnd: Tensor, captions_bl: Tensor, alike_bb: Tensor) -> Tensor:
        """Cross-entropy over true pairs, pictures with a wrong caption and captions with a wrong picture."""
        apart_bb = alike_bb.float().masked_fill(
            torch.eye(len(alike_bb), dtype=torch.bool, device=alike_bb.device), -1e4
        )
        caption_b, picture_b = (torch.multinomial(one.softmax(1), 1)[:, 0] for one in (apart_bb, apart_bb.T))
        pictures_bnd = torch.cat([patches_bnd, patches_bnd, patches_bnd[picture_b]])
        texts_bl = torch.cat([captions_bl, captions_bl[caption_b], captions_bl])
        texts_bld, queries = self._embedded(texts_bl, begin=0), self.queries.num_embeddings
        seen_b1k = F.pad(self._shown(texts_bl), (queries, 0), value=True)
        seen_btt = seen_b1k.expand(-1, queries + texts_bld.shape[1], -1)
        logits_b2 = self.match(self._together(pictures_bnd, texts_bld, seen_btt)[:, :queries]).mean(1)
        true_b = torch.arange(len(texts_bl), device=texts_bl.device) < len(captions_bl)
        with full_precision(logits_b2):
            return F.cross_entropy(logits_b2.float(), true_b.long())

    def _queries(self, patches_bnd: Tensor) -> Tensor:
        return self.queries.weight.expand(len(patches_bnd), -1, -1)

    def _embedded(self, ids_bl: Tensor, begin: int) -> Tensor:
        """Words with their places, behind what begins the text."""
        ids_bl = F.pad(ids_bl, (1, 0), value=self.captions.vocab_size + begin)
        return self.words(ids_bl) + self.places.weight[: ids_bl.shape[1]]

    def _shown(self, captions_bl: Tensor) -> Tensor:
        """Where a text and what begins it are no padding, (batch, 1, 1 + length)."""
        return F.pad(captions_bl != self.captions.pad_id, (1, 0), value=True)[:, None]

    def _together(self, patches_bnd: Tensor, texts_bld: Tensor, seen_btt: Tensor) -> Tensor:
        """States of queries, then words, where each token sees what ``seen_btt`` says."""
        both_btd = torch.cat([self._queries(patches_bnd), texts_bld], dim=1)
        queries = both_btd.shape[1] - texts_bld.shape[1]
        return self.joint(
            query_embeds=both_btd,
            query_length=queries,
            attention_mask=_added(seen_btt),
            encoder_hidden_states=patches_bnd,
        ).last_hidden_state


def _added(seen_bqk: Tensor) -> Tensor:
    """What is seen as a mask that is added to scores, (batch, 1, queries, keys)."""
    return torch.zeros(seen_bqk.shape, device=seen_bqk.device).masked_fill(~seen_bqk, -1e4)[:, None]
