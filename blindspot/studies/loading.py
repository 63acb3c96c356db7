"""From a YAML file to a `Study`, or to one line that says what is wrong with it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from blindspot.errors import UserError, did_you_mean
from blindspot.files import write_text
from blindspot.studies.arms import STAGES, expand_arms
from blindspot.studies.schema import REHEARSAL, Claim, EvaluatedModel, InstructStage, Study
from blindspot.text import clean

SHIPPED = Path(__file__).parent
MOST_BYTES = 256 * 1024
"""Of a study file; the shipped ones have a few thousand."""
FIXED_BY_NAME = ("name", "title", "source", "scale", "scales")
(EXTENDS,) = Study.read_before

_SHOULD = {
    **dict.fromkeys(("int_type", "int_from_float"), "should be a whole number"),
    "float_type": "should be a number",
    "string_type": "should be text",
    "list_type": "should be a list, e.g. [clip, siglip]",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "should be a group of keys"),
    "finite_number": "should be a finite number",
    "greater_than_equal": "should be at least {ge}",
    "greater_than": "should be more than {gt:g}",
    "string_pattern_mismatch": 'use lower-case letters, digits, "-" and "_" (it names the run folder)',
}
"""What to write instead, by pydantic's name for the mistake."""


def shipped_studies() -> list[str]:
    """Names of the studies that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_study(name_or_path: str | Path, scale: str | None = None, seeds: int | None = None) -> Study:
    """Read a study and resolve it at a scale.

    Args:
        name_or_path: a shipped study (``miniature``) or the path of a YAML file.
        scale: ``full`` or a key of the file's ``scales``; its values replace those of the file.
        seeds: replaces the file's ``seeds``.
    """
    path = Path(name_or_path)
    if "/" not in str(name_or_path) and path.suffix not in (".yaml", ".yml") and not path.is_file():
        path = SHIPPED / f"{name_or_path}.yaml"
        if name_or_path not in shipped_studies():
            hint = did_you_mean(name_or_path, shipped_studies())
            raise UserError(
                f'no study "{name_or_path}"; {hint} (a study of your own: give the path of its YAML file, e.g. '
                "./my.yaml)"
            )
    where = str(name_or_path) if path == Path(name_or_path) else path.name
    raw = _read(path, where)
    study = _validate(raw, where, "")
    for name, values in study.scales.items():
        for key in FIXED_BY_NAME:
            if key in values:
                raise UserError(f"{where}: scales.{name}.{key}: a scale cannot change this key; remove it")
        _validate(_merge(raw, values), where, f"scales.{name}.")
    chosen = scale or study.scale
    if "scale" in raw and chosen != study.scale:
        raise UserError(
            f'{where}: is already resolved at scale "{study.scale}"; take the original study for "{chosen}"'
        )
    scales = study.scales | ({REHEARSAL: _rehearsed(raw)} if study.recipe == "llava" else {})
    if chosen not in ("full", study.scale, *scales):
        raise UserError(f'{where}: scale "{chosen}": unknown; {did_you_mean(chosen, ["full", *scales])}')
    resolved = _merge(raw, {**scales.get(chosen, {}), "scale": chosen, "scales": None})
    del resolved["scales"]
    if seeds is not None:
        resolved["seeds"], where = seeds, "--seeds"  # all that is not checked yet
    return _validate(resolved, where, "")


def _rehearsed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What a rehearsal changes: batches that a few rows fill, and two seeds and a replicate, so that noise is told.

    Models on servers are left out.
    """
    batch, arms = {"batch": 8}, raw["arms"]
    named = [dict(arm) for arm in arms.get("named", [])]
    for arm in named:
        if arm.get("stages"):
            arm["stages"] = {stage: {**changes, **batch} for stage, changes in arm["stages"].items()}
    replicate = arms.get("replicate") or (named[0]["id"] if named else None)
    changed = {"connector": batch, "instruct": batch, "seeds": 2, "arms": {"named": named, "replicate": replicate}}
    here = [model for model in raw.get("models") or [] if not EvaluatedModel.model_validate(model).remote]
    return {**changed, "models": here}


