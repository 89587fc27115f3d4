"""A PyTorch loop: one step of `torch.nn.GRU`, softmax, multinomial, under `inference_mode`."""

import torch

from benchmarks import workload
from benchmarks.workers import serve_generation


class _CharacterModel(torch.nn.Module):
    def __init__(self, sizes: workload.Sizes) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(workload.VOCAB_SIZE, workload.EMBEDDING_DIM)
        self.gru = torch.nn.GRU(
            workload.EMBEDDING_DIM, sizes.hidden_size, sizes.num_layers, batch_first=True
        )
        self.dense = torch.nn.Linear(sizes.hidden_size, workload.VOCAB_SIZE)

    def forward(
        self, token_ids: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits `[batch, vocab_size]` after tokens `[batch, 1]`, and the next state."""
        outputs, state = self.gru(self.embedding(token_ids), state)
        return self.dense(outputs[:, -1]), state


def main() -> None:
    """Generate until there is no further turn."""
    sizes, _ = workload.parse_worker()
    model = _CharacterModel(sizes).eval()

    @torch.inference_mode()
    def generate(streams: int, top_k: int | None, steps: int) -> object:
        token_ids = torch.zeros(streams, 1, dtype=torch.long)
        state = torch.zeros(sizes.num_layers, streams, sizes.hidden_size)
        drawn = []
        for _ in range(steps):
            logits, state = model(token_ids, state)
            logits = logits / workload.TEMPERATURE
            if top_k is not None:
                kth_largest = torch.topk(logits, top_k).values[:, -1:]
                logits = logits.masked_fill(logits < kth_largest, -torch.inf)
            token_ids = torch.multinomial(torch.softmax(logits, dim=-1), 1)
            drawn.append(token_ids)
        return torch.cat(drawn, dim=1).tolist()

    serve_generation(generate)


if __name__ == "__main__":
    main()
