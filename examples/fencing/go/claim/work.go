package claim

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrRefused is what a write returns when a later leader has written before it.
var ErrRefused = errors.New("a later leader has written")

// Work calls write with the token every second while this pod leads, and says what came of it. It returns when ctx ends.
func Work(ctx context.Context, write func(ctx context.Context, token int64) error) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	was := int64(-1)
	for ctx.Err() == nil {
		token, leads := Token()
		if !leads {
			token = 0
		}
		if token != was {
			was = token
			fmt.Println(role(token))
		}
		if leads {
			fmt.Println(outcome(token, write(ctx, token)))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

func role(token int64) string {
	if token == 0 {
		return "standing by"
	}
	return fmt.Sprint("leading with token ", token)
}

func outcome(token int64, err error) string {
	switch {
	case err == nil:
		return fmt.Sprint("wrote with token ", token)
	case errors.Is(err, ErrRefused):
		return fmt.Sprintf("refused: a later leader than that of token %d has written", token)
	default:
		return fmt.Sprint("not written: ", err)
	}
}
