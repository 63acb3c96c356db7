"""Any causal language model of transformers as the text model of a variant, and by folder or id."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BertConfig,
    CLIPVisionConfig,
    CohereConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GemmaConfig,
    GraniteConfig,
    LlamaConfig,
    LlavaForConditionalGeneration,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
    T5Config,
)

from blindspot.encoders import ENCODERS, TowerShape
from blindspot.errors import UserError
from blindspot.model.assemble import load_language
from blindspot.model.build import build_variant
from blindspot.model.variant import BlindspotForConditionalGeneration, save
from blindspot.positions import EncoderPositions, LanguagePositions

TOWER = TowerShape(width=32, layers=2, heads=2, mlp_width=64, image_size=32, patch_size=8)
PAD, IMAGE, WINDOW = 0, 5, 8
TINY: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SLIDING: dict[str, Any] = {  # shorter than an image, so that its first tokens slide out of view
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention"],
    "query_pre_attn_scalar": 8,
}
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**TINY, tie_word_embeddings=False),
    "smollm": lambda: LlamaConfig(**TINY, tie_word_embeddings=True),
    "smollm3": lambda: SmolLM3Config(**TINY, no_rope_layers=[1, 0]),
    "qwen2": lambda: Qwen2Config(**{k: v for k, v in TINY.items() if k != "head_dim"}, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**TINY, tie_word_embeddings=True),
    "gemma": lambda: GemmaConfig(**TINY),
    "gemma2": lambda: Gemma2Config(**TINY, **SLIDING),
    "gemma3": lambda: Gemma3TextConfig(**TINY, **SLIDING),
}
TIED = sorted(set(CONFIGS) - {"llama"})
SCHEMES = {"rope1d": LanguagePositions(), "mrope": LanguagePositions("mrope")}

language_models = pytest.mark.parametrize("name", sorted(CONFIGS))
schemes = pytest.mark.parametrize("scheme", sorted(SCHEMES))


@cache
def variant(name: str, scheme: str) -> BlindspotForConditionalGeneration:
    torch.manual_seed(0)
    positions = SCHEMES[scheme]
    model = build_variant(
        ENCODERS["siglip"], TOWER, EncoderPositions(), CONFIGS[name](), IMAGE, language_positions=positions
    )
    for parameter in model.parameters():  # transformers' small initial weights would hide differences
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return model.eval()


def inputs() -> dict[str, Tensor]:
    """Two rows with a picture each, the second shorter and padded on the left."""
    ids = [[1, *[IMAGE] * 16, 7, 8, 9], [PAD, PAD, 1, *[IMAGE] * 16, 11]]
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor([[1] * 20, [0, 0, *[1] * 18]]),
        "pixel_values": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)),
    }


def alone() -> dict[str, Tensor]:
    """The second row without its padding."""
    both = inputs()
    return {key: value[1:, 2:] if value.ndim == 2 else value[1:] for key, value in both.items()}


@torch.no_grad()
def logits(model: Any, batch: dict[str, Tensor]) -> Tensor:
    return model(**batch).logits


@language_models
@schemes
def test_padding_on_the_left_changes_nothing(name: str, scheme: str) -> None:
    model = variant(name, scheme)
    together, single = logits(model, inputs())[1:, 2:], logits(model, alone())
    torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-4)
    assert together.std() > 0.1


@language_models
@schemes
def test_generation_is_the_argmax_of_forward_passes(name: str, scheme: str) -> None:
    model, batch = variant(name, scheme), inputs()
    generated = model.generate(**batch, max_new_tokens=4, min_new_tokens=4, do_sample=False, suppress_tokens=[IMAGE])
    for _ in range(4):
        scores_bv = logits(model, batch)[:, -1]
        scores_bv[:, [2, IMAGE]] = -torch.inf
        batch["input_ids"] = torch.cat([batch["input_ids"], scores_bv.argmax(dim=1, keepdim=True)], dim=1)
        batch["attention_mask"] = torch.cat([batch["attention_mask"], torch.ones(2, 1, dtype=torch.long)], dim=1)
    assert torch.equal(generated, batch["input_ids"])


@language_models
@schemes
def test_the_loss_is_the_cross_entropy_and_reaches_every_part(name: str, scheme: str) -> None:
    model, batch = variant(name, scheme), inputs()
    labels_bl = batch["input_ids"].clone()
    labels_bl[:, :-2] = -100
    output = model(**batch, labels=labels_bl)
    expected = nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels_bl[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected)
    output.loss.backward()
    parts = (model.model.vision_tower, model.model.multi_modal_projector, model.model.language_model)
    try:
        for part in parts:
            assert any(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())
    finally:
        model.zero_grad()


@language_models
@schemes
def test_saved_and_loaded_it_computes_the_same_bits(name: str, scheme: str, tmp_path: Path) -> None:
    model, batch = variant(name, scheme), inputs()
    save(model, tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert type(loaded) is (LlavaForConditionalGeneration if scheme == "rope1d" else BlindspotForConditionalGeneration)
    assert torch.equal(logits(loaded, batch), logits(model, batch))
    stored = load_file(tmp_path / "model.safetensors")
    heads = [key for key in stored if key.endswith(("lm_head.weight", "embed_tokens.weight"))]
    assert len(heads) == (1 if name in TIED else 2)
    for one in (model, loaded):
        assert (one.lm_head.weight is one.get_input_embeddings().weight) == (name in TIED)


@language_models
def test_a_scheme_moves_pictures_and_leaves_text_alone(name: str) -> None:
    plain, moved = variant(name, "rope1d"), variant(name, "mrope")
    assert (logits(moved, alone()) - logits(plain, alone())).abs().max() > 0.01
    text = {"input_ids": torch.tensor([[1, *range(6, 30)]]), "attention_mask": torch.ones(1, 25, dtype=torch.long)}
    torch.testing.assert_close(logits(moved, text), logits(plain, text), rtol=1e-5, atol=1e-5)


# --- language models by folder or id


@pytest.fixture
def saved_language(tmp_path: Path) -> Callable[..., Path]:
    """(name or config) -> a folder with that model's config and random weights."""

    def make(config: str | PreTrainedConfig, **options: Any) -> Path:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(CONFIGS[config]() if isinstance(config, str) else config)
        model.save_pretrained(tmp_path / "language", **options)
        return tmp_path / "language"

    return make