def save_study(study: Study, path: Path) -> None:
    """Write the resolved study, loadable by `load_study`."""
    values = study.model_dump(exclude={"scales"}, exclude_none=True)
    write_text(path, "# The study as it was run.\n" + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


class _Loader(yaml.SafeLoader):
    """YAML in which ``5e-3`` is a number, and a key given twice or a value that is not of its tag is an error."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int | str):
                str(value).encode()  # too many digits, or half a character, which could be neither shown nor saved
            return value
        except (ValueError, LookupError, AttributeError):  # what PyYAML lets through of int, bool, timestamp
            kind = node.tag.rpartition(":")[2]
            raise yaml.MarkedYAMLError(
                problem=f'"{clean(str(node.value), 40)}" is no {kind}; in quotes it is text',
                problem_mark=node.start_mark,
            ) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f'key "{key.value}" is given twice', problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _read(path: Path, where: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise UserError(f"{where}: more than {MOST_BYTES // 1024} kB: not a study file")
        raw = yaml.load(text.decode(), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{where}{line}: not a study file: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{where}: not a text file in YAML") from error
    except RecursionError as error:
        raise UserError(f"{where}: not a study file: nested too deeply") from error
    except OSError as error:
        raise UserError(f"cannot read study {where}: {error.strerror or error}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{where}: a study file holds keys and values (name: ..., arms: ...); start from a shipped one")
    if EXTENDS not in raw:
        return raw
    name = raw.pop(EXTENDS)
    if name not in shipped_studies():
        raise UserError(f'{where}: {EXTENDS}: "{name}": no shipped study; {did_you_mean(name, shipped_studies())}')
    base = _read(SHIPPED / f"{name}.yaml", name)
    own = {"name", "title", "about"}
    if "arms" in raw:  # are replaced whole, with the models beside them: forms of two files do not mix
        own |= {"arms", "models"}
    return _merge({key: value for key, value in base.items() if key not in own}, raw)


def _merge(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in values.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _validate(raw: Mapping[str, Any], where: str, prefix: str) -> Study:
    try:
        study = Study.model_validate(raw)
        arms = [arm.id for arm in expand_arms(study)]
    except UserError as error:
        raise UserError(f"{where}: {prefix}arms: {error}") from None
    except ValidationError as error:
        raise UserError(f"{where}: {prefix}{_explain(error)}") from None
    if isinstance(study.instruct, InstructStage):
        from blindspot.studies.relatives import relatives  # which loads numpy

        asked = [column["id"] for column in relatives(study.source, study.data.cue)]
        for column in study.instruct.probes:
            if column not in asked:
                raise UserError(
                    f'{where}: {prefix}instruct.probes: no column "{column}"; {did_you_mean(column, asked)}'
                )
    if study.hypotheses or study.means:
        from blindspot.studies.plan import columns

        known = [column["id"] for column in columns(study)]
        for name, meant in study.means.items():
            of = f"{where}: {prefix}means.{name}"
            if name in known or len(set(meant)) < len(meant):
                raise UserError(f"{of}: {'is a column itself' if name in known else 'a column is there twice'}")
            if wrong := [one for one in meant if one not in known]:
                raise UserError(f'{of}: no column "{wrong[0]}"; {did_you_mean(wrong[0], known)}')
        known += study.means
        ids = [claim.id for claim in study.hypotheses]
        for claim in study.hypotheses:
            of = f'{where}: {prefix}hypotheses: "{claim.id}"'
            if ids.count(claim.id) > 1:
                raise UserError(f"{of} is there twice; rename one")
            for arm in claim.contrast:
                if arm not in arms:
                    raise UserError(f'{of}: no arm "{arm}"; {did_you_mean(arm, arms)}')
            if claim.column not in known:
                raise UserError(f'{of}: no column "{claim.column}"; {did_you_mean(claim.column, known)}')
            _refuse_unprobed(study, claim, of)
    return study


def _refuse_unprobed(study: Study, claim: Claim, of: str) -> None:
    """See that a claim about time is about columns that are asked on the way."""
    if claim.outcome == "time" and isinstance(study.instruct, InstructStage):
        from blindspot.studies.relatives import probed

        asked = study.instruct.probes or probed(study.source, study.data.cue)
        for column in study.means.get(claim.column, [claim.column]):
            if column not in asked:
                raise UserError(f"{of}: {column} is not asked on the way; name it in instruct.probes")


def _explain(error: ValidationError) -> str:
    """The first mistake in a study: where it is and what to write instead."""
    # A mistyped key is reported twice, as unknown and as missing: the first says more.
    problem = min(error.errors(), key=lambda problem: problem["type"] != "key")
    kind, value, location, context = problem["type"], problem["input"], problem["loc"], problem.get("ctx", {})
    pairs = zip(location, ("", *location), strict=False)  # a stage's recipe is part of a location, and no key
    named = [part for part, before in pairs if part not in ("toy", "llava") or before not in STAGES]
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in named).lstrip(".")
    if kind in ("key", "recipe"):
        return f"{key}.{problem['msg']}".lstrip(".")
    if kind == "missing":
        return f"{key}: missing; every study states it"
    if not key:
        return problem["msg"]
    if kind == "literal_error":
        valid = re.findall("'([^']*)'", context["expected"])
        return f'{key}: "{value}": unknown; {did_you_mean(value, valid)}'
    if kind in _SHOULD:
        shown = f'"{value}"' if isinstance(value, str) else value
        return f"{key}: {shown}: {_SHOULD[kind].format(**context)}"
    if kind == "too_short":
        return f"{key}: is empty; give at least one"
    return f"{key}: {problem['msg']}"
