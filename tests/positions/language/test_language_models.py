"""Schemes installed in tiny language models: text, training, prefill, cached decoding and left padding agree."""

import copy
import json
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    CohereConfig,
    DynamicCache,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from blindspot.errors import UserError
from blindspot.positions.language import LanguagePositions
from blindspot.positions.language.position_ids import mask, place, tokens_per_image
from blindspot.positions.language.rotation import angles, install, remove

SCHEMES = [
    LanguagePositions("row_break"),
    LanguagePositions("mrope"),
    LanguagePositions("mrope", interleaved=True, spatial_reset=True),
    LanguagePositions("mhrope"),
    LanguagePositions("rope_tie"),
    LanguagePositions("rope_tv"),
    LanguagePositions("v2pe"),
    LanguagePositions("bapa"),
    LanguagePositions("concentric"),
    LanguagePositions("circle"),
]
MROPE, MHROPE = SCHEMES[1], SCHEMES[3]
CONFIGS: dict[str, type[PreTrainedConfig]] = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "gemma": GemmaConfig,
    "smollm3": SmolLM3Config,
    "mistral": MistralConfig,
    "gemma2": Gemma2Config,
    "gemma3": Gemma3TextConfig,
}
GRIDS = [(2, 3), (3, 3)]
every = pytest.mark.parametrize("positions", SCHEMES, ids=lambda positions: positions.scheme)
# Every scheme in four families; in the others one scheme of each kind of rotation.
COMBINATIONS = [(family, positions) for family in list(CONFIGS)[:4] for positions in SCHEMES]
COMBINATIONS += [(family, positions) for family in list(CONFIGS)[4:] for positions in (MROPE, MHROPE, SCHEMES[-1])]
COMBINATIONS.remove(("gemma3", MHROPE))
combinations = pytest.mark.parametrize(
    ("family", "positions"), COMBINATIONS, ids=[f"{family}-{positions.scheme}" for family, positions in COMBINATIONS]
)


def model_of(family: str, attention: str = "eager", **changes: Any) -> Any:
    """A model with fresh hooks; drawing weights once saves most of this file's time."""
    return copy.deepcopy(_drawn(family, attention, json.dumps(changes)))


@cache
def _drawn(family: str, attention: str, changes: str) -> Any:
    values: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 4 if family == "smollm3" else 2,  # SmolLM3 has no rotation in every fourth
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "pad_token_id": 0,
        "sliding_window": 128 if family in ("mistral", "gemma2", "gemma3") else None,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        CONFIGS[family](**values | json.loads(changes)), attn_implementation=attention
    )
    for parameter in model.parameters():  # small initial weights would hide differences
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
        elif parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval()


