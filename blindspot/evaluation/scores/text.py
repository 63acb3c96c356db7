"""Numbers and foreign text as they are stored and shown."""

from typing import Any

from blindspot.text import DASH, MINUS, clean


def clean_json(value: Any) -> Any:
    """A JSON value with all of its texts, keys included, cleaned."""
    if isinstance(value, str):
        return clean(value, limit=1000)
    if isinstance(value, dict):
        return {clean(str(key)): clean_json(item) for key, item in value.items()}
    return [clean_json(item) for item in value] if isinstance(value, list | tuple) else value


def number(value: float | None, scale: float = 1.0, most: float = 1.0) -> str:
    """A value on the scale that it is printed on.

    Args:
        value: or None, an en dash.
        scale: the factor that it is printed with.
        most: the largest that it can be; up to 1 on that scale it gets three decimals, beyond one.
    """
    if value is None:
        return DASH
    shown = f"{value * scale:.{3 if scale * most <= 1 + 1e-9 else 1}f}"
    return (shown[1:] if float(shown) == 0 and shown.startswith("-") else shown).replace("-", MINUS)


def signed(value: float | None, scale: float = 1.0, most: float = 1.0) -> str:
    """A difference with its sign."""
    shown = number(value, scale, most)
    return shown if value is None or shown.startswith(MINUS) or not float(shown) else f"+{shown}"


def span(low: float | None, high: float | None, scale: float = 1.0, most: float = 1.0) -> str:
    """An interval; empty where there is none."""
    return "" if low is None or high is None else f"{number(low, scale, most)}{DASH}{number(high, scale, most)}"


def percent(share: float | None) -> str:
    """A share in per cent."""
    return DASH if share is None else f"{100 * share:.1f}"


def p_value(p: float | None) -> str:
    """A p value with two digits that matter."""
    return DASH if p is None else "<.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"
