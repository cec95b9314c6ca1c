// Command s3 serves one bucket in memory, as S3 does, for the test of examples/fencing: at the address that is its first argument, the
// bucket that is its second. A conditional write is checked and done under one lock.
//
// It is a module of its own, so that its dependencies stay out of elector's.
package main

import (
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(address, bucket string) error {
	backend := s3mem.New()
	if err := backend.CreateBucket(bucket); err != nil {
		return fmt.Errorf("making the bucket: %w", err)
	}
	server := &http.Server{Addr: address, Handler: gofakes3.New(backend).Server(), ReadHeaderTimeout: 10 * time.Second}
	return server.ListenAndServe()
}
