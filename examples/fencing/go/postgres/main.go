// Command postgres writes a line to PostgreSQL every second while this pod leads. A late writer, whose claim is over, is refused.
package main

import (
	"cmp"
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/jackc/pgx/v5"

	"github.com/elector-io/elector/examples/fencing/go/claim"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	claim.Work(ctx, write)
}

func write(ctx context.Context, token int64) error {
	host, _ := os.Hostname()
	writer := cmp.Or(os.Getenv("POD_NAME"), host)
	connection, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close(context.WithoutCancel(ctx)) }()
	return pgx.BeginFunc(ctx, connection, func(tx pgx.Tx) error {
		// First the fence, which stays locked until the commit: a later leader's write came before, or comes after.
		fence, err := tx.Exec(ctx, "UPDATE fence SET token = $1 WHERE name = 'report' AND token <= $1", token)
		if err != nil {
			return err
		}
		if fence.RowsAffected() == 0 {
			return claim.ErrRefused
		}
		_, err = tx.Exec(ctx, "INSERT INTO report (token, writer) VALUES ($1, $2)", token, writer)
		return err
	})
}
