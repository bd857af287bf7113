"""The end of the service, after all other tests of this folder."""

import checks


def test_a_signal_lets_five_requests_finish_while_nothing_new_is_taken(served):
    checks.death(served, patience=10)
