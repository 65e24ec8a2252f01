"""The compression stages: torch model folder in, torch model folder out, always a stock one.

One module a method, each with frozen `Settings` and one public stage function.  What they
write is a Hugging Face folder that `AutoModel` loads, with its tokenizer.
"""
