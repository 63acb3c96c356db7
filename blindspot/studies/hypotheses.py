"""The claims of a study, checked against its arms and columns."""

from blindspot.errors import UserError, did_you_mean
from blindspot.studies.arms import expand_arms
from blindspot.studies.schema import Study


def check(study: Study) -> None:
    """See that every hypothesis names arms and a column of the study, and no two have one id.

    Raises:
        UserError: naming the hypothesis and what it could have meant.
    """
    if not study.hypotheses:
        return
    from blindspot.studies.columns import columns

    arms = [arm.id for arm in expand_arms(study)]
    known = [column["id"] for column in columns(study)]
    ids = [hypothesis.id for hypothesis in study.hypotheses]
    for hypothesis in study.hypotheses:
        if ids.count(hypothesis.id) > 1:
            raise UserError(f'hypotheses: "{hypothesis.id}" is there twice; rename one')
        for arm in hypothesis.contrast:
            if arm not in arms:
                raise UserError(f'hypotheses: "{hypothesis.id}": no arm "{arm}"; {did_you_mean(arm, arms)}')
        if hypothesis.column not in known:
            hint = did_you_mean(hypothesis.column, known)
            raise UserError(f'hypotheses: "{hypothesis.id}": no column "{hypothesis.column}"; {hint}')
