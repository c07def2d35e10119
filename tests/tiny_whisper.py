"""A Whisper of some thousand random weights with a processor over bytes."""

ARCHITECTURE = {
    "model_type": "whisper",
    "vocab_size": 262,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "num_mel_bins": 80,
    "max_target_positions": 24,
}


def tiny_whisper(seed=0):
    """The model, with weights large enough that the likeliest token changes, and its processor."""
    import torch
    from transformers import GenerationConfig

    from mpq.models.loading import from_scratch

    model, processor = from_scratch(ARCHITECTURE, seed)
    special = processor.tokenizer.convert_tokens_to_ids
    end = special("<|endoftext|>")
    model.generation_config = GenerationConfig(
        decoder_start_token_id=special("<|startoftranscript|>"),
        no_timestamps_token_id=special("<|notimestamps|>"),
        eos_token_id=end,
        pad_token_id=end,
        is_multilingual=False,
        return_timestamps=False,
        max_length=ARCHITECTURE["max_target_positions"],
        suppress_tokens=list(range(end + 1, len(processor.tokenizer))),
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.endswith("embed_positions.weight"):
                weight.add_(torch.randn_like(weight) * 0.3)
    return model, processor
