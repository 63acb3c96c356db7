"""A stand-in for Molmo: a checkpoint that brings its own code, with the interface of Molmo's and nothing of its inside.

transformers has no Molmo, and Molmo's code can't be had without a download. What is the published code's is the
interface: ``process(text, images, *, tokens, images_kwargs)``, ``generate_from_batch``, the names and shapes of inputs,
pictures in front of the text, the end token as the first one.
"""

from pathlib import Path

CONFIG = """
from transformers import PretrainedConfig

class MolmoConfig(PretrainedConfig):
    model_type = "molmo"

    def __init__(self, vocab_size=300, hidden_size=32, num_hidden_layers=1, **kwargs):
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        super().__init__(**kwargs)
"""
MODEL = """
import torch
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from .configuration_molmo import MolmoConfig

class MolmoForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = MolmoConfig
    main_input_name = "input_ids"

    def __init__(self, config):
        super().__init__(config)
        self.wte = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.patches = torch.nn.Linear(588, config.hidden_size)
        self.mix = torch.nn.Linear(config.hidden_size, config.hidden_size)
        self.head = torch.nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def forward(self, input_ids, images=None, image_masks=None, image_input_idx=None, **kwargs):
        x = self.wte(input_ids)
        if images is not None:
            x = x.clone()
            for row in range(len(x)):
                x[row, image_input_idx[row].flatten()] += self.patches(images[row].flatten(0, 1)).to(x.dtype)
        return CausalLMOutputWithPast(logits=self.head(self.mix(x.cumsum(dim=1)).tanh()))

    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        return {"input_ids": input_ids, **{k: kwargs.get(k) for k in ("images", "image_masks", "image_input_idx")}}

    @torch.no_grad()
    def generate_from_batch(self, batch, generation_config=None, **kwargs):
        assert generation_config.use_cache
        names = ("images", "image_masks", "image_input_idx")
        return super().generate(batch["input_ids"], generation_config, **{k: batch.get(k) for k in names}, **kwargs)
"""
PROCESSOR = """
import numpy as np
import torch
from transformers import ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

class MolmoImageProcessor(BaseImageProcessor):
    model_input_names = ["images", "image_input_idx", "image_masks"]

    def __init__(self, max_crops=12, **kwargs):
        super().__init__(**kwargs)
        self.max_crops = max_crops

class MolmoProcessor(ProcessorMixin):
    attributes = ["image_processor", "tokenizer"]
    image_processor_class = "AutoImageProcessor"
    tokenizer_class = "Qwen2Tokenizer"

    def __init__(self, image_processor=None, tokenizer=None, **kwargs):
        super().__init__(image_processor, tokenizer)

    def process(self, text=None, images=None, *, tokens=None, images_kwargs=None, **kwargs):
        assert set(images_kwargs or {}) <= {"max_crops"}
        if tokens is None:
            tokens = self.tokenizer.encode(f" User: {text} Assistant:", add_special_tokens=False)
        start, patch, end = self.tokenizer.convert_tokens_to_ids(["<im_start>", "<im_patch>", "<im_end>"])
        ids, crops = [self.tokenizer.eos_token_id], []
        for image in images or []:
            assert image.mode == "RGB"
            pixels = np.asarray(image.resize((28, 28)), dtype=np.float32) / 255
            crops.append(pixels.reshape(2, 14, 2, 14, 3).swapaxes(1, 2).reshape(4, 588))
            ids += [start, patch, patch, patch, patch, end]
        out = {"input_ids": np.array([*ids, *tokens])}
        if crops:
            places = np.flatnonzero(out["input_ids"] == patch).reshape(len(crops), 4)
            out |= {"images": np.stack(crops), "image_input_idx": places, "image_masks": np.ones_like(places)}
        return {name: torch.from_numpy(value) for name, value in out.items()}
"""


def write_code(folder: Path) -> None:
    """The checkpoint's own code."""
    for name, code in {"configuration": CONFIG, "modeling": MODEL, "processing": PROCESSOR}.items():
        (folder / f"{name}_molmo.py").write_text(code.lstrip(), encoding="utf-8")
