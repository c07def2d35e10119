"""How costs and sizes grow with the model and the test set."""

import jiwer
import numpy as np
import pytest

from mpq.bench import growth


def test_growth_has_a_row_for_every_cost_and_size():
    options = growth.Options((5, 10), (2_000, 4_000), (20, 40), repeats=1)
    rows = growth.run(options)
    names = [*growth.BY_SITES, *growth.BY_PARAMETERS, *growth.BY_UTTERANCES]
    assert [row["system"] for row in rows] == [name for name in names for _ in range(2)]
    assert all(row["processor_seconds"] > 0 for row in rows)
    assert all(np.isfinite(row["exponent"]) for row in rows[1::2])


def test_made_up_hypotheses_have_the_errors_they_are_to_have():
    references, hypotheses = growth.texts(2_000, seed=1)
    rate = jiwer.wer(list(references.values()), list(hypotheses.values()))
    assert rate == pytest.approx(sum(growth._ERROR_RATES), rel=0.1)
