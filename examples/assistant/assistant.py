"""A customer service on a device: find the nearest answers, and write one from them.

python assistant.py SEARCH.epk WRITER.epk [--memory FILE]

Type a question; an empty line or the end of the input leaves.
"""

import argparse
import json
import sys
from pathlib import Path

import edgepack_runtime as er

FAQ = [json.loads(line) for line in (Path(__file__).parent / "faq.jsonl").read_text().splitlines()]
SYSTEM = "You write short answers to the customers of a shop, from what the shop knows."
NEAREST = 1  # notes that an answer is written from; a larger model makes good use of more


def nearest(search: er.Model, question: str) -> list[dict[str, str]]:
    """Return the entries whose questions are nearest, best first."""
    known = [entry["question"] for entry in FAQ]
    scores = search({"source_sentence": question, "sentences": known})
    order = sorted(range(len(FAQ)), key=lambda at: -scores[at])
    return [FAQ[at] for at in order[:NEAREST]]


def messages(question: str, entries: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the dialogue that the model continues; what never changes comes first."""
    notes = " ".join(entry["answer"] for entry in entries)
    task = (
        f'A customer of our shop asks: "{question}" We know: "{notes}" '
        "Write a short answer to the customer that uses what we know."
    )
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": task}]


def main() -> None:
    """Answer line by line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("search")
    parser.add_argument("writer")
    parser.add_argument("--memory", help="where the instructions that were read are kept")
    args = parser.parse_args()
    search, writer = er.load(args.search), er.load(args.writer)
    saved = args.memory and Path(args.memory).exists()
    memory = er.Memory.load(args.memory) if saved else er.Memory()
    for line in sys.stdin:
        if not line.strip():
            break
        entries = nearest(search, line.strip())
        dialogue = messages(line.strip(), entries)
        # Notes that the text repeats are guessed: the same words, sooner.
        options = {"max_new_tokens": 80, "do_sample": False, "prompt_lookup_num_tokens": 4}
        for piece in writer(dialogue, stream=True, memory=memory, **options):
            print(piece, end="", flush=True)
        print(f"\n[from: {entries[0]['question']}]", flush=True)
    if args.memory and memory.length:
        memory.save(args.memory)


main()
