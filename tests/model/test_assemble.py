"""Variants from checkpoints in the real formats: what transformers itself writes, tiny and random."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    Aimv2VisionConfig,
    Aimv2VisionModel,
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipConfig,
    SiglipModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

import blindspot
from blindspot.connectors import ConnectorSpec
from blindspot.encoders import features
from blindspot.errors import UserError
from blindspot.model.assemble import assemble, position_table, resized
from blindspot.model.formats.llava import padded
from blindspot.model.variant import save
from blindspot.positions import EncoderPositions, LanguagePositions

WORDS = ["<unk>", "<s>", "</s>", *(f"w{number}" for number in range(37))]
VISION: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
    "intermediate_size": 40,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "vocab_size": len(WORDS), "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
WORDY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 9}


def _random(model: Any, dtype: torch.dtype) -> Any:
    for parameter in model.parameters():  # transformers' small start values would hide differences
        torch.nn.init.normal_(parameter, std=0.2)
    return model.to(dtype)


def _tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


ENCODERS: dict[str, Callable[[], Any]] = {
    "clip": lambda: CLIPModel(CLIPConfig(text_config=WORDY, vision_config=VISION)),
    "siglip": lambda: SiglipModel(SiglipConfig(text_config=WORDY, vision_config=VISION)),
    "aimv2": lambda: Aimv2VisionModel(Aimv2VisionConfig(**VISION, use_head=False)),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**{k: v for k, v in VISION.items() if k != "intermediate_size"})),
}
LANGUAGES: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**TEXT)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**TEXT, tie_word_embeddings=True)),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a checkpoint by name, as its makers publish it: encoders in float32, language models in float16."""
    root = tmp_path_factory.mktemp("checkpoints")

    @cache
    def make(name: str) -> Path:
        torch.manual_seed(0)
        folder = root / name
        if name in LANGUAGES:
            _random(LANGUAGES[name](), torch.float16).save_pretrained(folder)
            _tokenizer().save_pretrained(folder)
            return folder
        _random(ENCODERS[name](), torch.float32).save_pretrained(folder)
        if name == "siglip":
            SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=2).save_pretrained(folder)
        else:
            sizes: dict[str, Any] = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
            CLIPImageProcessorPil(**sizes).save_pretrained(folder)
        return folder

    return make


