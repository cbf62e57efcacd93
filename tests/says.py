"""A model that says what a test wants."""

from harken.core.protocols import Sample


class Says:
    """Answer `k` to a prompt is `of(text, k)`; `asked` counts the prompts."""

    engine = None

    def __init__(self, of):
        self.of, self.asked = of, 0

    def sample(self, prompts, n, *, max_tokens, temperature=1.0, top_p=1.0, seed=0, advance=None):
        self.asked += len(prompts)
        return [[Sample((), self.of(p.text, k), (), (), True) for k in range(n)] for p in prompts]
