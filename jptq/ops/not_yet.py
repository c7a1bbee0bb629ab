"""ONNX operators that jptq lacks, and why. The contract test keeps this list complete."""

from __future__ import annotations

_RANDOM = "draws random numbers: a network that does cannot be compared sample by sample"
_SEQUENCE = "works on sequences of tensors, which have no fixed shape to compile for"
_OPTIONAL = "works on values that may be absent, which is only known when running"
_TEXT = "works on text, which never reaches an accelerator"
_LOSS = "a training loss: inference graphs end before it"
_SIGNAL = "signal processing outside the networks that are quantized so far"
_RECENT = "came with opset 27; no exporter writes it yet"
_INTEGER = "integer arithmetic of an already quantized network: give the float network instead"

NOT_YET: dict[str, str] = {
    "Bernoulli": _RANDOM,
    "BlackmanWindow": _SIGNAL,
    "CausalConvWithState": _RECENT,
    "ConcatFromSequence": _SEQUENCE,
    "ConvInteger": _INTEGER,
    "DFT": _SIGNAL,
    "DynamicQuantizeLinear": _INTEGER,
    "HammingWindow": _SIGNAL,
    "HannWindow": _SIGNAL,
    "ImageDecoder": "decodes files: the samples are decoded before they reach the network",
    "LinearAttention": _RECENT,
    "MatMulInteger": _INTEGER,
    "MaxRoiPool": "replaced by RoiAlign in every exporter known to us",
    "MelWeightMatrix": _SIGNAL,
    "Multinomial": _RANDOM,
    "NegativeLogLikelihoodLoss": _LOSS,
    "NonMaxSuppression": "the number of boxes that remain depends on their values",
    "Optional": _OPTIONAL,
    "OptionalGetElement": _OPTIONAL,
    "OptionalHasElement": _OPTIONAL,
    "QLinearConv": _INTEGER,
    "QLinearMatMul": _INTEGER,
    "RandomNormal": _RANDOM,
    "RandomNormalLike": _RANDOM,
    "RandomUniform": _RANDOM,
    "RandomUniformLike": _RANDOM,
    "RegexFullMatch": _TEXT,
    "STFT": _SIGNAL,
    "SequenceAt": _SEQUENCE,
    "SequenceConstruct": _SEQUENCE,
    "SequenceEmpty": _SEQUENCE,
    "SequenceErase": _SEQUENCE,
    "SequenceInsert": _SEQUENCE,
    "SequenceLength": _SEQUENCE,
    "SequenceMap": _SEQUENCE,
    "SoftmaxCrossEntropyLoss": _LOSS,
    "SplitToSequence": _SEQUENCE,
    "StringConcat": _TEXT,
    "StringNormalizer": _TEXT,
    "StringSplit": _TEXT,
    "TfIdfVectorizer": _TEXT,
    "Unique": "the number of distinct values is only known when running",
}
