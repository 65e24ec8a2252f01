"""What runs on the device: load a bundle, tell intents.  No torch, no transformers.

python on_device.py BUNDLE
"""

import sys

import edgepack_runtime as er

model = er.load(sys.argv[1])
print(f"variant {model.variant.name} on {model.provider}: {model.choice.reason}")

for text in (
    "wake me up at seven",
    "i could use some light in the kitchen",
    "add oat milk to the list",
):
    best = model(text)[0]
    print(f"{best['score']:.3f}  {best['label']:<14} {text}")
