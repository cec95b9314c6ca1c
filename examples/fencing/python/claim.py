"""Whether this pod leads, and with which fencing token. Python 3.7 on Linux."""

import json
import os
import time

PATH = os.path.join(os.environ.get("ELECTOR_STATUS_DIR", "/var/run/elector"), "status.json")


def token(path=PATH):
    """Returns the token of this pod's claim, or None when it does not lead. What cannot be understood is no leadership."""
    try:
        with open(path, "rb") as f:
            status = json.loads(f.read(65536))
        if status["role"] != "leader":
            return None
        if status.get("mode") != "leader-for-life":
            end = status["validUntilBoottime"]
            if not (isinstance(end, int) and time.clock_gettime(time.CLOCK_BOOTTIME) * 1000 < end < 2**63):
                return None
        number = status["fencingToken"]
        return number if type(number) is int and 0 < number < 2**63 else None
    except Exception:
        return None
