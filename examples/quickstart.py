"""Ask a language model a question; it works with a context that never grows.

    python examples/quickstart.py "Who wrote Dracula?"

Uses configs/demo.toml: a small local model and the passages this repository ships.
"""

import sys

import mem1


def main(question: str, *, config_file: str = "configs/demo.toml") -> mem1.Trajectory:
    config = mem1.load_config(config_file, overrides=["sampling.temperature=0"])
    trajectory = mem1.ask(question, config=config)
    for number, turn in enumerate(trajectory.turns, start=1):
        tokens = len(turn.prompt_ids) + turn.completion.num_tokens
        print(f"turn {number}: {tokens} tokens in context, bound {trajectory.bound}")
        print(turn.completion.text.strip(), turn.observation or "", sep="\n", end="\n\n")
    print("answer:", trajectory.answer or f"none ({trajectory.stop_reason})")
    return trajectory


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "Who wrote the novel Dracula?")
