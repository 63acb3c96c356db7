"""Images and questions to model input, in the format that transformers loads anywhere."""

from transformers import LlavaProcessor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from blindspot.encoders import Encoder
from blindspot.model.tokenizer import IMAGE


def build_processor(
    encoder: Encoder, image_size: int, patch_size: int, tokenizer: PreTrainedTokenizerFast
) -> LlavaProcessor:
    """A processor that resizes to a square and normalises as the encoder's family does.

    A picture that already has ``image_size`` pixels on each side reaches the model unchanged.
    """
    images = CLIPImageProcessorPil(
        size={"height": image_size, "width": image_size},
        do_center_crop=False,
        image_mean=list(encoder.mean),
        image_std=list(encoder.std),
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy=encoder.feature_select_strategy,
        num_additional_image_tokens=encoder.prefix_tokens,
        image_token=IMAGE,
        chat_template=tokenizer.chat_template,
    )