def ids(length: int, batch: int = 1) -> Tensor:
    return torch.randint(1, 64, (batch, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: Any, tokens_bl: Tensor, position_ids: Tensor, visible: Any = None, cache: Any = None) -> Tensor:
    visible = torch.ones_like(tokens_bl) if visible is None else visible
    return model(
        tokens_bl, attention_mask=visible, position_ids=position_ids, past_key_values=cache, use_cache=cache is not None
    ).logits


def example(positions: LanguagePositions) -> tuple[Tensor, Tensor]:
    """Tokens and image flags: text, image, text, image, text."""
    image: list[bool] = [False] * 3
    for grid, text in zip(GRIDS, (2, 5), strict=True):
        image += [True] * tokens_per_image(positions, grid) + [False] * text
    return ids(len(image)), torch.tensor([image])


@combinations
def test_text_is_bit_equal_to_the_untouched_model(family: str, positions: LanguagePositions) -> None:
    tokens_bl = ids(9, batch=2)
    logical_bl = torch.arange(9).expand(2, -1)
    model = model_of(family)
    plain = logits(model, tokens_bl, logical_bl)
    install(model, positions)
    placed = place(positions, logical_bl, torch.zeros(2, 9).bool(), []).ids_abl
    assert torch.equal(logits(model, tokens_bl, placed), plain)
    assert torch.equal(logits(model, tokens_bl, logical_bl), plain)  # two-dimensional positions are text


@combinations
def test_training_prefill_decoding_and_left_padding_agree(family: str, positions: LanguagePositions) -> None:
    model = model_of(family, attention="eager" if family == "gemma2" else "sdpa")
    tolerance = 1e-4
    if family != "gemma2":  # whose eager attention works in float32
        model, tolerance = model.double(), 1e-8
    dtype = model.dtype
    install(model, positions)
    tokens_bl, image_bl = example(positions)
    length = tokens_bl.shape[1]
    logical_bl = torch.arange(length)[None]
    placed = place(positions, logical_bl, image_bl, GRIDS)
    ones_bl = torch.ones_like(tokens_bl)
    whole = logits(model, tokens_bl, placed.ids_abl, mask(positions, image_bl, GRIDS, ones_bl, dtype))

    kept, past = DynamicCache(config=model.config), length - 4
    prefill = place(positions, logical_bl[:, :past], image_bl[:, :past], GRIDS)
    visible = mask(positions, image_bl[:, :past], GRIDS, ones_bl[:, :past], dtype)
    parts = [logits(model, tokens_bl[:, :past], prefill.ids_abl, visible, kept)]
    for step in range(past, length):
        now = slice(step, step + 1)
        step_ids = place(positions, logical_bl[:, now] + prefill.delta_b[:, None], image_bl[:, now], []).ids_abl
        parts.append(logits(model, tokens_bl[:, now], step_ids, ones_bl[:, : step + 1], kept))
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=tolerance)

    padded_bl, padded_image_bl, kept_bl = (
        nn.functional.pad(x.long(), (5, 0)) for x in (tokens_bl, image_bl, torch.ones_like(tokens_bl))
    )
    batch = [torch.cat([padded_bl, ids(length + 5)]), torch.cat([padded_image_bl, 0 * kept_bl]).bool()]
    kept_bl = torch.cat([kept_bl, torch.ones_like(kept_bl)])
    counted_bl = (kept_bl.cumsum(dim=1) - 1).masked_fill(kept_bl == 0, 0)
    placed = place(positions, counted_bl, batch[1], GRIDS)
    visible = mask(positions, batch[1], GRIDS, kept_bl, dtype)
    padded = logits(model, batch[0], placed.ids_abl, visible)
    torch.testing.assert_close(padded[:1, 5:], whole, rtol=0, atol=tolerance)
    torch.testing.assert_close(placed.delta_b[:1], prefill.delta_b)


@every
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_images_are_seen_otherwise_than_in_one_dimension(positions: LanguagePositions, attention: str) -> None:
    tokens_bl, image_bl = example(positions)
    logical_bl = torch.arange(tokens_bl.shape[1])[None]
    model = model_of("llama", attention)
    plain = logits(model, tokens_bl, logical_bl)
    install(model, positions)
    visible = mask(positions, image_bl, GRIDS, torch.ones_like(tokens_bl))
    placed = logits(model, tokens_bl, place(positions, logical_bl, image_bl, GRIDS).ids_abl, visible)
    changed = (placed - plain).abs().amax() > 1e-3
    assert changed == (positions.scheme != "row_break")


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@every
def test_attention_is_that_of_the_definition(family: str, positions: LanguagePositions) -> None:
    """Scores as complex numbers: Re(q e^(i a_q) conj(k e^(i a_k))), pair by pair and head by head."""
    tokens_bl, image_bl = example(positions)
    placed = place(positions, torch.arange(tokens_bl.shape[1])[None], image_bl, GRIDS).ids_abl
    model = model_of(family, num_hidden_layers=1)
    install(model, positions)
    attention = model.model.layers[0].self_attn
    seen: dict[str, Tensor] = {}
    hook = attention.register_forward_pre_hook(lambda m, a, kw: seen.update(x=kw["hidden_states"]), with_kwargs=True)
    with torch.no_grad():
        visible = mask(positions, image_bl, GRIDS, torch.ones_like(tokens_bl))
        output = model.model(
            tokens_bl, attention_mask=visible, position_ids=placed, output_attentions=True, use_cache=False
        )
        hook.remove()
        remove(model)
        heads = [
            getattr(attention, f"{kind}_norm", nn.Identity())(
                getattr(attention, f"{kind}_proj")(seen["x"]).unflatten(-1, (-1, 16))
            ).double()[0]
            for kind in "qk"
        ]
    inv_freq = 1 / model.config.rope_parameters["rope_theta"] ** (torch.arange(8, dtype=torch.float64) / 8)
    turn = angles(positions, placed, inv_freq, kv_heads=2)
    turn_glp = turn[0] if turn.ndim == 4 else turn.expand(2, -1, -1)
    q_hlp, k_glp = (torch.complex(x[..., :8], x[..., 8:]).transpose(0, 1) for x in heads)
    q_hlp = q_hlp * torch.polar(torch.ones_like(turn_glp), turn_glp).repeat_interleave(2, dim=0)
    k_hlp = (k_glp * torch.polar(torch.ones_like(turn_glp), turn_glp)).repeat_interleave(2, dim=0)
    scores_hlm = torch.einsum("hlp,hmp->hlm", q_hlp, k_hlp.conj()).real / 4
    length = tokens_bl.shape[1]
    seen_lm = torch.ones(length, length).bool().tril() if visible is None or visible.ndim == 2 else visible[0, 0] == 0
    expected = scores_hlm.masked_fill(~seen_lm, float("-inf")).softmax(dim=-1).float()
    torch.testing.assert_close(output.attentions[0][0], expected, rtol=1e-3, atol=1e-5)


