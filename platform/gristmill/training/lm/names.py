"""Names that the command line and the engines share; imports nothing."""

from typing import Literal

EngineName = Literal["torch", "zero0", "zero1", "zero2", "zero3"]
Precision = Literal["auto", "bf16", "fp32"]
