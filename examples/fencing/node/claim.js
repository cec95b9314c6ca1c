// Whether this pod leads, and with which fencing token.
"use strict";
const fs = require("node:fs");
const path = require("node:path");

const file = path.join(process.env.ELECTOR_STATUS_DIR || "/var/run/elector", "status.json");

// The clock of validUntilBoottime, rounded up. lxcfs shows another one than the machine's.
function boottime() {
  if (fs.readFileSync("/proc/self/mounts", "utf8").includes(" /proc/uptime ")) return Infinity;
  return Math.round(parseFloat(fs.readFileSync("/proc/uptime", "utf8")) * 1000) + 10;
}

// At most 64 KiB of it.
function read(file) {
  const fd = fs.openSync(file, "r");
  try {
    const buffer = Buffer.alloc(65536);
    return new TextDecoder("utf-8", { fatal: true }).decode(buffer.subarray(0, fs.readSync(fd, buffer)));
  } finally {
    fs.closeSync(fd);
  }
}

// Returns the token of this pod's claim, or null when it does not lead. What cannot be understood is no leadership.
function token(from = file) {
  try {
    const status = JSON.parse(read(from));
    if (status.role !== "leader") return null;
    if (status.mode !== "leader-for-life") {
      const end = status.validUntilBoottime;
      if (!Number.isSafeInteger(end) || !(boottime() < end)) return null;
    }
    const number = status.fencingToken;
    return Number.isSafeInteger(number) && number > 0 ? number : null;
  } catch {
    return null;
  }
}

module.exports = { token };
