"""`torch.nn.GRU` in a plain loop; the variant is `float32` or `bfloat16` autocast."""

import torch
from torch import nn

from benchmarks import workload
from benchmarks.workers import TrainingTurns


class _CharacterModel(nn.Module):
    def __init__(self, sizes: workload.Sizes) -> None:
        super().__init__()
        self.embedding = nn.Embedding(workload.VOCAB_SIZE, workload.EMBEDDING_DIM)
        self.gru = nn.GRU(
            workload.EMBEDDING_DIM,
            sizes.hidden_size,
            sizes.num_layers,
            batch_first=True,
            dropout=sizes.dropout if sizes.num_layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(sizes.dropout)
        self.dense = nn.Linear(sizes.hidden_size, workload.VOCAB_SIZE)

    def forward(
        self, token_ids: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits `[batch, time, vocab_size]` and the next state."""
        outputs, state = self.gru(self.embedding(token_ids), state)
        return self.dense(self.dropout(outputs)), state


def main() -> None:
    """Train until there is no further turn."""
    sizes, variant = workload.parse_worker()
    dtype = torch.bfloat16 if variant == "bfloat16" else torch.float32
    model = _CharacterModel(sizes)
    optimizer = torch.optim.AdamW(model.parameters(), workload.LEARNING_RATE)
    shape = (workload.BATCH_SIZE, workload.SEQ_LEN + 1)
    tokens = torch.randint(0, workload.VOCAB_SIZE, shape)
    state = torch.zeros(sizes.num_layers, workload.BATCH_SIZE, sizes.hidden_size)
    turns = TrainingTurns()
    while True:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=variant == "bfloat16"):
            logits, state = model(tokens[:, :-1], state.detach().to(dtype))
            flat = logits.float().reshape(-1, workload.VOCAB_SIZE)
            loss = nn.functional.cross_entropy(flat, tokens[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), workload.CLIP_NORM)
        optimizer.step()
        turns.steps_done()


if __name__ == "__main__":
    main()
