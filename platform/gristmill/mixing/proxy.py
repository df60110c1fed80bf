"""One proxy: a small model trained on the stream of one mixture, and what it loses on each domain.

A proxy is a pure function of its settings, its mixture and its seed. All proxies of a sweep share
the seed, so they start from the same weights, meet a domain's text in the same order and are
measured on the same sequences: what differs between them is the mixture alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import GristmillError
from gristmill.corpora.mixture import Mixture
from gristmill.corpora.stream import TokenStream, validation_batch
from gristmill.corpora.tokens import TokenCorpus
from gristmill.execution.allocator import keep_freed_memory
from gristmill.mixing.proxy_settings import ProxySettings

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a proxy is to be trained on."""

    index: str
    """The mixture's name in the design."""
    weights: Mapping[str, float]
    """Domain -> token share."""
    seed: int
    """Of the start and of the stream."""


class DivergedError(GristmillError):
    """A loss is no number any more. The same settings would give it again."""


@dataclass
class ProxyBench:
    """What the proxies of one process share: the open corpus, validation sequences, the device."""

    corpora: tuple[str, ...]
    """Token corpora."""
    settings: ProxySettings
    """How each is trained."""
    threads: int = 1
    """CPU threads. Part of the result: another number sums in another order."""
    on_gpu: bool = False
    """Whether it trains in bf16 on the GPU that Ray has assigned."""

    def setup(self) -> None:
        """Open the corpus and read every domain's validation sequences, once a process."""
        import torch

        torch.set_num_threads(self.threads)
        self.device = torch.device("cuda" if self.on_gpu else "cpu")
        if not self.on_gpu:
            keep_freed_memory()
        self.corpus = TokenCorpus(*self.corpora)
        self.validation = {
            domain: validation_batch(
                self.corpus,
                domain,
                seq_len=self.settings.seq_len,
                count=self.settings.validation_sequences,
            ).astype(np.int32)
            for domain in self.corpus.domains
        }

    def begin(self, trial: Trial) -> "Proxy":
        """A proxy at step 0."""
        return Proxy(self, trial)


class Proxy:
    """A model in training. Call `advance` until `step` is the settings' `steps`, then `losses`."""

    def __init__(self, bench: ProxyBench, trial: Trial) -> None:
        import torch

        self.bench, self.settings, self.step = bench, bench.settings, 0
        mixture = Mixture(weights={name: float(w) for name, w in trial.weights.items()})
        self._stream = TokenStream(
            bench.corpus,
            mixture,
            seq_len=self.settings.seq_len,
            batch_size=self.settings.batch_size,
            seed=trial.seed,
        )
        self.model = self.settings.model.build(device=bench.device.type, seed=trial.seed)
        self._optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.settings.lr,
            betas=(self.settings.beta1, self.settings.beta2),
            weight_decay=self.settings.weight_decay,
            fused=bench.on_gpu,
        )

    def advance(self, steps: int) -> float:
        """Train for so many steps, at most to the end; the mean training loss of these.

        Raises:
            DivergedError: A training loss is no number.
        """
        import torch

        last = min(self.step + steps, self.settings.steps)
        first, total = self.step, torch.zeros((), device=self.bench.device)
        self.model.train()
        while self.step < last:
            total += self._train_step()
            self.step += 1
        mean = float(total) / max(last - first, 1)
        if not math.isfinite(mean):  # looked at now and then: each look would wait for the GPU
            raise DivergedError(f"the training loss is {mean} by step {self.step}")
        return mean

    def _train_step(self) -> "torch.Tensor":
        import torch

        batch = self._stream.batch(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.rate(self.step)
        total = torch.zeros((), device=self.bench.device)
        for start in range(0, len(batch), self.settings.micro_batch_size):
            rows = batch[start : start + self.settings.micro_batch_size]
            loss = self._loss(rows) * (len(rows) / len(batch))
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return total

    def losses(self) -> dict[str, float]:
        """Mean cross entropy a token, in nats, of each domain's validation sequences.

        Raises:
            DivergedError: One is no number; names its domain.
        """
        import torch

        self.model.eval()
        found = {}
        with torch.inference_mode():
            for domain, rows in self.bench.validation.items():
                size, total = self.settings.micro_batch_size, 0.0
                for start in range(0, len(rows), size):
                    piece = rows[start : start + size].astype(np.int64)
                    total += float(self._loss(piece)) * len(piece)
                found[domain] = total / len(rows)
                if not math.isfinite(found[domain]):
                    raise DivergedError(
                        f"the loss on domain {domain} is {found[domain]} at step {self.step}"
                    )
        return found

    def _loss(self, rows: npt.NDArray[np.int64]) -> "torch.Tensor":
        import torch

        device = self.bench.device
        tokens: Any = torch.from_numpy(rows).to(device, non_blocking=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bench.on_gpu):
            loss: torch.Tensor = self.model(tokens[:, :-1], tokens[:, 1:])
        return loss
