"""ONNX operators that jptq lacks, and why. The contract test keeps this list complete."""

from __future__ import annotations

_RANDOM = "draws random numbers: a network that does cannot be compared sample by sample"
_SEQUENCE = "works on sequences of tensors, which have no fixed shape to compile for"
_OPTIONAL = "works on values that may be absent, which is only known when running"
_TEXT = "works on text, which never reaches an accelerator"

NOT_YET: dict[str, str] = {
    "Bernoulli": _RANDOM,
    "ConcatFromSequence": _SEQUENCE,
    "ImageDecoder": "decodes files: the samples are decoded before they reach the network",
    "MaxRoiPool": "replaced by RoiAlign in every exporter known to us",
    "Multinomial": _RANDOM,
    "Optional": _OPTIONAL,
    "OptionalGetElement": _OPTIONAL,
    "OptionalHasElement": _OPTIONAL,
    "RandomNormal": _RANDOM,
    "RandomNormalLike": _RANDOM,
    "RandomUniform": _RANDOM,
    "RandomUniformLike": _RANDOM,
    "RegexFullMatch": _TEXT,
    "SequenceAt": _SEQUENCE,
    "SequenceConstruct": _SEQUENCE,
    "SequenceEmpty": _SEQUENCE,
    "SequenceErase": _SEQUENCE,
    "SequenceInsert": _SEQUENCE,
    "SequenceLength": _SEQUENCE,
    "SequenceMap": _SEQUENCE,
    "SplitToSequence": _SEQUENCE,
    "StringConcat": _TEXT,
    "StringNormalizer": _TEXT,
    "StringSplit": _TEXT,
    "TfIdfVectorizer": _TEXT,
}
