"""A model under diagnosis: asked about stimuli, read at every site, changed where a diagnostic says so."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from blindspot.diagnostics.core import hooks
from blindspot.diagnostics.core.hooks import NOTHING, Change, Changes, Part, Site
from blindspot.diagnostics.core.parts import Grid, Layout, PatchOrder, cut_up, find_roles, in_raster_order, raster_order
from blindspot.diagnostics.core.stimuli import Speech, Stimulus, covered, directions
from blindspot.errors import UserError
from blindspot.evaluation.adapters import Adapter
from blindspot.evaluation.base import PICTURE, Prompt
from blindspot.model.encoding import ends_apart
from blindspot.model.load import in_known_words, known_words, knows_words_only
from blindspot.model.variant import BlindspotForConditionalGeneration
from blindspot.scenes.world import CANVAS, Scene

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

    def patch_groups(self, grid: Grid) -> dict[str, Tensor]:
        """Patches of the two objects that are asked about, and the others; each of shape (batch, patches)."""
        device = self.image_bt.device
        subject_bn = covered([stimulus.subject for stimulus in self.stimuli], grid).to(device)
        reference_bn = covered([stimulus.reference for stimulus in self.stimuli], grid).to(device)
        both_bn = subject_bn | reference_bn
        return {
            "subject's patches": subject_bn,
            "reference's patches": reference_bn,
            "both objects' patches": both_bn,
            "other patches": ~both_bn,
        }

    def token_groups(self, grid: Grid | None) -> dict[str, Tensor]:
        """Tokens of the language model in groups, each of shape (batch, tokens).

        ``all image`` includes what stands between the picture's tokens (marks of rows and tiles, which have seen them);
        ``picture 1`` and so on are one of several; ``words`` are all tokens between the pictures and the last token;
        the word of an object is the last token of its name. A grid of None, or several pictures, leave out what needs
        places.
        """
        image_bt, behind_bt = self.image_bt, self.behind_bt
        index_t = torch.arange(image_bt.shape[1], device=image_bt.device)
        last_bt = (index_t == len(index_t) - 1).expand_as(image_bt)
        found, count = {}, len(self.stimuli[0].shots)
        if count > 1:
            of_picture_bt = (image_bt.cumsum(dim=1) - 1) // (image_bt[0].sum() // count)
            found = {f"picture {number + 1}": image_bt & (of_picture_bt == number) for number in range(count)}
        elif grid is not None:
            for name, mask_bn in self.patch_groups(grid).items():
                found[name] = torch.zeros_like(image_bt)
                found[name][image_bt] = mask_bn.flatten()
        found["all image"] = (image_bt.cumsum(dim=1) > 0) & ~behind_bt
        for role, at_b in sorted(self.mentions.items()):
            found[f"{role} word"] = index_t == at_b.to(index_t.device)[:, None]
        return found | {"words": behind_bt & ~last_bt, "last token": last_bt, "everything": torch.ones_like(image_bt)}


@dataclass
class Trace:
    """What a run showed.

    Attributes:
        logits_bk: of the choices at the last token, shape (batch, choices).
        states: by site, shape (batch, tokens, width). Of the encoder: patches in raster order, without CLS and
            registers; of the language model: all tokens.
        last_bv: of all tokens at the last token, shape (batch, vocabulary).
    """

    logits_bk: Tensor
    states: dict[Site, Tensor]
    last_bv: Tensor

    @property
    def choices_b(self) -> Tensor:
        return self.logits_bk.argmax(dim=1)

    @property
    def sure_b(self) -> Tensor:
        """Probability of the likeliest token of all, shape (batch,)."""
        return self.last_bv.softmax(dim=-1).amax(dim=-1)


class _Seen(Exception):
    """What was wanted has been seen."""


class HookedVLM:
    """A variant, or an image-text model of transformers, with its processor and the roles of its modules.

    One whose parts cannot be told apart is refused.
    """

    def __init__(self, model: Any, processor: Any, family: Adapter) -> None:
        self.model = model.eval()
        self.processor, self.family = processor, family
        self.tokenizer = processor.tokenizer
        self.speech: Speech = "words" if knows_words_only(processor) else "english"
        self.roles = find_roles(model, self.prepare([self.plain]).inputs)
        known = signature(model.forward).parameters  # logits of all tokens may take more memory than all else
        self._last_logits = {"logits_to_keep": 1} if "logits_to_keep" in known else {}

    @cached_property
    def plain(self) -> Stimulus:
        """A prompt that only has to be understood, with a picture of nothing that matters."""
        if self.speech == "english":
            return directions(1, 0, self.speech)[0]
        return Stimulus(Scene((), 0), " ".join(known_words(self.processor)[:3]), (), "", {})

    def knows(self, stimulus: Stimulus) -> bool:
        """Whether the model can be asked this."""
        with suppress(UserError):
            self.prepare([stimulus])
            return True
        return False

    @cached_property
    def side(self) -> int:
        """Pixels of a picture's side: the encoder's own size, rounded to whole pixels of the drawn world."""
        size = getattr(self.model.config.vision_config, "image_size", None)
        size = max(size) if isinstance(size, list | tuple) else size
        return max(CANVAS, round((size or 336) / CANVAS) * CANVAS)

    @property
    def tower(self) -> nn.Module:
        """The image encoder: the largest module that holds its blocks and none of the language model's."""
        inside, outside = self.roles.tower_blocks[0], self.roles.layers[0]
        families = ((module, set(module.modules())) for module in self.model.modules())
        holders = [module for module, held in families if inside in held and outside not in held]
        return max(holders, key=lambda module: sum(parameter.numel() for parameter in module.parameters()))

    @property
    def gated(self) -> bool:
        """Whether pictures reach the language model by cross-attention, not as tokens."""
        return isinstance(self.model, BlindspotForConditionalGeneration) and self.model.model.gated

    def sites(self, part: Part) -> list[Site]:
        return [Site(part, layer) for layer in range(len(self._blocks(part)) + 1)]

    def some_sites(self, part: Part) -> list[Site]:
        """Sites of a part, first and last among them; `MOST_SITES` evenly spaced ones if there are more."""
        sites = self.sites(part)
        chosen = np.linspace(0, len(sites) - 1, min(len(sites), MOST_SITES)).round().astype(int)
        return [sites[index] for index in chosen]

    @cached_property
    def patches(self) -> PatchOrder:
        """Which of the tower's tokens are its patches; a tower whose tokens cannot be matched to places is refused."""
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
        """The grid of the tokens of a drawn picture in the language model, as `grid_of`."""
        return self.grid_of((self.side, self.side))

    def grid_of(self, size: tuple[int, int], prepared: Prepared | None = None) -> Grid | None:
        """The grid of the tokens of a picture of this height and width, if they stand for places in raster order.

        A variant knows it; of other models it is measured. None also if a ``prepared`` one has another number of them.
        """
        if isinstance(self.model, BlindspotForConditionalGeneration):
            shapes = None if prepared is None else prepared.inputs.get("spatial_shapes")
            own = self.encoder_grid if shapes is None else tuple(shapes[0].tolist())
            grid = own and self.model.model.parts.output_grid(own)
        else:
            grid = in_raster_order(lambda pictures: self._tokens(pictures, Site("language", 0)), size)
        fits = prepared is None or (grid is not None and grid[0] * grid[1] == int(prepared.image_bt.sum()))
        return grid if fits else None

    def layout_of(self, size: tuple[int, int], prepared: Prepared) -> Layout | None:
        """Where the tokens of a picture of this height and width lie on it, also if it is cut up; None: not known."""
        if grid := self.grid_of(size, prepared):
            return Layout.raster(grid)
        if isinstance(self.model, BlindspotForConditionalGeneration):
            return None
        found = cut_up(lambda pictures: self._tokens(pictures, Site("language", 0)), size)
        return found if found and len(found.rects_n4) == int(prepared.image_bt.sum()) else None

    def prepare(self, stimuli: Sequence[Stimulus], pictures: Sequence[Any] | None = None) -> Prepared:
        """Stimuli with equally many choices each, as input; with other pictures, (side, side, 3) uint8, if given.

        Words that a miniature does not know, choices that the tokenizer does not tell apart, and mentions that it
        splits beyond finding are refused.
        """
        in_known_words(self.processor, " ".join(part for s in stimuli for part in (s.prompt, *s.choices)))
        shown = [s.images(self.side) for s in stimuli] if pictures is None else [[picture] for picture in pictures]
        prompts = [Prompt((*[PICTURE] * len(own), s.prompt)) for s, own in zip(stimuli, shown, strict=True)]
        texts = [self.family.render(self.processor, prompt) for prompt in prompts]
        made = self.family.inputs(self.processor, texts, [[Image.fromarray(each) for each in own] for own in shown])
        weight: Tensor = next(self.model.parameters())
        inputs = {
            name: value.to(weight.device, weight.dtype if value.is_floating_point() else None)
            for name, value in made.items()
            if isinstance(value, Tensor)
        }
        ids_bt = inputs["input_ids"]
        image_bt = ids_bt == self._image_token
        if not image_bt.any(dim=1).all():
            raise UserError("the picture takes no token in the language model; this model cannot be diagnosed")
        choices = []
        for stimulus, text in zip(stimuli, texts, strict=True):
            choices.append([self._first_token(text, choice) for choice in stimulus.choices])
            if len(set(choices[-1])) < len(choices[-1]):
                raise UserError(f"this tokenizer begins several of {', '.join(stimulus.choices)} with one token")
        mentions = {
            role: torch.tensor([self._find(ids, s.mentions[role]) for ids, s in zip(ids_bt, stimuli, strict=True)])
            for role in (stimuli[0].mentions if stimuli else {})
        }
        choice_ids_bk = torch.tensor(choices, dtype=torch.long, device=weight.device)
        return Prepared(list(stimuli), inputs, image_bt, choice_ids_bk, mentions)

    @torch.no_grad()
    def run(self, prepared: Prepared, read: Iterable[Site] = (), changes: Changes = NOTHING) -> Trace:
        """Ask the stimuli, read the states at some sites, with something changed."""
        states: dict[Site, Tensor] = {}
        with ExitStack() as stack:
            for site, change in changes.edits:
                stack.enter_context(self._at(site, change))
            if changes.language_places is not None:
                stack.enter_context(hooks.placed(self.roles.rotary, changes.language_places))
            if changes.encoder_places is not None:
                patches = self.patches.patches
                of = len(patches), int(patches.min())
                stack.enter_context(hooks.encoder_placed(self.model, *of, changes.encoder_places))
            if changes.scores:
                stack.enter_context(hooks.eager(self.model.config.get_text_config()))
            for layer, scores in changes.scores.items():
                stack.enter_context(hooks.added_scores(self.roles.layers[layer], scores))
            for site in read:
                stack.enter_context(self._at(site, lambda seen, site=site: states.update({site: seen.detach()})))
            last_bv = self._last(prepared)
        return Trace(last_bv.gather(1, prepared.choice_ids_bk), states, last_bv)

    def gradient(self, prepared: Prepared, site: Site, of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """States at a site of the language model, and what a number changes by with them, both (batch, tokens, width).

        Args:
            prepared: what is asked.
            site: where; the model in front of it keeps nothing for the way back.
            of: makes the number from the logits of all tokens at the last token, shape (batch, vocabulary).
        """
        self.model.requires_grad_(False)  # else what enters every weight is kept for its gradient
        kept: list[Tensor] = []

        def lead(states_btd: Tensor) -> Tensor:
            kept.append(states_btd.detach().requires_grad_())
            return kept[-1]

        with self._at(site, lead), torch.enable_grad():
            (gradient_btd,) = torch.autograd.grad(of(self._last(prepared)), kept)
        return kept[0].detach(), gradient_btd

    @torch.no_grad()
    def state(self, prepared: Prepared, site: Site, raw: bool = False) -> Tensor:
        """States at one site, as in a `Trace`; the model runs no further than there.

        Raw: all tokens of the encoder, as they come, instead of its patches in raster order.
        """
        found: list[Tensor] = []

        def see(states: Tensor) -> None:
            found.append(states.detach())
            raise _Seen

        with suppress(_Seen), self._at(site, see, raw):
            self.model(**prepared.inputs, use_cache=False)
        return found[0]

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

    def _last(self, prepared: Prepared) -> Tensor:
        """Logits of all tokens at the last token, shape (batch, vocabulary)."""
        return self.model(**prepared.inputs, use_cache=False, **self._last_logits).logits[:, -1].float()

    @property
    def _image_token(self) -> int:
        for name in ("image_token_id", "image_token_index"):
            if isinstance(found := getattr(self.model.config, name, None), int):
                return found
        raise UserError(f"{type(self.model).__name__} says no image_token_id in its config")

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
        start = len(ids) - ids[::-1].index(self._image_token)
        for text in (f" {words}", words):
            wanted = self.tokenizer.encode(text, add_special_tokens=False)
            for at in range(start, len(ids) - len(wanted) + 1):
                if ids[at : at + len(wanted)] == wanted:
                    return at + len(wanted) - 1
        raise UserError(f"cannot find the tokens of {words!r} in the prompt")

    def _tokens(self, pictures: Sequence[Any], site: Site) -> Tensor:
        """States of pictures at a site, every token that stands for a part of a picture, in the model's own order.

        One picture at a time: a dozen that are cut into a dozen tiles each would not fit beside a large model.
        """
        found = []
        for picture in pictures:
            prepared = self.prepare([self.plain], [picture])
            tokens_btd = self.state(prepared, site, raw=True)
            found.append(tokens_btd[prepared.image_bt] if site.part == "language" else tokens_btd.flatten(0, -2))
        return torch.stack(found)

    def _blocks(self, part: Part) -> tuple[nn.Module, ...]:
        return self.roles.tower_blocks if part == "encoder" else self.roles.layers

    def _at(self, site: Site, change: Change, raw: bool = False) -> AbstractContextManager[None]:
        """Let a function see the states at a site, as in a `Trace`, and replace them if it gives others."""
        order = None if raw or site.part == "language" else self.patches

        def changed(tokens: Tensor) -> Tensor:
            if order is None:
                given = change(tokens)
                return tokens if given is None else given
            rows_bnd = tokens.reshape(-1, order.tokens, tokens.shape[-1])
            given = change(rows_bnd[:, order.patches])
            if given is None:
                return tokens
            rows_bnd = rows_bnd.clone()
            rows_bnd[:, order.patches] = given
            return rows_bnd.reshape(tokens.shape)

        blocks = self._blocks(site.part)
        return hooks.on_state(blocks[min(site.layer, len(blocks) - 1)], site.layer < len(blocks), changed)
