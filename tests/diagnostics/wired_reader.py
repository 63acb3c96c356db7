"""A vision-language model wired by hand: it finds two objects by colour and reads their places by a route of choice."""

from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.evaluation.adapters import adapter_of
from blindspot.scenes.relations import PHRASE, RELATIONS
from blindspot.scenes.render import RGB
from blindspot.scenes.world import COLOURS, GRID
from tests.diagnostics.known import random_subject

Route = Literal["ids", "encoder", "order", "nothing"]
PATCH = 8
COLOUR, IMAGE, PLACE, BRIGHT = slice(0, 6), 6, slice(7, 9), 9
ASKED, ANSWER = slice(10, 14), slice(14, 20)
WIDTH = 20
ANSWERS = (*RELATIONS, "yes", "no")
RGB_K3 = torch.tensor([RGB[colour] for colour in COLOURS]) / 255
STEP = 0.05  # radians from one position id to the next


def wired_subject(down: Route, across: Route, always_yes: bool = False) -> HookedVLM:
    """A model that answers directions and statements.

    Args:
        down: by what it knows which of two objects is higher: the position ids of the language model, positions of
            the image encoder, the number of the token in the sequence, or not at all.
        across: likewise, which is further left.
        always_yes: affirm every statement.
    """
    like = random_subject()
    model = WiredReader(like.model.config, like.tokenizer.get_vocab(), (down, across), always_yes)
    return HookedVLM(model, like.processor, adapter_of(like.model.config.model_type))


class WiredReader(nn.Module):
    def __init__(self, config: Any, words: dict[str, int], routes: tuple[Route, Route], always_yes: bool) -> None:
        super().__init__()
        self.config = config
        self.tower = _Tower()
        self.language = _Language(config.image_token_index, words, routes, always_yes)
        self.head = nn.Linear(WIDTH, len(words), bias=False)
        with torch.no_grad():
            self.head.weight.zero_()
            for number, word in enumerate(ANSWERS):
                self.head.weight[words[word], ANSWER.start + number] = 1

    def get_output_embeddings(self) -> nn.Linear:
        return self.head

    def forward(self, input_ids: Tensor, pixel_values: Tensor, **_: Any) -> Any:
        return SimpleNamespace(logits=self.head(self.language(input_ids, self.tower(pixel_values))), attentions=None)


class _Passed(nn.Module):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states.clone()


class _Tower(nn.Module):
    """A patch's colour, its brightness and, from a table, its row and column."""

    def __init__(self) -> None:
        super().__init__()
        self.position_embedding = nn.Embedding(GRID * GRID, 2)
        places = [[row, column] for row in range(GRID) for column in range(GRID)]
        self.position_embedding.weight.data = torch.tensor(places, dtype=torch.float)
        self.blocks = nn.ModuleList([_Passed()])

    def forward(self, pixels_b3hw: Tensor) -> Tensor:
        pixels = (pixels_b3hw / 2 + 0.5).unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
        pixels_bnp3 = pixels.permute(0, 2, 3, 4, 5, 1).flatten(3, 4).flatten(1, 2)
        vivid_bnp = pixels_bnp3.amax(-1) - pixels_bnp3.amin(-1)
        at_bn = vivid_bnp.argmax(-1)
        pixel_bn3 = pixels_bnp3.gather(2, at_bn[..., None, None].expand(-1, -1, 1, 3)).squeeze(2)
        colour_bn = (pixel_bn3[:, :, None] - RGB_K3).norm(dim=-1).argmin(-1)
        states = torch.zeros(*colour_bn.shape, WIDTH)
        states[..., COLOUR] = nn.functional.one_hot(colour_bn, 6) * (vivid_bnp.amax(-1, keepdim=True) > 0.3)
        states[..., BRIGHT] = pixels_bnp3.mean((-1, -2))
        states[..., IMAGE] = 1
        states[..., PLACE] = self.position_embedding.weight
        for block in self.blocks:
            states = block(states)
        return states


class _Language(nn.Module):
    def __init__(self, image: int, words: dict[str, int], routes: tuple[Route, Route], always_yes: bool) -> None:
        super().__init__()
        self.image = image
        self.embedding = nn.Embedding(len(words), WIDTH)
        self.embedding.weight.data.zero_()
        for number, colour in enumerate(COLOURS):
            self.embedding.weight.data[words[colour], number] = 1
        for number, name in enumerate(RELATIONS):
            self.embedding.weight.data[words[PHRASE[name]], ASKED.start + number] = 1
        self.rotary = _Rotary()
        self.layers = nn.ModuleList([_Reader(routes, always_yes)])

    def forward(self, ids_bt: Tensor, picture_bnd: Tensor) -> Tensor:
        states_btd = self.embedding(ids_bt)
        states_btd[ids_bt == self.image] = picture_bnd.flatten(0, 1)
        angles = self.rotary(ids_bt)
        for layer in self.layers:
            states_btd = layer(states_btd, angles)
        return states_btd


class _Rotary(nn.Module):
    def forward(self, ids_bt: Tensor) -> tuple[Tensor, Tensor]:
        angle_1t1 = torch.arange(ids_bt.shape[1])[None, :, None] * STEP
        return angle_1t1.cos(), angle_1t1.sin()


class _Reader(nn.Module):
    def __init__(self, routes: tuple[Route, Route], always_yes: bool) -> None:
        super().__init__()
        self.routes, self.always_yes = routes, always_yes

    def forward(self, states_btd: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        given = states_btd.clone()
        cos, sin = (part.expand(len(states_btd), -1, -1)[..., 0] for part in angles)
        id_bt = (torch.atan2(sin, cos) / STEP).round().long()
        for states_td, id_t, out_td in zip(states_btd, id_bt, given, strict=True):
            picture = states_td[:, IMAGE] > 0.5
            colour_nk = states_td[picture][:, COLOUR]
            words_k = states_td[~picture][:, COLOUR].nonzero()[:, 1]
            if len(words_k) != 2:  # asked about nothing
                continue
            subject, reference = (int(colour_nk[:, word].argmax()) for word in words_k)
            asked = states_td[~picture][:, ASKED].nonzero()[:, 1].tolist()
            found = self._relation(self._apart(states_td[picture], id_t[picture], subject, reference))
            if not asked and found is not None:
                out_td[-1, ANSWER.start + RELATIONS.index(found)] = 1
            if asked:
                holds = self.always_yes or found == RELATIONS[asked[0]]
                out_td[-1, ANSWER.start + ANSWERS.index("yes" if holds else "no")] = 1
        return given

    def _apart(self, picture_nd: Tensor, id_n: Tensor, subject: int, reference: int) -> list[int]:
        """How much further down and across the subject is than the reference, each by its route."""
        raster_n = id_n - 1  # behind <s>
        counted_n = torch.arange(len(picture_nd))
        places = {
            "ids": torch.stack([raster_n // GRID, raster_n % GRID], 1),
            "encoder": picture_nd[:, PLACE].round().long(),
            "order": torch.stack([counted_n // GRID, counted_n % GRID], 1),
            "nothing": torch.zeros(len(picture_nd), 2, dtype=torch.long),
        }
        return [
            int(places[route][subject, axis] - places[route][reference, axis]) for axis, route in enumerate(self.routes)
        ]

    @staticmethod
    def _relation(apart: list[int]) -> str | None:
        down, across = apart
        if abs(across) > abs(down):
            return "left" if across < 0 else "right"
        if abs(down) > abs(across):
            return "above" if down < 0 else "below"
        return None
