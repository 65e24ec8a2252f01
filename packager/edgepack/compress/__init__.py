"""The compression stages: a torch model folder in, a torch model folder out.

There is one module for each method, with frozen `Settings` and one public stage function.  Each
stage writes an ordinary Hugging Face folder that `AutoModel` loads, with its tokenizer.
"""
