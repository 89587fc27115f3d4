"""The recurrence on a CPU: the fused kernel, its gradient, and the reference implementation."""
