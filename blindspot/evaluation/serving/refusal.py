"""What a server says instead of an answer."""

import re
from typing import Any


class Refusal(Exception):
    """An answer that is an error, in OpenAI's shape.

    Args:
        status: of HTTP.
        message: for people; addresses of Python's objects are taken out.
        code: for programs.
    """

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(re.sub(r" at 0x[0-9a-fA-F]+", "", message))
        self.status = status
        self.code = code

    def to_dict(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": None, "code": self.code}}
