from __future__ import annotations

import re
from pathlib import Path

import pytest

from jptq import ops
from jptq.errors import ConfigError, UnknownNameError
from jptq.numerics.qtypes import FLOAT32, QTYPES
from jptq.targets import load_target, marches
from jptq.targets.facts import FACTS
from jptq.targets.folder import configs
from jptq.targets.integers import WIDTHS
from jptq.targets.operands import TYPES


def shipped(march: str = "nash-e") -> str:
    return (configs("targets") / f"{march}.toml").read_text()


def edited(folder: Path, old: str, new: str) -> Path:
    text = shipped()
    assert old in text
    (folder / "nash-x.toml").write_text(text.replace(old, new, 1))
    return folder


@pytest.mark.parametrize("march", ["nash-e", "nash-m", "nash-p"])
def test_every_number_of_a_shipped_target_has_a_source(march: str) -> None:
    constants = load_target(march).constants()
    assert tuple(constants) == FACTS
    for value, source in constants.values():
        assert value > 0
        assert source.startswith(("doc: ", "assumed: "))


def test_published_numbers_are_those_of_the_boards() -> None:
    peaks = {march: load_target(march).peak_int8_tops.value for march in marches()}
    assert peaks == {"nash-e": 80, "nash-m": 128, "nash-p": 560}
    assert load_target("nash-p").cores.value == 4
    assert load_target("nash-e").ddr_gbytes_s.value == 76.8


def test_unpublished_factors_are_marked_as_assumed() -> None:
    target = load_target("nash-e")
    assert {"int16_factor", "dual_int16_factor", "vector_gops"} <= set(target.assumed())
    assert "peak_int8_tops" not in target.assumed()


def test_rates_are_per_core_and_microsecond() -> None:
    target = load_target("nash-p")
    assert target.macs_per_us == pytest.approx(560e12 / 2 / 4 * 1e-6)
    assert target.bytes_per_us == pytest.approx(204.8e9 * 0.65 * 1e-6)


def test_operands_accept_what_the_constraint_list_says() -> None:
    target = load_target("nash-m")
    for op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        assert target.allowed(op_type, 0) == ("int8", "int16")
        assert target.allowed(op_type, 1) == ("int8",)
        assert target.dual(op_type, 1)
        assert not target.dual(op_type, 0)
    assert target.allowed("Resize", 0) == target.allowed("GridSample", 0) == ("int8",)
    assert target.allowed("GridSample", 1) == ("int8", "int16")
    assert not target.dual("Resize", 0)
    assert target.operands.dual_ops == ("Conv", "ConvTranspose", "Gemm", "MatMul")


@pytest.mark.seed("D1")
@pytest.mark.parametrize("march", ["nash-e", "nash-m", "nash-p"])
def test_int8_operands_that_a_second_operator_can_compensate_are_known(march: str) -> None:
    target = load_target(march)
    products = [(op_type, 1) for op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")]
    sampled = [("GridSample", 0), ("Resize", 0)]
    assert sorted(target.operands.ec_operands) == sorted([*products, *sampled])
    for operand in target.operands.ec_operands:
        assert target.ec(*operand)
        assert target.allowed(*operand) == ("int8",)
    assert not target.ec("Conv", 0)
    assert target.given_out("Resize") == target.given_out("GridSample") == ("int8",)
    assert target.given_out("Conv") == ("int8", "int16", "float16")


@pytest.mark.parametrize("march", ["nash-e", "nash-m", "nash-p"])
def test_float16_is_for_the_vector_unit(march: str) -> None:
    target = load_target(march)
    for op_type in ("Add", "Mul", "Sigmoid", "HzSwish", "Softmax", "LayerNormalization", "Concat"):
        assert target.allowed(op_type, 0) == ("int8", "int16", "float16")
        assert target.given_out(op_type) == ("int8", "int16", "float16")
    for op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm", "Resize", "GridSample", "ArgMax"):
        for index in (0, 1):
            assert "float16" not in target.allowed(op_type, index)
    # Only nash-p takes it in all vector operators.
    assert ("float16" in target.allowed("ReduceMean", 0)) == (march == "nash-p")


@pytest.mark.parametrize("march", ["nash-e", "nash-m", "nash-p"])
def test_every_operator_of_a_list_exists_and_every_rule_has_a_source(march: str) -> None:
    operands = load_target(march).operands
    known = {entry.name for entry in ops.registered()}
    assert set(operands.alike) | {op_type for op_type, _ in operands.rules} <= known
    rules = (*operands.alike.values(), *operands.rules.values(), *operands.outputs.values())
    for rule in (operands.default, *rules):
        assert rule.source.startswith(("doc: ", "assumed: "))


def test_what_a_list_says_gives_way_to_the_table_of_one_operator(tmp_path: Path) -> None:
    entry = '[[operands.alike]]\noperators = ["Conv", "Sign"]\nallowed = ["int16"]\n\n'
    folder = edited(tmp_path, "[operands.Conv]", f"{entry}[operands.Conv]")
    text = (folder / "nash-x.toml").read_text().replace('"Sign", ', "", 1)
    (folder / "nash-x.toml").write_text(text)
    target = load_target("nash-x", folder)
    assert target.allowed("Sign", 0) == target.given_out("Sign") == ("int16",)
    assert target.allowed("Conv", 0) == ("int16",)
    assert target.allowed("Conv", 1) == ("int8",)
    assert target.given_out("Conv") == ("int8", "int16", "float16")


def test_an_unknown_march_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="march 'nash-q'") as caught:
        load_target("nash-q")
    assert "nash-e" in caught.value.hint
    with pytest.raises(UnknownNameError):
        load_target("../targets/nash-e")


