"""Mixed precision quantization of speech foundation models (arXiv 2501.03643).

Importing this package is cheap: it imports neither torch nor transformers.
"""

from mpq import torchaudio_cpu, transformers_plugin

torchaudio_cpu.install()
transformers_plugin.install()
