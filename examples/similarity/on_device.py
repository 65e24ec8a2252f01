"""What runs on the device: load a bundle, compare sentences.  No torch, no transformers.

python on_device.py BUNDLE
"""

import sys

import edgepack_runtime as er

model = er.load(sys.argv[1])
print(f"variant {model.variant.name} on {model.provider}: {model.choice.reason}")

asked = "where is my parcel?"
known = ["track a parcel", "return an item", "reset a password"]
for score, sentence in zip(
    model({"source_sentence": asked, "sentences": known}), known, strict=True
):
    print(f"{score:.3f}  {sentence}")