@language_models
def test_a_loaded_language_model_reads_text_as_in_the_variant(name: str, saved_language: Callable[..., Path]) -> None:
    folder = saved_language(name)
    language = load_language(folder)
    original = AutoModelForCausalLM.from_pretrained(folder)
    for key, value in original.state_dict().items():
        assert torch.equal(language.state_dict()[key], value)
    model = build_variant(
        ENCODERS["siglip"], TOWER, EncoderPositions(), AutoConfig.from_pretrained(folder), IMAGE
    ).eval()
    model.model.language_model.load_state_dict(language.model.state_dict())
    model.lm_head.weight.data.copy_(language.get_output_embeddings().weight)
    text = {"input_ids": torch.tensor([[1, *range(6, 30)]]), "attention_mask": torch.ones(1, 25, dtype=torch.long)}
    expected, got = logits(language.eval(), text), logits(model, text)
    if name == "gemma2":  # Llava leaves out the cap: the ranking stays
        cap = language.config.final_logit_softcapping
        got = cap * torch.tanh(got / cap)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    yield


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


CONFIG_REFUSALS: dict[str, tuple[Callable[[], PreTrainedConfig], str]] = {
    "encoder": (lambda: BertConfig(), "bert does not predict the next token of a text"),
    "seq2seq": (lambda: T5Config(), "t5 does not predict the next token of a text"),
    "images": (lambda: CLIPVisionConfig(), "clip_vision_model does not predict the next token"),
    "multimodal": (lambda: Gemma3Config(), "gemma3 reads more than text"),
    "scaled": (lambda: CohereConfig(), "cohere multiplies its logits (logit_scale), and Llava does not"),
    "divided": (lambda: GraniteConfig(logits_scaling=8.0), "granite multiplies its logits (logits_scaling)"),
}


@pytest.mark.parametrize("case", CONFIG_REFUSALS)
def test_what_cannot_be_the_language_model_is_refused(case: str, tmp_path: Path) -> None:
    config, reason = CONFIG_REFUSALS[case]
    config().save_pretrained(tmp_path)
    message = refusal(lambda: load_language(tmp_path))
    assert message.startswith(f"{tmp_path} is no language model for a variant: ") and reason in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "config.json is not a JSON file"),
        ("{}", "transformers knows no model_type None"),
        ('{"model_type": "no_such"}', "transformers knows no model_type 'no_such'"),
        (
            '{"model_type": "own", "auto_map": {"AutoConfig": "evil.Config"}}',
            "transformers knows no model_type 'own'; it needs code of its own, which is never run",
        ),
        ('{"model_type": "llama", "hidden_size": "wide"}', "its config.json is damaged"),
    ],
)
def test_a_config_that_is_none_is_named(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("raise SystemExit('code was run')", encoding="utf-8")
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    assert reason in refusal(lambda: load_language(tmp_path))


def test_what_is_nowhere_is_named(tmp_path: Path, offline: None) -> None:
    assert refusal(lambda: load_language(tmp_path)).startswith(f"{tmp_path} is not a model folder")
    assert "no folder here" in refusal(lambda: load_language("nobody/no-such-model"))


def test_a_head_with_a_bias_is_refused(saved_language: Callable[..., Path]) -> None:
    small = {key: TINY[key] for key in TINY if key not in ("head_dim", "num_key_value_heads")}
    folder = saved_language(PhiConfig(**small))
    assert "head of this language model has a bias" in refusal(lambda: load_language(folder))


def test_damaged_weights_are_named(saved_language: Callable[..., Path]) -> None:
    folder = saved_language("llama", max_shard_size="20KB")
    min(folder.glob("model-*.safetensors")).unlink()
    message = refusal(lambda: load_language(folder))
    assert message.startswith(f"cannot open the language model in {folder}: it lacks shards")


def test_safetensors_come_before_pickles_and_pickles_hold_tensors_only(saved_language: Callable[..., Path]) -> None:
    folder = saved_language("llama")
    whole = load_file(folder / "model.safetensors")
    torch.save({name: value + 1 for name, value in whole.items()}, folder / "pytorch_model.bin")
    head = load_language(folder).get_output_embeddings().weight
    assert torch.equal(head, whole["lm_head.weight"])
    (folder / "model.safetensors").unlink()
    assert torch.equal(load_language(folder).get_output_embeddings().weight, whole["lm_head.weight"] + 1)
    torch.save({"code": Path}, folder / "pytorch_model.bin")
    assert "pickled code" in refusal(lambda: load_language(folder))
