"""`make int8`: how close `int8_weights` is to float32, with the embedded model on English text.

It ends with 1 where too few of the most probable tokens agree, or the perplexity is too high.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from core.dialogue.tokenizers import load_tokenizer
from core.engine.torch.cpu.packed_linear import pack_linears
from core.models.catalogue import CATALOGUE, model_directory
from core.models.weights import load_weights
from core.settings import load_settings

LEAST_AGREEMENT = 0.80
"""Of the most probable tokens."""
MOST_PERPLEXITY = 1.05
"""Of int8, as a multiple of float32's."""

TEXTS = (
    """The library at the end of our street opens at nine. On most mornings a few people are
waiting at the door before that, because the reading room is warm and the newspapers are
new. Mrs. Hall, who has worked there for twenty years, knows nearly all of them by name.
She brings a pot of tea from the kitchen and puts it on the long table next to the window.

In spring the town wanted to close the building. The roof had begun to leak, and the
council said that a repair would cost more than the books were worth. Many people wrote
letters. A teacher came with her whole class, and every child read one page of a favourite
story in front of the town hall. After three weeks the mayor promised to look for the
money, and in the end half of it came from a bakery that had once been a customer of the
library's small printing press.

The work took all summer. While the roof was open, the books were kept in boxes in the gym
of the school, sorted by subject and by the name of the author. Volunteers carried them
back in September. They formed a line from the gym to the library, and each book went from
hand to hand for two hundred metres. It rained a little, but no book became wet, since
somebody had thought of bringing umbrellas.

Today there is a small sign beside the door with the names of everyone who helped.
Visitors often ask why a baker is on it. Mrs. Hall then tells the story of the printing
press, and she always ends it in the same way: a town that can pass a book along a street
does not need to be told what it is for. Then she looks at the clock, turns the key, and
lets the first readers in. The children usually run to the back of the room, where the
books about animals and machines are. The older people take a chair near the window and
read the news of the day before.""",
    """Bread needs four things: flour, water, salt and time. Mix the flour with most of the water
and let it rest for half an hour before you add anything else. During this rest the flour
takes up the water, and the dough becomes smooth without much work. Then add the salt, the
yeast and the rest of the water, and knead until the dough no longer sticks to the bowl. A
good test is to pull a small piece between your fingers. If it can be stretched until
light shines through it, it is ready.

Temperature matters more than the recipe. At eighteen degrees the dough may need five
hours to double, and at twenty-six degrees it needs two. A slow rise gives more taste,
because the yeast and the bacteria have time to make acids. For this reason many bakers
leave the dough in a refrigerator overnight, and shape it in the morning.

Heat the oven as high as it goes, with a heavy pot inside. Put the loaf into the hot pot,
close the lid, and bake it for twenty-five minutes. The lid keeps the steam inside, so
that the crust stays soft while the bread grows. Take the lid off for the last twenty
minutes, until the crust is dark brown. Let the bread cool on a rack for at least one hour
before you cut it. The inside is still changing while it cools, and a loaf that is cut too
early is wet and heavy.""",
)


@dataclass(frozen=True, slots=True)
class Measured:
    """The two precisions on the same ids."""

    tokens: int
    agreement: float
    exact: float
    """The perplexity of float32."""
    rounded: float

    def __str__(self) -> str:
        return (
            f"{self.tokens} tokens: {self.agreement:.1%} of the most probable tokens agree, "
            f"perplexity {self.rounded:.2f} against {self.exact:.2f} "
            f"({self.rounded / self.exact:.3f})"
        )

    @property
    def is_close(self) -> bool:
        close = self.rounded <= MOST_PERPLEXITY * self.exact
        return close and self.agreement >= LEAST_AGREEMENT


@torch.inference_mode()
def measure() -> Measured:
    """Compute the texts in float32, and then with the same weights in int8."""
    spec, settings = CATALOGUE["smollm2"], load_settings()
    directory = model_directory(spec, settings, print)
    model = load_weights(spec, directory, dtype="float32", device="cpu", progress=print)
    tokenizer = load_tokenizer(spec, directory)
    texts = [torch.tensor(tokenizer.encode(" ".join(text.split()))) for text in TEXTS]
    exact = [model(input_ids=ids[None], use_cache=False).logits[0] for ids in texts]
    pack_linears(model, int8=True)
    rounded = [model(input_ids=ids[None], use_cache=False).logits[0] for ids in texts]
    same = [one.argmax(-1) == other.argmax(-1) for one, other in zip(exact, rounded, strict=True)]
    return Measured(
        tokens=sum(len(ids) for ids in texts),
        agreement=float(torch.cat(same).float().mean()),
        exact=_perplexity(exact, texts),
        rounded=_perplexity(rounded, texts),
    )


def _perplexity(logits: list[Tensor], texts: list[Tensor]) -> float:
    each = [
        cross_entropy(one[:-1], ids[1:], reduction="none")
        for one, ids in zip(logits, texts, strict=True)
    ]
    return float(torch.cat(each).mean().exp())


if __name__ == "__main__":
    measured = measure()
    print(measured)
    sys.exit(not measured.is_close)
