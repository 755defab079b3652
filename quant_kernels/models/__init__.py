"""Models that the quantization methods are tried on: a Llama, its GGUF file and its tokenizer."""
