// Command s3 adds a line to an object every second while this pod leads, in any store of S3's kind that knows conditional writes. A late
// writer, whose claim is over, is refused.
//
// The object carries the token of the leader that wrote it last. It is read, and replaced only if nobody else has replaced it meanwhile
// (If-Match), or made if there is none (If-None-Match).
package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/elector-io/elector/examples/fencing/go/claim"
)

const (
	object = "report"
	// header is the object's metadata with the token. Stores write it in their own way: X-Amz-Meta-Fencing-Token.
	header = "Fencing-Token"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:gocritic // Nothing is left to be undone.
	}
}

func run(ctx context.Context) error {
	// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. S3_INSECURE=true is for stores without TLS.
	client, err := minio.New(os.Getenv("S3_ENDPOINT"), &minio.Options{
		Creds: credentials.NewEnvAWS(), Secure: os.Getenv("S3_INSECURE") != "true", MaxRetries: 1, // a line is written once
	})
	if err != nil {
		return fmt.Errorf("making a client of the store: %w", err)
	}
	host, _ := os.Hostname()
	writer := cmp.Or(os.Getenv("POD_NAME"), host)
	claim.Work(ctx, func(ctx context.Context, token int64) error { return write(ctx, client, token, writer) })
	return nil
}

// write replaces the object that it has read, or, when somebody else was quicker, reads again.
func write(ctx context.Context, client *minio.Client, token int64, writer string) error {
	for {
		options := minio.PutObjectOptions{UserMetadata: map[string]string{header: strconv.FormatInt(token, 10)}, ContentType: "text/plain", DisableMultipart: true}
		text, etag, last, err := read(ctx, client)
		switch {
		case err != nil:
			return err
		case last > token:
			return claim.ErrRefused
		case etag == "":
			options.SetMatchETagExcept("*")
		default:
			options.SetMatchETag(etag)
		}
		// The token is in the text, too: two leaders never write the same text, which would have the same ETag.
		text = fmt.Appendf(text, "%d %s %s\n", token, writer, time.Now().UTC().Format(time.RFC3339))
		_, err = client.PutObject(ctx, os.Getenv("S3_BUCKET"), object, bytes.NewReader(text), int64(len(text)), options)
		if minio.ToErrorResponse(err).StatusCode != http.StatusPreconditionFailed {
			return err
		}
	}
}

// read returns the object and the token of who wrote it last. Of one that is not there the ETag is empty.
func read(ctx context.Context, client *minio.Client) (text []byte, etag string, token int64, err error) {
	reader, err := client.GetObject(ctx, os.Getenv("S3_BUCKET"), object, minio.GetObjectOptions{})
	if err != nil {
		return nil, "", 0, err
	}
	defer func() { _ = reader.Close() }()
	info, err := reader.Stat()
	if minio.ToErrorResponse(err).Code == minio.NoSuchKey {
		return nil, "", 0, nil
	}
	if err != nil {
		return nil, "", 0, err
	}
	if token, err = strconv.ParseInt(info.UserMetadata[header], 10, 64); err != nil {
		return nil, "", 0, fmt.Errorf("the object has no token: %w", err)
	}
	text, err = io.ReadAll(reader)
	return text, info.ETag, token, err
}