def test_frequencies_and_scaling_stay_the_models_own() -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
    for family in ("llama", "qwen3"):
        model = model_of(family, rope_parameters=yarn)
        assert model.model.rotary_emb.attention_scaling != 1
        tokens_bl = ids(40)
        plain = logits(model, tokens_bl, torch.arange(40)[None])
        for positions in (MROPE, MHROPE):
            install(model, positions)
            assert torch.equal(logits(model, tokens_bl, torch.arange(40).expand(3, 1, -1)), plain)


def test_rope1d_leaves_the_model_untouched_and_undoes_what_was_there() -> None:
    model = model_of("llama")
    rotary = model.model.rotary_emb
    names = list(model.state_dict())
    for positions in (MHROPE, MROPE, MHROPE, LanguagePositions()):
        install(model, positions)
        assert list(model.state_dict()) == names
    assert model.model.rotary_emb is rotary
    hooks = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooks
    install(nn.Linear(1, 1), LanguagePositions())


@pytest.mark.parametrize("positions", [MROPE, MHROPE], ids=["mrope", "mhrope"])
def test_reinstalling_copying_and_another_attention_change_nothing(positions: LanguagePositions) -> None:
    tokens_bl, image_bl = example(positions)
    placed = place(positions, torch.arange(tokens_bl.shape[1])[None], image_bl, GRIDS).ids_abl
    model = model_of("qwen3")
    install(model, positions)
    expected = logits(model, tokens_bl, placed)
    install(model, positions)
    assert torch.equal(logits(model, tokens_bl, placed), expected)
    copied = copy.deepcopy(model)
    assert torch.equal(logits(copied, tokens_bl, placed), expected)
    remove(copied)
    assert not [m for m in copied.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert torch.equal(logits(model, tokens_bl, placed), expected)
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(logits(model, tokens_bl, placed), expected, rtol=1e-4, atol=1e-5)
    model.load_state_dict(copied.state_dict())
    torch.testing.assert_close(logits(model, tokens_bl, placed), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", [MROPE, MHROPE], ids=["mrope", "mhrope"])
def test_gradient_checkpointing_gives_the_same_gradients(positions: LanguagePositions) -> None:
    """Also when another batch runs before the layers are computed anew."""
    tokens_bl, image_bl = example(positions)
    placed = place(positions, torch.arange(tokens_bl.shape[1])[None], image_bl, GRIDS).ids_abl
    grads = []
    for checkpointed in (False, True):
        model = model_of("llama").train()
        install(model, positions)
        if checkpointed:
            model.activation_checkpointing_enable()
        losses = [
            model(tokens_bl, attention_mask=torch.ones_like(tokens_bl), position_ids=ids_abl, use_cache=False)
            .logits.logsumexp(-1)
            .mean()
            for ids_abl in (placed, placed.flip(-1))
        ]
        sum(losses).backward()
        grads.append(model.model.layers[0].self_attn.q_proj.weight.grad)
    torch.testing.assert_close(*grads)


def test_flash_attention_never_sees_positions() -> None:
    """At batch size 1 it would take repeated positions for the borders of packed documents."""
    seen = []

    def attention(module: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs.get("position_ids"))
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, *args, **kwargs)

    AttentionInterface.register("h3_recorder", attention)
    AttentionMaskInterface.register("h3_recorder", sdpa_mask)
    model = model_of("llama", "h3_recorder")
    install(model, LanguagePositions("bapa"))
    logits(model, ids(6), torch.zeros(1, 1, 6).long())
    assert seen == [None] * 2


def test_concentric_masks_are_refused_by_flash_attention_and_sliding_windows() -> None:
    model = model_of("llama")
    install(model, LanguagePositions("concentric"))
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UserError, match="flash attention can't take; set the attention implementation to sdpa"):
        logits(model, ids(4), torch.arange(4).expand(1, 1, -1))
    with pytest.raises(UserError, match="undo the sliding windows of language model 'gemma2'"):
        install(model_of("gemma2"), LanguagePositions("concentric"))


