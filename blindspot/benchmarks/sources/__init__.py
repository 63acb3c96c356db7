"""The forms that benchmarks are published in: VLMEvalKit's TSV, Hugging Face data sets, the authors' own files."""
