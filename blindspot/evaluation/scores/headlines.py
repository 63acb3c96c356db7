"""What other harnesses print under one name, where it is not the paper's ``overall``."""

_HEADLINES = {
    ("vlmevalkit-2026-08", "mmvp"): "pair_accuracy",
    ("official", "mmvp"): "pair_accuracy",
    ("lmms-eval-0.7.3", "cvbench_2d"): "micro",
}


def headline(profile: str, benchmark: str) -> str:
    """The metric that a profile's harness calls the score of a benchmark."""
    return _HEADLINES.get((profile, benchmark), "overall")