def test_positions_without_a_mask_are_refused() -> None:
    model = model_of("llama")
    install(model, LanguagePositions("bapa"))
    with pytest.raises(ValueError, match="explicit attention mask"):
        model(ids(4), position_ids=torch.zeros(1, 1, 4).long())


def test_replaced_projections_are_noticed() -> None:
    model = model_of("llama")
    install(model, MHROPE)
    attention = model.model.layers[1].self_attn
    attention.q_proj = copy.deepcopy(attention.o_proj)
    with pytest.raises(RuntimeError, match=r"call blindspot\.positions\.language\.rotation\.install again"):
        logits(model, ids(4), torch.arange(4).expand(3, 1, -1))


@pytest.mark.parametrize(
    ("config", "positions", "message"),
    [
        (GPT2Config, MROPE, "GPT2LMHeadModel has none"),
        (CohereConfig, MROPE, "'cohere' pairs them otherwise"),
        (Gemma3TextConfig, MHROPE, "not for 'gemma3_text'; use another scheme, such as 'mrope'"),
        (CohereConfig, MHROPE, "known to work for language models gemma, .* not for 'cohere'"),
    ],
)
def test_models_that_can_not_apply_a_scheme_are_refused(
    config: type[PreTrainedConfig], positions: LanguagePositions, message: str
) -> None:
    small = {"n_embd": 16, "n_layer": 1, "n_head": 2} if config is GPT2Config else {"num_attention_heads": 4}
    more = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1} if config is not GPT2Config else {}
    model = AutoModelForCausalLM.from_config(config(vocab_size=16, pad_token_id=0, **small, **more))
    with pytest.raises(UserError, match=message):
        install(model, positions)
    assert not [m for m in model.modules() if m._forward_pre_hooks]


def test_sizes_that_do_not_fit_are_refused_when_installed() -> None:
    with pytest.raises(UserError, match=r"add up to 64, .* has 8 rotary pairs"):
        install(model_of("llama"), LanguagePositions("mrope", sections=(16, 24, 24)))
    with pytest.raises(UserError, match="can't be shared"):
        install(model_of("gemma", num_key_value_heads=1), MHROPE)


def test_a_model_without_storage_can_be_prepared() -> None:
    """As from_pretrained does: built on the meta device, filled later."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_of("llama").config)
        install(model, MROPE)
    assert model.model.rotary_emb.inner.inv_freq.is_meta


def test_a_wrong_number_of_axes_is_an_error() -> None:
    model = model_of("llama")
    install(model, MROPE)
    with pytest.raises(ValueError, match="positions with 2 axes for a scheme with 3"):
        logits(model, ids(4), torch.arange(4).expand(2, 1, -1))
