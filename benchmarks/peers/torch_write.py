"""A PyTorch loop: one step of `torch.nn.GRU`, softmax, multinomial, under `inference_mode`."""

import torch

from benchmarks.peers import writing


class CharacterModel(torch.nn.Module):
    """Embedding, GRU, Linear; the state is an argument."""

    def __init__(self, hidden_size: int, num_layers: int):
        super().__init__()
        self.embedding = torch.nn.Embedding(writing.VOCAB_SIZE, writing.EMBEDDING_DIM)
        self.gru = torch.nn.GRU(writing.EMBEDDING_DIM, hidden_size, num_layers, batch_first=True)
        self.head = torch.nn.Linear(hidden_size, writing.VOCAB_SIZE)

    def forward(self, token_ids, state):
        """Return logits `[batch, vocab_size]` after one token a row, and the state."""
        outputs, state = self.gru(self.embedding(token_ids), state)
        return self.head(outputs[:, -1]), state


def main() -> None:
    """Write as told."""
    flags = writing.parse()
    model = CharacterModel(flags.hidden_size, flags.num_layers).eval()

    @torch.inference_mode()
    def write(streams, top_k, steps):
        token_ids = torch.zeros(streams, 1, dtype=torch.long)
        state = torch.zeros(flags.num_layers, streams, flags.hidden_size)
        written = []
        for _ in range(steps):
            logits, state = model(token_ids, state)
            logits = logits / writing.TEMPERATURE
            if top_k is not None:
                least = torch.topk(logits, top_k).values[:, -1:]
                logits = logits.masked_fill(logits < least, -torch.inf)
            token_ids = torch.multinomial(torch.softmax(logits, dim=-1), 1)
            written.append(token_ids)
        return torch.cat(written, dim=1).tolist()

    writing.serve(write)


if __name__ == "__main__":
    main()
