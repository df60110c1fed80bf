"""Handwritten digits that scikit-learn carries: a zero-shot check that needs no data folder."""

import hashlib
import io as bytes_io
from collections.abc import Iterator

from gristmill.core.errors import BadInputError, MissingExtraError
from gristmill.evaluation.evalset import EvalSample, EvalSource
from gristmill.evaluation.zero_shot import ZeroShotClassification

MAX_INK = 16
"""Grey levels of the 8 x 8 pictures run from 0 to 16."""


class Digits(ZeroShotClassification):
    """UCI optical digits (Alpaydin and Kaynak 1998), the 1,797 test pictures in scikit-learn.

    Prompts and class names are CLIP's own for MNIST (Radford et al. 2021, data/prompts.md).
    """

    name = "Digits"
    key = "digits"
    test_size = 1797
    digest = "e7eead799197942b7f4db7970ff8931da3786500fd593575035dfe3d61234a50"
    chance = 0.1
    metric = "acc1"

    def check(self, data_root: str) -> None:  # noqa: ARG002 - the data comes with scikit-learn
        """Refuse at once when scikit-learn is missing."""
        import importlib.util

        if importlib.util.find_spec("sklearn") is None:
            raise MissingExtraError("scikit-learn", "clip")

    def open(self, data_root: str) -> EvalSource:  # noqa: ARG002 - the data comes with scikit-learn
        """The digits as PNG, white on black as in MNIST."""
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        if len(labels) != self.test_size:
            raise BadInputError(f"scikit-learn's digits are {len(labels)}, not {self.test_size}")
        pixels = (images.reshape(-1, 8, 8) * 255 / MAX_INK).round().astype("uint8")
        digest = hashlib.sha256(pixels.tobytes() + labels.astype("uint8").tobytes()).hexdigest()

        def samples() -> Iterator[EvalSample]:
            for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
                members = {"png": _png(image), "cls": str(label).encode()}
                yield EvalSample(f"{number:04d}", f"scikit-learn digit {number}", members)

        return EvalSource(
            samples(),
            {"sklearn.load_digits": digest},
            [str(digit) for digit in range(10)],
            ['a photo of the number: "{c}".'],
        )


def _png(pixels: object) -> bytes:
    from PIL import Image

    buffer = bytes_io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
