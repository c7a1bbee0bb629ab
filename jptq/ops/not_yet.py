"""ONNX operators that jptq lacks, and why. The contract test keeps this list complete."""

from __future__ import annotations

_RANDOM = "draws random numbers: a network that does cannot be compared sample by sample"
_TEXT = "works on text, which never reaches an accelerator"

NOT_YET: dict[str, str] = {
    "Bernoulli": _RANDOM,
    "ImageDecoder": "decodes files: the samples are decoded before they reach the network",
    "MaxRoiPool": "replaced by RoiAlign in every exporter known to us",
    "Multinomial": _RANDOM,
    "RandomNormal": _RANDOM,
    "RandomNormalLike": _RANDOM,
    "RandomUniform": _RANDOM,
    "RandomUniformLike": _RANDOM,
    "RegexFullMatch": _TEXT,
    "StringConcat": _TEXT,
    "StringNormalizer": _TEXT,
    "StringSplit": _TEXT,
    "TfIdfVectorizer": "counts n-grams of text, which is prepared before it reaches the network",
}