def test_a_target_is_a_file(tmp_path: Path) -> None:
    folder = edited(tmp_path, "value = 80\n", "value = 90.5\n")
    assert marches(folder) == ("nash-x",)
    assert load_target("nash-x", folder).peak_int8_tops.value == 90.5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema = 1", "schema = 2", "schema 2 where 1"),
        ("schema = 1", "schema = 1\nnote = 1", "unknown key 'note'"),
        ("[facts.cores]", "[facts.kores]", "unknown fact 'kores'"),
        ("value = 80", "value = -1", "no positive number"),
        ("value = 80", 'value = "80"', "no positive number"),
        ("value = 80", "value = nan", "no positive number"),
        ('source = "doc: ', 'source = "heard: ', "begins with 'doc: '"),
        ("value = 80\n", "", "table of 'value' and 'source'"),
        ('allowed = ["int8", "int16"]', 'allowed = ["int16", "int8"]', "coarse to fine"),
        ('allowed = ["int8", "int16"]', 'allowed = ["int9"]', "unknown type 'int9'"),
        ("dual = true", "duel = true", "unknown key 'duel'"),
        ("output = { allowed", "output = { allow", "unknown key 'allow'"),
        ("[operands.Conv]\n1", "[operands.Conv]\nx", "no input index"),
        ('"Abs", ', '"Abs", "Tanh", ', "Tanh stands in two lists"),
        ("operators = [", "operator = [", "unknown key 'operator'"),
        ("[operands.Conv]", "[operands.Conv", "not a target file"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_target("nash-x", edited(tmp_path, old, new))
    assert "nash-x.toml" in caught.value.where


def test_a_missing_fact_is_refused(tmp_path: Path) -> None:
    text = shipped()
    start, stop = text.index("[facts.cores]"), text.index("[facts.clock_ghz]")
    (tmp_path / "nash-x.toml").write_text(text[:start] + text[stop:])
    with pytest.raises(ConfigError, match="'cores' is missing"):
        load_target("nash-x", tmp_path)


def test_a_target_may_name_every_type_of_a_quantizer_but_the_hosts() -> None:
    # The two subpackages do not see each other.
    assert [*TYPES, FLOAT32.name] == list(QTYPES)


@pytest.mark.parametrize("march", ["nash-e", "nash-m", "nash-p"])
def test_every_width_of_a_sum_has_a_source(march: str) -> None:
    integers = load_target(march).integers
    assert tuple(integers.facts()) == WIDTHS
    assert all(fact.source.startswith(("doc: ", "assumed: ")) for fact in integers.facts().values())
    assert integers.beyond_source.startswith(("doc: ", "assumed: "))
    assert [fact.value for fact in integers.sums] == sorted(f.value for f in integers.sums)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("bias_bits = { value = 32", "bias_bits = { value = 32.5", "no number of bits"),
        ('"saturates"', '"explodes"', "explodes"),
        ("int16_bits = {", "int24_bits = {", "int24_bits"),
        ("beyond = {", "# beyond = {", "'beyond' is missing"),
    ],
)
def test_a_damaged_width_is_refused_with_its_place(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        load_target("nash-x", edited(tmp_path, old, new))
    assert "integers" in str(caught.value)
