"""The probability that a query block masks a query, over the run."""

import itertools

import pytest
import torch

from visionloop.engine.errors import UserError
from visionloop.tasks.segmentation.mask_annealing import parse_mask_annealing

ADE20K = 39_120  # steps of the authors' run
STEPS = 360


def curves(text, num_blocks, steps=STEPS):
    """[[p of block 0 at steps 0, 1, ...], ...]."""
    annealing = parse_mask_annealing(text, num_blocks)
    return list(
        zip(*(annealing.probabilities(step, steps) for step in range(steps + 1)), strict=True)
    )


def starts(num_blocks):
    return [start for start, _ in parse_mask_annealing("auto", num_blocks).spans]


def test_the_authors_steps_for_ade20k_follow_from_the_shares():
    annealing = parse_mask_annealing("auto", 4)
    borders = [6520, 13_040, 19_560, 26_080, 32_600]
    for block in range(4):
        p = [
            annealing.probabilities(step, ADE20K)[block]
            for step in (0, borders[block], borders[block] + 1, borders[block + 1])
        ]
        assert p[0] == p[1] == 1 and 0.999 < p[2] < 1 and p[3] == 0
        assert 0 < annealing.probabilities(borders[block + 1] - 1, ADE20K)[block] < 0.001
    assert annealing.probabilities(ADE20K, ADE20K) == [0.0] * 4


def test_the_last_sixth_is_without_masks_for_any_number_of_blocks():
    assert starts(1) == pytest.approx([1 / 6])
    assert starts(3) == pytest.approx([1 / 6, 5 / 12, 4 / 6])
    assert starts(5) == pytest.approx([1 / 6, 7 / 24, 5 / 12, 13 / 24, 4 / 6])
    for num_blocks in (1, 2, 3, 4, 5):
        spans = parse_mask_annealing("auto", num_blocks).spans
        assert [end - start for start, end in spans] == pytest.approx([1 / 6] * num_blocks)
        assert all(end <= 5 / 6 + 1e-12 for _, end in spans)


@pytest.mark.parametrize("text", ["auto", "0.1-0.9,0.2-0.3", "30-200,0-360", "on", "off"])
def test_the_probability_never_rises(text):
    for curve in curves(text, 2):
        assert all(0 <= after <= before <= 1 for before, after in itertools.pairwise(curve))


def test_between_start_and_end_it_falls_as_the_poly_schedule():
    first, last = curves("auto", 2)
    assert first[60] == 1 and first[120] == 0 and last[240] == 1 and last[300] == 0
    assert first[90] == last[270] == pytest.approx(0.5**0.9)
    assert first[105] == pytest.approx(0.25**0.9)


def test_a_span_without_a_length_is_a_switch():
    (curve,) = curves("100-100", 1)
    assert curve == (1.0,) * 100 + (0.0,) * (STEPS - 99)


def test_on_masks_all_queries_and_off_masks_none():
    assert curves("on", 3) == [(1.0,) * (STEPS + 1)] * 3
    assert curves("off", 3) == [(0.0,) * (STEPS + 1)] * 3


def test_numbers_above_one_are_steps_whatever_the_length_of_the_run():
    in_steps, in_shares = (
        parse_mask_annealing("0-30,100-200", 2),
        parse_mask_annealing("0-0.5,0.5-1", 2),
    )
    assert in_steps.in_steps and not in_shares.in_steps
    assert in_steps.probabilities(150, 1000) == in_steps.probabilities(150, 300)
    assert in_shares.probabilities(60, 100) == in_shares.probabilities(600, 1000)
    assert in_shares.probabilities(100, 100) == [0.0, 0.0]


@pytest.mark.parametrize("text", ["auto", "10-20,15-300"])
def test_a_checkpoint_gives_back_every_probability_to_the_last_bit(text):
    annealing = parse_mask_annealing(text, 2)
    for step in range(STEPS):
        probabilities = annealing.probabilities(step, STEPS)
        assert torch.tensor(probabilities).tolist() == probabilities


@pytest.mark.parametrize(
    "text",
    [
        "",
        "half",
        "0.1",
        "0.1-0.2-0.3,0-1",
        "0.5-0.2,0-1",
        "-0.1-0.2,0-1",
        "nan-nan,0-1",
        "0.1-0.2;0.3-0.4",
    ],
)
def test_an_invalid_span_is_refused_with_the_expected_form(text):
    with pytest.raises(
        UserError, match="--mask-annealing: expected auto, off, on, or START-END"
    ) as caught:
        parse_mask_annealing(text, 2)
    assert caught.value.field == "mask_annealing" and repr(text) in str(caught.value)


def test_every_query_block_has_its_span():
    with pytest.raises(UserError, match="this model has 3 query blocks, got 2 spans"):
        parse_mask_annealing("0-0.5,0.5-1", 3)
