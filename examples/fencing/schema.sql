-- One row for each thing that one leader at a time writes: the token of the latest leader that wrote.
CREATE TABLE fence (name text PRIMARY KEY, token bigint NOT NULL);
INSERT INTO fence VALUES ('report', 0);

-- What is written.
CREATE TABLE report (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	token bigint NOT NULL,
	writer text NOT NULL,
	at timestamptz NOT NULL DEFAULT now()
);

-- A leader that freezes inside a transaction keeps its row of fence locked: the next one waits so long for it. This is for the role that runs
-- this file: set it for your programs' role if that is another one.
ALTER ROLE CURRENT_USER SET idle_in_transaction_session_timeout = '5s';
