"""What a trained language model expects: after each token of a text, and how the text might go on.

    python -m examples.transformer_predict path=examples/results/transformer.pt text="Return the"

Text with signs that mean something to the command line goes in quotes of its own: text='"f(x), the"'.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from high_order_fused.transformer import TransformerModel

from . import command, text
from .command import Figures, show
from .transformer import loss


@dataclass
class Options(command.Options):
    path: str = "examples/results/transformer.pt"
    text: str = "Return the"
    length: int = 80  # how many tokens the text goes on
    temperature: float = 0.0  # 0: always the most likely token


def run(options: Options) -> Figures:
    if not Path(options.path).is_file():
        raise FileNotFoundError(f"path: {options.path} is not there; examples.transformer writes it")
    saved = torch.load(options.path, weights_only=True, map_location=options.device)
    model = TransformerModel(**saved["options"]).to(options.device).eval()
    model.load_state_dict(saved["state"])
    vocabulary, unit = saved["vocabulary"], saved["unit"]
    given = text.split(options.text, unit)
    if not 2 <= len(given) <= model.context:
        raise ValueError(f"text: got {len(given)} {unit}, needs 2 to {model.context}")
    tokens = text.encoded(given, vocabulary)[None].to(options.device)
    expected = [vocabulary[token] for token in model.predict(tokens)[0].tolist()]
    with torch.no_grad():
        perplexity = loss(model, tokens).exp().item()
    torch.manual_seed(options.seed)
    following = model.generate(tokens, options.length, options.temperature)[0, len(given) :].tolist()
    show(
        f"What is expected after each of the {unit}; perplexity {perplexity:.2f}",
        [
            {"after": repr(before), "expected": repr(after)}
            for before, after in zip(given, expected, strict=True)
        ],
    )
    joint = "" if unit == "characters" else " "
    print(options.text + "|" + joint.join(vocabulary[token] for token in following))
    return {"perplexity": perplexity}


main = command.command(Options, run)

if __name__ == "__main__":
    main()
