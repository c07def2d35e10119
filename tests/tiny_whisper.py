"""A Whisper of some thousand random weights with a processor over bytes."""

# A pipeline of transformers has five beams and 256 new tokens if it is not told.
GREEDY = {"num_beams": 1, "max_new_tokens": 22}
ARCHITECTURE = {
    "model_type": "whisper",
    "vocab_size": 262,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "num_mel_bins": 80,
    "max_target_positions": 24,
}


def tiny_whisper(seed=0):
    """The model, with weights so large that it writes different tokens and never the special ones, and its processor.

    Its texts end with its positions.
    """
    import torch

    from mpq.models.loading import from_scratch

    model, processor = from_scratch(ARCHITECTURE, seed)
    model.generation_config.suppress_tokens = list(range(256, len(processor.tokenizer)))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.endswith("embed_positions.weight"):
                weight.add_(torch.randn_like(weight) * 0.5)
    return model, processor


def whisper():
    """The model of another seed each time, and its processor."""
    import torch

    return tiny_whisper(torch.seed() % 2**32)


def ends_at_once(model):
    """Change the model so that it ends every text before its first token."""
    import torch

    end = model.generation_config.eos_token_id
    model.generation_config.suppress_tokens = None
    norm = model.model.decoder.layer_norm
    with torch.no_grad():  # every position's last state is now the same, and likest the end
        norm.weight.zero_()
        model.proj_out.weight[end] = 10 * torch.randn(norm.bias.shape)
        norm.bias.copy_(model.proj_out.weight[end])
    return model
