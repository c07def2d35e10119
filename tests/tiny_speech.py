"""A few seconds of made-up speech, and a model of some thousand parameters to hear it."""

import numpy as np
import soundfile

# Some four thousand searched weights in twelve sites; 20 ms frames, as in the large models.
ARCHITECTURE = {
    "model_type": "wav2vec2",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_feat_extract_layers": 2,
    "conv_dim": [8, 16],
    "conv_kernel": [20, 16],
    "conv_stride": [20, 16],
    "feat_extract_norm": "group",
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "layerdrop": 0.0,
    "mask_time_prob": 0.2,
    "mask_time_length": 2,
}
WORDS = ("A", "TEST", "OF", "THE", "SMALLEST", "KIND", "SAID", "TWICE")


def write_speech(root, sizes, rng):
    """A folder of LibriSpeech's layout: `sizes[split]` utterances of 0.5 to 1 s, two speakers a split."""
    for split, size in sizes.items():
        for number in range(size):
            chapter = root / split / f"{1 + number % 2}" / "1"
            chapter.mkdir(parents=True, exist_ok=True)
            name = f"{1 + number % 2}-1-{number:04d}"
            time = np.arange(int(rng.uniform(8_000, 16_000))) / 16_000
            audio = np.sin(2 * np.pi * rng.uniform(90, 250) * time) * np.sin(2 * np.pi * rng.uniform(2, 5) * time)
            soundfile.write(chapter / f"{name}.flac", 0.3 * audio + 0.05 * rng.standard_normal(len(time)), 16_000)
            with (chapter / f"{1 + number % 2}-1.trans.txt").open("a") as transcripts:
                transcripts.write(f"{name} {' '.join(rng.choice(WORDS, 2))}\n")
    return root


def speech_of(model, attention_mask=False):
    """The `model` with the processor over letters, which gives it an attention mask or none."""
    from mpq.models.ctc import CtcModel
    from mpq.models.processor import letters_processor

    processor = letters_processor()
    processor.feature_extractor.return_attention_mask = attention_mask
    return CtcModel(model, processor)
