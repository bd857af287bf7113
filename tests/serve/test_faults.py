"""A service survives what is done to it; the catalogue of faults has the same in full."""

import checks
import pytest

PATIENCE = 10
"""Times are measured on a quiet machine; here they only have to be of the right kind."""


def test_sixty_four_clients_get_the_answers_to_their_own_pictures(served, run):
    checks.together(served, run)


def test_five_hundred_at_once_are_answered_or_told_to_come_back(served):
    checks.crowd(served, waves=2, patience=PATIENCE)


def test_uploads_and_heads_that_are_too_large_or_lie_are_refused(served):
    checks.uploads(served)


def test_small_files_that_unfold_to_much_are_refused(served):
    checks.bombs(served, side_by_side=4, patience=PATIENCE)


def test_no_path_and_no_address_is_ever_followed(served, tmp_path):
    checks.traversal(served, tmp_path)


def test_no_model_is_loaded_or_replaced_over_http(served, run):
    checks.other_models(served, run)


def test_clients_that_dribble_say_nothing_do_not_read_or_vanish_are_left_behind(served):
    checks.slow_clients(served, count=20, within=6, patience=PATIENCE)


def test_a_few_hundred_broken_pictures_crash_nothing(served):
    checks.mutations(served, 300)


@pytest.mark.slow
def test_thousands_of_broken_pictures_crash_nothing(served):
    checks.mutations(served, 10_000)


@pytest.mark.slow
def test_schemathesis_finds_nothing_in_the_openapi(served, tmp_path):
    checks.schema(served, 100, tmp_path)
