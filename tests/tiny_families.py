"""A model of some thousand random parameters for every family of transformers that this method is used on."""

from itertools import cycle

import torch
import transformers

from mpq.quant.quantizer import WeightQuantizer
from mpq.quant.sites import attach, find_sites

torch.set_num_threads(1)

TRANSFORMER = {
    "vocab_size": 12,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
SPEECH = {
    **TRANSFORMER,
    "conv_dim": (8, 12),
    "conv_kernel": (10, 4),
    "conv_stride": (10, 8),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
LAYER_NORM = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
CONFORMER = {"conv_depthwise_kernel_size": 3, "max_source_positions": 60}
SEW = {"squeeze_factor": 2, "conv_dim": (8, 12, 12), "conv_kernel": (10, 4, 1), "conv_stride": (10, 8, 1)}
MEL = {
    **TRANSFORMER,
    "feature_projection_input_dim": 10,
    "conv_depthwise_kernel_size": 3,
    "left_max_position_embeddings": 4,
    "right_max_position_embeddings": 3,
    "max_source_positions": 60,
}
# Of models whose encoder has a configuration of its own; `num_mel_bins` values a frame, or four times that (Granite).
ENCODER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "num_mel_bins": 8,
    "conv_kernel_size": 3,
}
PARAKEET = ENCODER | {"subsampling_conv_channels": 6, "max_position_embeddings": 60}
LASR = ENCODER | {"subsampling_conv_channels": 6, "conv_kernel_size": 4, "subsampling_conv_kernel_size": 3}
GRANITE = ENCODER | {"vocab_size": 12, "max_position_embeddings": 12, "context_size": 8, "subsample_layers": [0]}
TEXT = {"vocab_size": 13, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
DECODER = {
    **TEXT,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_target_positions": 10,
}
WHISPER = {**DECODER, "num_mel_bins": 10, "max_source_positions": 10}
MOONSHINE = {
    **TEXT,
    "hidden_size": 16,
    "intermediate_size": 24,
    "encoder_num_hidden_layers": 2,
    "decoder_num_hidden_layers": 2,
    "encoder_num_attention_heads": 2,
    "decoder_num_attention_heads": 2,
    "max_position_embeddings": 10,
}
SPEECH_TO_TEXT = {**DECODER, "input_feat_per_channel": 10, "max_source_positions": 20, "conv_channels": 12}
ADAPTER = {"add_adapter": True, "num_adapter_layers": 1, "output_hidden_size": 16}

# Name -> model type and the arguments of its configuration. Variants stand where they compute something else.
FAMILIES = {
    "wav2vec2": ("wav2vec2", SPEECH),
    "wav2vec2_layer_norm": ("wav2vec2", SPEECH | LAYER_NORM),
    "wav2vec2_adapter": ("wav2vec2", SPEECH | ADAPTER),
    "wav2vec2_attention_adapter": ("wav2vec2", SPEECH | LAYER_NORM | {"adapter_attn_dim": 4}),
    "hubert": ("hubert", SPEECH),
    "hubert_layer_norm": ("hubert", SPEECH | LAYER_NORM),
    "hubert_batch_norm": ("hubert", SPEECH | {"conv_pos_batch_norm": True}),
    "wavlm": ("wavlm", SPEECH | {"num_buckets": 8, "max_bucket_distance": 16}),
    "wavlm_layer_norm": ("wavlm", SPEECH | LAYER_NORM | {"num_buckets": 8, "max_bucket_distance": 16}),
    "data2vec_audio": ("data2vec-audio", SPEECH | {"conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 2}),
    "conformer_relative": ("wav2vec2-conformer", SPEECH | CONFORMER | {"position_embeddings_type": "relative"}),
    "conformer_rotary": ("wav2vec2-conformer", SPEECH | CONFORMER | {"position_embeddings_type": "rotary"}),
    "unispeech": ("unispeech", SPEECH),
    "unispeech_sat": ("unispeech-sat", SPEECH),
    "unispeech_sat_layer_norm": ("unispeech-sat", SPEECH | LAYER_NORM),
    "sew": ("sew", SPEECH | SEW),
    "sew_d": ("sew-d", SPEECH | SEW | {"position_buckets": 8, "max_position_embeddings": 16}),
    "wav2vec2_bert": ("wav2vec2-bert", MEL),
    "wav2vec2_bert_relative": ("wav2vec2-bert", MEL | {"position_embeddings_type": "relative"}),
    "wav2vec2_bert_rotary": ("wav2vec2-bert", MEL | {"position_embeddings_type": "rotary"}),
    "parakeet": ("parakeet_ctc", {"vocab_size": 12, "pad_token_id": 11, "encoder_config": PARAKEET}),
    "lasr": ("lasr_ctc", {"vocab_size": 12, "encoder_config": LASR}),
    "granite_speech": ("granite_speech5_ctc", {"vocab_size": 12, "encoder_config": GRANITE}),
    "whisper": ("whisper", WHISPER),
    "whisper_untied": ("whisper", WHISPER | {"tie_word_embeddings": False}),
    "moonshine": ("moonshine", MOONSHINE),
    "speech_to_text": ("speech_to_text", SPEECH_TO_TEXT),
}


COMPUTED = ("inv_freq", "pe", "embed_positions.weights")  # buffers that no file stores


def auto_class(config: transformers.PreTrainedConfig) -> type:
    """Return the class of transformers that makes the model of `config`."""
    is_ctc = type(config) in transformers.MODEL_FOR_CTC_MAPPING
    return transformers.AutoModelForCTC if is_ctc else transformers.AutoModelForSpeechSeq2Seq


def tiny_family(family: str) -> transformers.PreTrainedModel:
    """Return a model with fresh random numbers everywhere: zeros and ones would hide a weight's effect, or a mix-up."""
    return tiny_model(*FAMILIES[family])


def tiny_model(model_type: str, arguments: dict) -> transformers.PreTrainedModel:
    """Return the model of `tiny_family` with other arguments."""
    config = transformers.AutoConfig.for_model(model_type, **arguments)
    model = auto_class(config).from_config(config).eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and not name.endswith(COMPUTED):
                tensor.add_(torch.rand_like(tensor) * 0.3)
    return model


def quantized(model: transformers.PreTrainedModel) -> dict[str, WeightQuantizer]:
    """Attach quantizers, in place, with the bit-widths 1 to 8 in turn over the searched sites."""
    searched = "*.layer.*" if model.config.model_type == "sew-d" else "*.layers.*"
    quantizers = attach(model, find_sites(model, searched), tuple(range(1, 9)))
    for quantizer, bits in zip([q for q in quantizers.values() if q.bits is None], cycle(range(1, 9)), strict=False):
        quantizer.freeze(bits)
    return quantizers


def random_inputs(model: transformers.PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return audio `[2, samples]` or features of some 20 frames; where there is a decoder, also its tokens `[2, 5]`."""
    name, config = model.main_input_name, model.config
    if name == "input_values":
        inputs = torch.randn(2, 1600)
    elif config.model_type == "whisper":
        inputs = torch.randn(2, config.num_mel_bins, 2 * config.max_source_positions)
    else:
        inputs = torch.randn(2, 80 if hasattr(config, "encoder_config") else 20, features(config))
    if not config.is_encoder_decoder:
        return {name: inputs}
    return {name: inputs, "decoder_input_ids": torch.randint(3, config.vocab_size, (2, 5))}


def features(config: transformers.PreTrainedConfig) -> int:
    """Return the number of values in a frame of a model's inputs."""
    if encoder := getattr(config, "encoder_config", None):
        return encoder.num_mel_bins * (4 if encoder.model_type.startswith("granite") else 1)
    names = {"wav2vec2-bert": "feature_projection_input_dim", "speech_to_text": "input_feat_per_channel"}
    return getattr(config, names[config.model_type])


def logits(model: transformers.PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the model's logits without gradients.

    By no_grad alone a stored weight still says that it requires them, a computed one does not; where inputs have four
    dimensions (WavLM) PyTorch then takes two kernels, which round alike on some processors only.
    """
    with torch.no_grad():
        return model.requires_grad_(False)(**inputs).logits
