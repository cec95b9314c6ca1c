"""Writes a line to PostgreSQL every second while this pod leads. A late writer, whose claim is over, is refused."""

import os
import socket
import time

import psycopg

import claim

WRITER = os.environ.get("POD_NAME") or socket.gethostname()


class Refused(Exception):
    pass


def write(token):
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:  # one transaction
        # First the fence, which stays locked until the commit: a later leader's write came before, or comes after.
        fence = connection.execute("UPDATE fence SET token = %s WHERE name = 'report' AND token <= %s", (token, token))
        if fence.rowcount == 0:
            raise Refused
        connection.execute("INSERT INTO report (token, writer) VALUES (%s, %s)", (token, WRITER))


def main():
    was = -1
    while True:
        token = claim.token()
        if token != was:
            print("standing by" if token is None else f"leading with token {token}", flush=True)
        was = token
        if token is not None:
            try:
                write(token)
                print(f"wrote with token {token}", flush=True)
            except Refused:
                print(f"refused: a later leader than that of token {token} has written", flush=True)
            except psycopg.Error as e:
                print(f"not written: {e}", flush=True)
        time.sleep(1)


if __name__ == "__main__":
    main()
