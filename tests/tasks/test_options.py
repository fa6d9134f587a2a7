import asdf
import pytest

from tasks.options import OptionError, merge_overrides, parse_assignments, read_parameter_file, resolve_options


def test_the_command_line_wins_over_the_file_and_the_file_over_the_reference():
    reference = {"jump": {"rejection_threshold": 5.0, "min_jump_to_flag_neighbors": 11.0, "maximum_cores": "none"}}
    overrides = merge_overrides({"jump": {"rejection_threshold": 6.0}}, {"jump": {"rejection_threshold": 7.0}})
    values = resolve_options(reference, overrides).of("jump").values
    assert values.rejection_threshold == 7.0
    assert values.min_jump_to_flag_neighbors == 11.0


def test_every_step_can_be_skipped_or_asked_for():
    options = resolve_options({}, parse_assignments(["jump.skip=true", "ipc.skip=false"]))
    assert options.of("jump").skip is True
    assert options.of("ipc").skip is False
    assert options.of("saturation").skip is None


def test_a_pipeline_has_options_too_but_cannot_be_skipped():
    assert resolve_options({}, {}).of("detector1").values.save_calibrated_ramp is False
    chosen = resolve_options(
        {"detector1": {"save_results": True}}, parse_assignments(["detector1.save_calibrated_ramp=true"])
    )
    assert chosen.of("detector1").values.save_calibrated_ramp is True
    with pytest.raises(OptionError, match="detector1 has no option 'skip'"):
        merge_overrides(parse_assignments(["detector1.skip=true"]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["detector.save_calibrated_ramp=true"], "did you mean 'detector1'"),
        (["jumps.rejection_threshold=5"], "did you mean 'jump'"),
        (["jump.rejection_treshold=5"], "did you mean 'rejection_threshold'"),
        (["jump.rejection_threshold=-1"], "greater than 0.*default is"),
        (["jump.rejection_threshold=high"], r"jump\.rejection_threshold='high' is not valid"),
        (["jump.skip=perhaps"], "skip='perhaps' is not valid"),
        (["rejection_threshold=5"], "expected STEP.OPTION=VALUE"),
        (["jump.rejection_threshold"], "expected STEP.OPTION=VALUE"),
    ],
)
def test_a_wrong_option_names_the_right_one(words, message):
    with pytest.raises(OptionError, match=message):
        merge_overrides(parse_assignments(words))


def test_a_parameter_file_is_read_as_toml_json_or_asdf(tmp_path):
    (tmp_path / "a.toml").write_text("[jump]\nrejection_threshold = 5.0\n")
    (tmp_path / "a.json").write_text('{"jump": {"rejection_threshold": 5.0}}')
    tree = {"class": "jwst.jump.jump_step.JumpStep", "name": "jump", "parameters": {"rejection_threshold": 5.0}}
    asdf.AsdfFile(tree).write_to(tmp_path / "a.asdf")
    for suffix in ("toml", "json", "asdf"):
        assert read_parameter_file(tmp_path / f"a.{suffix}") == {"jump": {"rejection_threshold": 5.0}}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "[jump\n", "not valid"),
        ("a.json", '{"jump": 5}', "table of options for each step"),
        ("a.txt", "", "ends in '.txt'"),
        ("none.toml", None, "cannot read"),
    ],
)
def test_a_bad_parameter_file_is_refused_by_name(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(OptionError, match=message):
        read_parameter_file(tmp_path / name)
