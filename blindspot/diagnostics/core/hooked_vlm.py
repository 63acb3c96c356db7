"""A model under diagnosis: asked about stimuli, read at every site, changed where a diagnostic says so."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from tokenizers.models import WordLevel
from torch import Tensor, nn

from blindspot.diagnostics.core.encoder_places import changed
from blindspot.diagnostics.core.hooks import NOTHING, Changes, Edit, Part, Site, added_scores, on_state, placed
from blindspot.diagnostics.core.patch_grid import Grid, Order, in_raster_order, raster_order
from blindspot.diagnostics.core.roles import Roles, find_roles
from blindspot.diagnostics.core.stimuli import Speech, Stimulus, directions
from blindspot.errors import UserError
from blindspot.evaluation.adapters import Adapter
from blindspot.evaluation.base import PICTURE, Prompt
from blindspot.model.encoding import ends_apart
from blindspot.model.variant import BlindspotForConditionalGeneration
from blindspot.scenes.world import CANVAS

MOST_SITES = 9


@dataclass
class Prepared:
    """Stimuli as the model's input. Padding is on the left, so the last token is the last of every row.

    Attributes:
        stimuli: what it is made from.
        inputs: what the model takes.
        image_bt: whether a token is one of the picture's, shape (batch, tokens).
        choice_ids_bk: first token of every choice, shape (batch, choices).
        mentions: by role the last token of the words that name it, shape (batch,).
    """

    stimuli: list[Stimulus]
    inputs: dict[str, Tensor]
    image_bt: Tensor
    choice_ids_bk: Tensor
    mentions: dict[str, Tensor]

    @property
    def behind_bt(self) -> Tensor:
        """Whether a token stands behind the picture, shape (batch, tokens)."""
        index_t = torch.arange(self.image_bt.shape[1], device=self.image_bt.device)
        return index_t > (self.image_bt * index_t).amax(dim=1, keepdim=True)


@dataclass
class Trace:
    """What a run showed.

    Attributes:
        logits_bk: of the choices at the last token, shape (batch, choices).
        states: by site, shape (batch, tokens, width). Of the encoder: patches in raster order, without CLS and
            registers; of the language model: all tokens.
        sure_b: probability of the likeliest token of all, shape (batch,).
    """

    logits_bk: Tensor
    states: dict[Site, Tensor]
    sure_b: Tensor

    @property
    def choices_b(self) -> Tensor:
        """Index of the choice that the model prefers."""
        return self.logits_bk.argmax(dim=1)


class _Seen(Exception):
    """What was wanted has been seen."""


def _stop(_: Tensor) -> Tensor:
    raise _Seen


class HookedVLM:
    """A model and its processor, with the roles of its modules.

    Args:
        model: a variant, or an image-text model of transformers.
        processor: its own.
        family: how it is asked.

    Raises:
        UserError: if the parts of the model cannot be told apart.
    """

    def __init__(self, model: Any, processor: Any, family: Adapter) -> None:
        self.model = model.eval()
        self.processor, self.family = processor, family
        self.tokenizer = processor.tokenizer
        closed = isinstance(getattr(self.tokenizer.backend_tokenizer, "model", None), WordLevel)
        self.speech: Speech = "words" if closed else "english"
        self.roles: Roles = find_roles(model, self.prepare(directions(1, 0, self.speech)).inputs)
        known = signature(model.forward).parameters  # logits of all tokens may take more memory than all else
        self._last_logits = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        attention = getattr(model.config, "_attn_implementation", None)
        if attention not in (None, "eager"):
            model.set_attn_implementation({"text_config": "eager"})

    @cached_property
    def side(self) -> int:
        """Pixels of a picture's side: the encoder's own size, rounded to whole pixels of the drawn world."""
        size = getattr(self.model.config.vision_config, "image_size", None)
        size = max(size) if isinstance(size, list | tuple) else size
        return max(CANVAS, round((size or 336) / CANVAS) * CANVAS)

    @property
    def tower(self) -> nn.Module:
        """The image encoder: the largest module that holds its blocks and none of the language model's."""
        holders = [
            module
            for module in self.model.modules()
            if self.roles.tower_blocks[0] in (held := list(module.modules())) and self.roles.layers[0] not in held
        ]
        return max(holders, key=lambda module: sum(parameter.numel() for parameter in module.parameters()))

    def sites(self, part: Part) -> list[Site]:
        """All sites of a part, in the order of the pipeline."""
        return [Site(part, layer) for layer in range(len(self._blocks(part)) + 1)]

    def some_sites(self, part: Part) -> list[Site]:
        """Sites of a part, first and last among them; `MOST_SITES` evenly spaced ones if there are more."""
        sites = self.sites(part)
        chosen = np.linspace(0, len(sites) - 1, min(len(sites), MOST_SITES)).round().astype(int)
        return [sites[index] for index in chosen]

    @cached_property
    def patches(self) -> Order:
        """Which of the tower's tokens are its patches.

        Raises:
            UserError: if tokens cannot be matched to places.
        """
        return raster_order(lambda pictures: self._tokens(pictures, Site("encoder", 0)), self.side)

    @cached_property
    def encoder_grid(self) -> Grid | None:
        """The grid of the encoder's patches; None if its tokens stand for no places, as where a picture is cut up."""
        try:
            return self.patches.grid
        except UserError:
            return None

    @cached_property
    def image_grid(self) -> Grid | None:
        """The grid of the picture's tokens in the language model, if they stand for places in raster order.

        A variant knows it; of other models it is measured.
        """
        if isinstance(self.model, BlindspotForConditionalGeneration):
            return self.encoder_grid and self.model.model.parts.output_grid(self.encoder_grid)
        return in_raster_order(lambda pictures: self._tokens(pictures, Site("language", 0)), self.side)

    def prepare(self, stimuli: Sequence[Stimulus], pictures: Sequence[Any] | None = None) -> Prepared:
        """Stimuli as input.

        Args:
            stimuli: with equally many choices each.
            pictures: instead of their own, as (side, side, 3) uint8 arrays.

        Raises:
            UserError: if the model's tokenizer does not tell the choices apart, or splits a mention beyond finding.
        """
        shown = [stimulus.image(self.side) for stimulus in stimuli] if pictures is None else pictures
        prompts = [Prompt((PICTURE, stimulus.prompt)) for stimulus in stimuli]
        texts = [self.family.render(self.processor, prompt) for prompt in prompts]
        inputs = self.family.inputs(self.processor, texts, [[Image.fromarray(picture)] for picture in shown])
        device = next(self.model.parameters()).device
        inputs = {name: value.to(device) for name, value in inputs.items() if isinstance(value, Tensor)}
        dtype = next(self.model.parameters()).dtype
        inputs = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
        ids_bt = inputs["input_ids"]
        image_bt = ids_bt == self._image_token
        if not image_bt.any(dim=1).all():
            raise UserError("the picture takes no token in the language model; this model cannot be diagnosed")
        roles = stimuli[0].mentions if stimuli else {}
        mentions = {
            role: torch.tensor(
                [self._find(row, stimulus.mentions[role]) for row, stimulus in zip(ids_bt, stimuli, strict=True)]
            )
            for role in roles
        }
        return Prepared(list(stimuli), inputs, image_bt, self._choices(stimuli, texts).to(device), mentions)

    @torch.no_grad()
    def run(self, prepared: Prepared, read: Iterable[Site] = (), changes: Changes = NOTHING) -> Trace:
        """Ask the stimuli.

        Args:
            prepared: the input.
            read: sites whose states are wanted.
            changes: what is to be different.
        """
        states: dict[Site, Tensor] = {}
        with ExitStack() as stack:
            for edit in changes.edits:
                stack.enter_context(self._edited(edit))
            if changes.language_places is not None:
                stack.enter_context(placed(self.roles.rotary, changes.language_places))
            if changes.encoder_places is not None:
                stack.enter_context(self._encoder_placed(changes.encoder_places))
            for layer, scores in changes.scores.items():
                stack.enter_context(added_scores(self.roles.layers[layer], scores))
            for site in read:
                stack.enter_context(self._read(site, states, raw=False))
            output = self.model(**prepared.inputs, use_cache=False, **self._last_logits)
        logits_bv = output.logits[:, -1].float()
        return Trace(logits_bv.gather(1, prepared.choice_ids_bk), states, logits_bv.softmax(dim=-1).amax(dim=-1))

    @torch.no_grad()
    def state(self, prepared: Prepared, site: Site, raw: bool = False) -> Tensor:
        """States at one site, as in a `Trace`; the model runs no further than there.

        Args:
            prepared: the input.
            site: where.
            raw: all tokens of the encoder, as they come, instead of its patches in raster order.
        """
        states: dict[Site, Tensor] = {}
        with suppress(_Seen), self._read(site, states, raw), on_state(*self._hooked(site), _stop):
            self.model(**prepared.inputs, use_cache=False)
        return states[site]

    def batches(
        self, stimuli: Sequence[Stimulus], size: int, pictures: Sequence[Any] | None = None
    ) -> Iterator[Prepared]:
        """Stimuli in their order, prepared ``size`` at a time; arguments as of `prepare`."""
        for start in range(0, len(stimuli), size):
            part = slice(start, start + size)
            yield self.prepare(stimuli[part], None if pictures is None else pictures[part])

    def choices(
        self, stimuli: Sequence[Stimulus], size: int, change: Callable[[Prepared], Changes] = lambda _: NOTHING
    ) -> np.ndarray:
        """Index of the choice that the model prefers of every stimulus, shape (stimuli,), asked ``size`` at a time."""
        runs = [self.run(prepared, changes=change(prepared)).choices_b for prepared in self.batches(stimuli, size)]
        return torch.cat(runs).cpu().numpy()

    @property
    def _image_token(self) -> int:
        config = self.model.config
        for name in ("image_token_id", "image_token_index"):
            if isinstance(getattr(config, name, None), int):
                return getattr(config, name)
        raise UserError(f"{type(self.model).__name__} says no image_token_id in its config")

    def _choices(self, stimuli: Sequence[Stimulus], texts: Sequence[str]) -> Tensor:
        """First token of each choice as it would follow the prompt."""
        rows = []
        for stimulus, text in zip(stimuli, texts, strict=True):
            firsts = [self._first_token(text, choice) for choice in stimulus.choices]
            if len(set(firsts)) < len(firsts):
                raise UserError(f"this tokenizer begins several of {', '.join(stimulus.choices)} with one token")
            rows.append(firsts)
        return torch.tensor(rows)

    def _first_token(self, text: str, word: str) -> int:
        """The token that begins ``word`` behind a prompt, with a space between them if the prompt ends in a word.

        A lone space that a tokenizer puts first is skipped.
        """
        before, said = ("\n", word) if ends_apart(self.tokenizer, text) else ("", f" {word}")
        start, whole = (self.tokenizer.encode(part, add_special_tokens=False) for part in (before, before + said))
        ids = whole[len(start) :]
        return next((i for i in ids if self.tokenizer.decode([i]).strip()), ids[-1])

    def _find(self, row_t: Tensor, words: str) -> int:
        """Index of the last token of the first place where ``words`` stand behind the picture."""
        ids = row_t.tolist()
        start = len(ids) - ids[::-1].index(self._image_token) if self._image_token in ids else 0
        for text in (f" {words}", words):
            wanted = self.tokenizer.encode(text, add_special_tokens=False)
            for at in range(start, len(ids) - len(wanted) + 1):
                if ids[at : at + len(wanted)] == wanted:
                    return at + len(wanted) - 1
        raise UserError(f"cannot find the tokens of {words!r} in the prompt")

    def _tokens(self, pictures: Sequence[Any], site: Site) -> Tensor:
        """States of pictures at a site, every token that stands for a part of a picture, in the model's own order."""
        prepared = self.prepare(directions(1, 0, self.speech) * len(pictures), pictures)
        tokens_btd = self.state(prepared, site, raw=True)
        if site.part == "language":
            return tokens_btd[prepared.image_bt].view(len(pictures), -1, tokens_btd.shape[-1])
        return tokens_btd.reshape(len(pictures), -1, tokens_btd.shape[-1])

    def _hooked(self, site: Site) -> tuple[nn.Module, bool]:
        """The module whose input (or, behind the last block, output) is the site's state."""
        blocks = self._blocks(site.part)
        return (blocks[site.layer], True) if site.layer < len(blocks) else (blocks[-1], False)

    def _blocks(self, part: Part) -> tuple[nn.Module, ...]:
        return self.roles.tower_blocks if part == "encoder" else self.roles.layers

    @contextmanager
    def _read(self, site: Site, states: dict[Site, Tensor], raw: bool) -> Iterator[None]:
        order = None if raw or site.part == "language" else self.patches

        def keep(tokens: Tensor) -> Tensor:
            held = tokens.detach()
            if order is not None:
                held = held.reshape(-1, order.tokens, held.shape[-1])[:, order.patches]
            states[site] = held
            return tokens

        with on_state(*self._hooked(site), keep):
            yield

    @contextmanager
    def _edited(self, edit: Edit) -> Iterator[None]:
        order = self.patches if edit.site.part == "encoder" else None

        def change(tokens: Tensor) -> Tensor:
            if order is None:
                return edit.change(tokens)
            rows_bnd = tokens.reshape(-1, order.tokens, tokens.shape[-1]).clone()
            rows_bnd[:, order.patches] = edit.change(rows_bnd[:, order.patches])
            return rows_bnd.reshape(tokens.shape)

        with on_state(*self._hooked(edit.site), change):
            yield

    @contextmanager
    def _encoder_placed(self, places: Tensor | Literal["zero"]) -> Iterator[None]:
        patches = self.patches.patches
        with changed(self.model, len(patches), int(patches.min()), places):
            yield