def _pixels(side: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def _vision(model: Any) -> Any:
    return model.vision_model if hasattr(model, "vision_model") else model


@pytest.mark.parametrize("family", sorted(ENCODERS))
@torch.no_grad()
def test_every_weight_is_that_of_its_checkpoint(family: str, checkpoint: Callable[[str], Path]) -> None:
    model, processor = assemble(checkpoint(family), checkpoint("llama"), seed=0)
    torch.manual_seed(0)
    source = _vision(_random(ENCODERS[family](), torch.float32)).eval()
    expected = source(_pixels(), output_hidden_states=True).hidden_states[-2][:, model.model.parts.prefix_tokens :]
    found = features(model.model.vision_tower, model.model.parts.encoder, _pixels(), -2)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.manual_seed(0)
    language = _random(LANGUAGES["llama"](), torch.float16)
    held = model.model.language_model.state_dict()
    table = held.pop("embed_tokens.weight")
    original = language.model.state_dict()
    assert torch.equal(table[: len(WORDS)], original.pop("embed_tokens.weight"))
    assert held.keys() == original.keys() and all(torch.equal(held[name], original[name]) for name in held)
    assert torch.equal(model.lm_head.weight[: len(WORDS)], language.lm_head.weight)
    kinds = {parameter.dtype for parameter in model.model.vision_tower.parameters()}
    assert kinds == {torch.float32} and model.lm_head.weight.dtype == torch.float16
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == model.config.image_token_id == len(WORDS)


def test_the_image_token_gets_the_mean_row(checkpoint: Callable[[str], Path]) -> None:
    model, _ = assemble(checkpoint("clip"), checkpoint("llama"), seed=0)
    for table in (model.model.language_model.embed_tokens.weight, model.lm_head.weight):
        assert len(table) == 64 == model.model.language_model.config.vocab_size
        mean = table[: len(WORDS)].float().mean(dim=0).half()
        assert all(torch.equal(row, mean) for row in table[len(WORDS) :])


def test_a_tied_head_stays_tied(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model, processor = assemble(checkpoint("siglip"), checkpoint("qwen2"), seed=0)
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    save(model.float(), tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    loaded, _ = blindspot.load(tmp_path / "model")
    assert loaded.lm_head.weight is loaded.model.language_model.embed_tokens.weight


def test_only_the_connector_follows_the_seed(checkpoint: Callable[[str], Path]) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (assemble(checkpoint("clip"), checkpoint("llama"), seed)[0] for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    states = [model.state_dict() for model in (first, again, other)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    changed = {name for name, tensor in states[0].items() if not torch.equal(tensor, states[2][name])}
    assert changed == {name for name in states[0] if name.startswith("model.multi_modal_projector.")}


@torch.no_grad()
def test_it_answers_and_comes_back_from_disk(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model, processor = assemble(checkpoint("clip"), checkpoint("llama"), seed=0)
    model = model.float()
    save(model, tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    loaded, opened = blindspot.load(tmp_path / "model")
    picture = Image.effect_noise((50, 40), 90).convert("RGB")
    for one in (processor, opened):
        inputs = one(images=[picture], text=["<image> w1 w2"], return_tensors="pt")
        assert int((inputs["input_ids"] == len(WORDS)).sum()) == 16
        torch.testing.assert_close(model(**inputs).logits, loaded(**inputs).logits)
    assert loaded.config.model_type == "blindspot" and loaded.config.vision_feature_layer == -2


@pytest.mark.parametrize("family", sorted(ENCODERS))
@torch.no_grad()
def test_another_size_resizes_the_table_once(family: str, checkpoint: Callable[[str], Path]) -> None:
    native, _ = assemble(checkpoint(family), checkpoint("llama"), seed=0)
    larger, processor = assemble(checkpoint(family), checkpoint("llama"), seed=0, image_size=44)
    encoder = native.model.parts.encoder
    expected = features(native.model.vision_tower, encoder, _pixels(44), -2)  # resizes while it runs
    found = features(larger.model.vision_tower, encoder, _pixels(44), -2)
    assert found.shape[1] == 25 == larger.tokens_per_image, "44 px are five patches of 8 and 4 px over"
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    pixels = processor.image_processor(images=Image.new("RGB", (100, 60)), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 44, 44)
    table = position_table(checkpoint(family), 44)
    state = larger.state_dict()
    assert len(table) == 1 and all(torch.equal(state[name], tensor) for name, tensor in table.items())


def test_positions_and_connectors_are_those_asked_for(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    wished: dict[str, Any] = {
        "positions": EncoderPositions("mixed", 10.0, "replace"),
        "language_positions": LanguagePositions("row_break"),
        "connector": ConnectorSpec("average_pooling", factor=2),
    }
    model, processor = assemble(checkpoint("siglip"), checkpoint("llama"), seed=1, **wished)
    table = next(iter(position_table(checkpoint("siglip"))))
    assert not model.state_dict()[table].any()
    learned = [name for name, _ in model.named_parameters() if name.endswith("rotation.frequencies")]
    assert learned and all(model.state_dict()[name].std() > 0 for name in learned)
    save(model.float(), tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    loaded, opened = blindspot.load(tmp_path / "model")
    state = loaded.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    tokens = opened(images=[Image.new("RGB", (32, 32))], text=["<image>"])["input_ids"][0]
    assert tokens.count(model.config.image_token_id) == 2 * (2 + 1)


def test_the_released_defects(checkpoint: Callable[[str], Path]) -> None:
    positions = EncoderPositions("released_concat", table="released")
    model, processor = assemble(
        checkpoint("siglip"), checkpoint("llama"), seed=0, positions=positions, drop_first_patch=True
    )
    assert model.tokens_per_image == 15
    assert not any(parameter.requires_grad for parameter in model.model.vision_tower.parameters())
    inputs = processor(images=[Image.new("RGB", (32, 32))], text=["<image>"], return_tensors="pt")
    assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 15


def test_a_processor_of_another_size_and_with_padding() -> None:
    sizes: dict[str, Any] = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
    crop = resized(CLIPImageProcessorPil(**sizes), 64)
    assert (crop.size["shortest_edge"], crop.crop_size["height"]) == (80, 64)
    warp = resized(SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=2), 48)
    assert (warp.size["height"], warp.size["width"], warp.resample) == (48, 48, 2)
    square = padded(warp)
    assert padded(square) is square and square.resample == 2
    wide = Image.new("RGB", (96, 48), "white")
    pixels_chw = square(images=wide, return_tensors="pt")["pixel_values"][0]
    assert pixels_chw.shape == (3, 48, 48)
    assert pixels_chw[:, :11].abs().max() < 0.01 and pixels_chw[:, 14:34].min() == 1, "a mean of half is grey"


def test_what_does_not_fit_is_one_line(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    clip, llama = checkpoint("clip"), checkpoint("llama")
    with pytest.raises(UserError, match="not a model folder"):
        assemble(tmp_path, llama, seed=0)
    with pytest.raises(UserError, match="unknown model_type 'llama'"):
        assemble(llama, llama, seed=0)
    with pytest.raises(UserError, match="no language model for a variant"):
        assemble(clip, clip, seed=0)
    with pytest.raises(UserError, match=r"image_size 7 is smaller than a patch of .* \(8 px\)"):
        assemble(clip, llama, seed=0, image_size=7)
    bare = tmp_path / "bare"
    _random(LANGUAGES["llama"](), torch.float32).save_pretrained(bare)
    with pytest.raises(UserError, match="has no tokenizer"):
        assemble(clip, bare, seed=0)
